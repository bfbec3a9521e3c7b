/* SPDX-License-Identifier: MIT */
#include "cli/demo/measure.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void sleep_until_ns(uint64_t time)
{
	struct timespec until = { .tv_sec = (time_t)(time / NS_PER_S),
				  .tv_nsec = (long)(time % NS_PER_S) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* The text behind the first line that begins with key, without blanks before it and the newline
 * behind it. */
static void read_value(const char *path, const char *key, char *text, size_t size)
{
	char line[512], *value;
	FILE *file = fopen(path, "re");

	text[0] = '\0';
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		value = line + strlen(key);
		value += strspn(value, " \t:");
		value[strcspn(value, "\n")] = '\0';
		snprintf(text, size, "%s", value);
		break;
	}
	fclose(file);
}

static uint64_t read_kib(const char *path, const char *key)
{
	unsigned long long kib = 0;
	char text[64];

	read_value(path, key, text, sizeof(text));
	return sscanf(text, "%llu kB", &kib) == 1 ? (uint64_t)kib << 10 : 0;
}

uint64_t pss_bytes(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%ld/smaps_rollup", (long)pid);
	return read_kib(path, "Pss:");
}

static uint64_t usage_ns(int who)
{
	struct rusage usage;

	if (getrusage(who, &usage) < 0)
		return 0;
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NS_PER_S +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

uint64_t cpu_ns(void)
{
	return usage_ns(RUSAGE_SELF) + usage_ns(RUSAGE_CHILDREN);
}

uint64_t thread_waited_ns(void)
{
	unsigned long long ran, waited = 0;
	char text[128];

	read_value("/proc/thread-self/schedstat", "", text, sizeof(text));
	return sscanf(text, "%llu %llu", &ran, &waited) == 2 ? waited : 0;
}
