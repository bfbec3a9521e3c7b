/* SPDX-License-Identifier: MIT */
#include "cli/stat/tuning.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/output.h"

#define SETTING "/proc/sys/kernel/task_delayacct"

static pid_t changed_by;

bool tuning_delays_are_counted(void)
{
	char digit = '0';
	int fd = open(SETTING, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (read(fd, &digit, 1) != 1)
		digit = '0';
	close(fd);
	return digit == '1';
}

static int set(char digit)
{
	int fd = open(SETTING, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, &digit, 1) != 1)
		error = -errno;
	close(fd);
	return error;
}

int tuning_count_delays(void)
{
	int error;

	if (tuning_delays_are_counted())
		return 0;
	error = set('1');
	if (error)
		return error;
	changed_by = getpid();
	atexit(tuning_restore);
	return 0;
}

bool tuning_is_ours(void)
{
	return changed_by == getpid();
}

void tuning_restore(void)
{
	int error;

	/* A child that could not become the command ends, too. */
	if (!tuning_is_ours())
		return;
	changed_by = 0;
	error = set('0');
	if (error)
		complain_errno(error, "cannot put back kernel.task_delayacct; do it with: "
				      "sysctl kernel.task_delayacct=0");
}
