/* SPDX-License-Identifier: MIT */
#include "cli/bench/service.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc/process.h"
#include "proc/root.h"

#define START_MS  20000
#define STOP_MS   10000
#define ANSWER_MS 60000

/* --- users --- */

static uid_t user_id;
static gid_t group_id;

static bool choose_user(const char *user)
{
	/* cppcheck-suppress getpwnamCalled ; an experiment has one thread */
	const struct passwd *entry = getpwnam(user);

	if (!entry)
		/* cppcheck-suppress getpwnamCalled ; likewise */
		entry = getpwnam("nobody");
	if (!entry)
		return false;
	user_id = entry->pw_uid;
	group_id = entry->pw_gid;
	return true;
}

/* The directory above path that others may not pass through, or NULL. */
static const char *find_closed(struct bench *bench, const char *path)
{
	const char *slash = strchr(path + 1, '/'), *part;
	struct stat status;

	for (; slash; slash = strchr(slash + 1, '/')) {
		part = bench_text(bench, "%.*s", (int)(slash - path), path);
		if (stat(part, &status) == 0 && !(status.st_mode & S_IXOTH))
			return part;
	}
	return NULL;
}

bool service_prepare(struct bench *bench, const char *name, const char *user,
		     struct service *ret_service)
{
	const char *directory = bench_text(bench, "%s/%s", bench->directory, name), *closed;

	/* The path of a socket has its bound. */
	if (strlen(directory) + 24 > sizeof(((struct sockaddr_un *)0)->sun_path)) {
		bench_fail(bench, 0, "%s is too long a path for a socket; give another --directory",
			   directory);
		return false;
	}
	if (mkdir(directory, 0700) < 0) {
		bench_fail(bench, -errno, "cannot make %s", directory);
		return false;
	}
	user_id = geteuid();
	group_id = getegid();
	if (geteuid() == 0 && (!choose_user(user) || chown(directory, user_id, group_id) < 0 ||
			       /* Its user has to pass through. */
			       chmod(bench->directory, 0711) < 0)) {
		bench_fail(bench, -errno, "cannot give %s to an ordinary user", directory);
		return false;
	}
	closed = geteuid() == 0 ? find_closed(bench, directory) : NULL;
	if (closed) {
		bench_fail(bench, 0,
			   "%s runs as an ordinary user, who may not enter %s; give another "
			   "--directory",
			   name, closed);
		return false;
	}
	*ret_service = (struct service){ .name = name,
					 .directory = directory,
					 .log = bench_text(bench, "%s/log", directory) };
	return true;
}

/* In the child. */
__attribute__((noreturn)) static void become(const struct service *service,
					     const char *const argv[], int out)
{
	int null = open("/dev/null", O_RDWR), log;

	if (geteuid() == 0 &&
	    (setgroups(0, NULL) < 0 || setgid(group_id) < 0 || setuid(user_id) < 0))
		_exit(126);
	/* Changing the user has cleared it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	log = open(service->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (chdir(service->directory) < 0)
		_exit(126);
	dup2(null, STDIN_FILENO);
	dup2(out >= 0 ? out : log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	setenv("LC_ALL", "C", 1);
	setenv("HOME", service->directory, 1);
	signal(SIGPIPE, SIG_DFL);
	execv(argv[0], (char *const *)argv);
	dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* What a server said last is why it did not start. */
static const char *last_words(struct bench *bench, const struct service *service)
{
	char text[2048], *line;
	FILE *file = fopen(service->log, "re");
	size_t length;

	if (!file)
		return "it said nothing";
	fseek(file, -(long)sizeof(text) + 1, SEEK_END);
	length = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	while (length && text[length - 1] == '\n')
		length--;
	text[length] = '\0';
	line = strrchr(text, '\n');
	return bench_text(bench, "%s", line ? line + 1 : text);
}

static char *read_rest(int fd)
{
	size_t length = 0, room = 65536;
	char *text = malloc(room);
	ssize_t n;

	while (text && length + 1 < room) {
		n = read(fd, text + length, room - length - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		length += (size_t)n;
	}
	if (text)
		text[length] = '\0';
	return text;
}

int service_run(struct bench *bench, const struct service *service, const char *const argv[],
		char **ret_output)
{
	int fds[2], status;
	char *output;
	pid_t pid;

	if (bench_over(bench))
		return -ECANCELED;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		become(service, argv, fds[1]);
	close(fds[1]);
	output = pid < 0 ? NULL : read_rest(fds[0]);
	close(fds[0]);
	if (pid < 0) {
		bench_fail(bench, -errno, "cannot start %s", argv[0]);
		return -EAGAIN;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		bench_fail(bench, 0, "%s: %s", argv[0], last_words(bench, service));
	if (ret_output)
		*ret_output = output;
	else
		free(output);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}

bool service_start(struct bench *bench, struct service *service, const char *const argv[])
{
	if (bench_over(bench))
		return false;
	service->pid = fork();
	if (service->pid == 0)
		become(service, argv, -1);
	if (service->pid < 0)
		bench_fail(bench, -errno, "cannot start %s", service->name);
	return service->pid > 0;
}

static int try_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -errno;
}

int service_connect(struct bench *bench, const struct service *service, const char *socket)
{
	const char *path = bench_text(bench, "%s/%s", service->directory, socket);
	int waited, fd, status;

	if (bench_over(bench))
		return -1;
	for (waited = 0; waited < START_MS; waited += 10) {
		fd = try_connect(path);
		if (fd >= 0)
			return fd;
		if (waitpid(service->pid, &status, WNOHANG) == service->pid)
			break;
		usleep(10000);
	}
	bench_fail(bench, 0, "%s does not answer: %s", service->name, last_words(bench, service));
	return -1;
}

void service_stop(struct service *service)
{
	int waited, status;

	if (service->pid <= 0)
		return;
	kill(service->pid, SIGTERM);
	for (waited = 0; waited < STOP_MS; waited += 10) {
		if (waitpid(service->pid, &status, WNOHANG) != 0)
			break;
		usleep(10000);
	}
	if (waited >= STOP_MS) {
		kill(service->pid, SIGKILL);
		waitpid(service->pid, &status, 0);
	}
	service->pid = 0;
}

size_t service_children(pid_t parent, pid_t *ret_pids, size_t max)
{
	struct proc_buffer buffer = { 0 };
	struct proc_root root;
	struct proc_stat stat;
	struct text text;
	size_t count = 0, found = 0, i;
	pid_t *pids;
	char path[64];

	if (proc_root_open(NULL, &root) < 0)
		return 0;
	if (proc_root_list(&root, &pids, &count) < 0)
		count = 0;
	for (i = 0; i < count && found < max; i++) {
		snprintf(path, sizeof(path), "proc/%d/stat", (int)pids[i]);
		if (proc_root_read(&root, path, &buffer, &text) == 0 &&
		    proc_stat_parse(text, &stat) == 0 && (pid_t)stat.ppid == parent)
			ret_pids[found++] = pids[i];
	}
	if (count)
		free(pids);
	proc_buffer_free(&buffer);
	proc_root_close(&root);
	return found;
}

bool service_write(struct bench *bench, const struct service *service, const char *file,
		   const char *text)
{
	const char *path = bench_text(bench, "%s/%s", service->directory, file);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (!written)
		bench_fail(bench, -errno, "cannot write %s", path);
	if (fd >= 0)
		close(fd);
	return written;
}

static bool ends_with(const char *text, size_t length, const char *end)
{
	size_t wanted = strlen(end);

	return wanted && length >= wanted && memcmp(text + length - wanted, end, wanted) == 0;
}

int service_ask(int fd, const char *request, const char *end, char *ret_answer, size_t room)
{
	struct pollfd polled = { .fd = fd, .events = POLLIN };
	size_t length = 0;
	ssize_t n;

	if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
		return -EPIPE;
	do {
		if (poll(&polled, 1, ANSWER_MS) <= 0)
			return -ETIMEDOUT;
		n = read(fd, ret_answer + length, room - 1 - length);
		if (n < 0)
			return -errno;
		length += (size_t)n;
		ret_answer[length] = '\0';
	} while (n > 0 && length + 1 < room && !ends_with(ret_answer, length, end));
	return 0;
}
