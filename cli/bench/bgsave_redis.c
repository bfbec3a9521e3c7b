/* SPDX-License-Identifier: MIT */
/*
 * The real Redis: a data set of some size, BGSAVE while clients write, and what Redis itself says
 * of it in INFO (latest_fork_usec, rdb_last_cow_size).
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench/bgsave.h"
#include "cli/bench/service.h"

#define SOCKET    "redis"
#define VALUE     1024 /* bytes */
#define PIPELINED 64
#define INFO_ROOM 65536

struct client {
	struct bench *bench;
	struct service service;
	int fd;
	uint64_t keys, state;
	char *info;
	bool sound; /* every save ended well */
};

/* A command whose answer is one line; the answer is thrown away. */
static bool command(struct client *client, const char *text)
{
	char answer[512];
	int error;

	if (bench_over(client->bench))
		return false;
	error = service_ask(client->fd, text, "\r\n", answer, sizeof(answer));
	if (error || answer[0] == '-') {
		bench_fail(client->bench, error, "redis-server: %.100s",
			   answer[0] == '-' ? answer + 1 : text);
		return false;
	}
	return true;
}

/* An answer of unknown length ends where that of the command after it does. */
static bool read_info(struct client *client)
{
	int error = bench_over(client->bench) ? -ECANCELED :
						service_ask(client->fd, "INFO\r\nPING\r\n",
							    "+PONG\r\n", client->info, INFO_ROOM);

	if (error)
		bench_fail(client->bench, error, "redis-server does not answer INFO");
	return error == 0;
}

static double info_number(const struct client *client, const char *name)
{
	const char *at = client->info;
	size_t length = strlen(name);

	while (at) {
		if (strncmp(at, name, length) == 0 && at[length] == ':')
			return strtod(at + length + 1, NULL);
		at = strchr(at, '\n');
		at = at ? at + 1 : NULL;
	}
	return NAN;
}

static bool info_is(const struct client *client, const char *line)
{
	return strstr(client->info, line) != NULL;
}

/* Overwrites values at random, some at once: returns how many, 0 on failure. */
static uint64_t write_some(struct client *client)
{
	static char request[PIPELINED * (VALUE + 96)], answer[5 * PIPELINED + 1];
	char *at = request;
	int i, error;

	for (i = 0; i < PIPELINED; i++) {
		client->state ^= client->state << 13;
		client->state ^= client->state >> 7;
		client->state ^= client->state << 17;
		at += sprintf(at, "*3\r\n$3\r\nSET\r\n$14\r\nkey:%010" PRIu64 "\r\n$%d\r\n",
			      client->state % client->keys, VALUE);
		memset(at, 'a' + (int)(client->state % 26), VALUE);
		at += VALUE;
		at += sprintf(at, "\r\n");
	}
	/* Each is answered by +OK and a line's end. */
	error = service_ask(client->fd, request, "", answer, sizeof(answer));
	if (error || strncmp(answer, "+OK", 3) != 0) {
		bench_fail(client->bench, error, "redis-server: %.60s", answer);
		return 0;
	}
	return PIPELINED;
}

/* Data that was written by clients, as the values that overwrite it are. */
static void fill(struct client *client)
{
	const uint64_t keys = client->keys;
	char text[160];

	snprintf(text, sizeof(text), "DEBUG POPULATE %" PRIu64 " key %d\r\n", keys, VALUE);
	command(client, text);
}

struct samples {
	struct bench_samples fork, cow, writes, seconds;
};

/* One BGSAVE under load. */
static void save(struct client *client, struct samples *samples, bool counted)
{
	uint64_t start = bench_now(), writes = 0, written;
	double took;

	if (!command(client, "BGSAVE\r\n"))
		return;
	do {
		written = write_some(client);
		writes += written;
		if (!written || !read_info(client))
			return;
	} while (info_number(client, "rdb_bgsave_in_progress") > 0);
	took = (double)(bench_now() - start);
	client->sound = client->sound && info_is(client, "rdb_last_bgsave_status:ok");
	if (!counted)
		return;
	bench_samples_add(&samples->fork, 1000 * info_number(client, "latest_fork_usec"));
	bench_samples_add(&samples->cow, info_number(client, "rdb_last_cow_size"));
	bench_samples_add(&samples->writes, (double)writes * 1e9 / took);
	bench_samples_add(&samples->seconds, took);
}

static void add_rows(struct bench *bench, const struct samples *samples, double used)
{
	bench_add_value(bench,
			&(struct bench_row){ "redis/used", "data of the real Redis (used_memory)",
					     BENCH_BYTES },
			used);
	bench_add(bench,
		  &(struct bench_row){ "redis/stall", "Redis: fork() (latest_fork_usec)", BENCH_NS,
				       "microseconds for 1 GB" },
		  &samples->fork);
	bench_add(bench, &(struct bench_row){ "redis/took", "Redis: BGSAVE", BENCH_NS },
		  &samples->seconds);
	bench_add(bench,
		  &(struct bench_row){ "redis/copied", "Redis: rdb_last_cow_size, under writes",
				       BENCH_BYTES },
		  &samples->cow);
	bench_add(bench,
		  &(struct bench_row){ "redis/writes", "Redis: SETs of 1 KiB meanwhile",
				       BENCH_PER_SECOND },
		  &samples->writes);
}

static void run_saves(struct client *client)
{
	struct bench *bench = client->bench;
	struct samples samples = { 0 };
	unsigned int i;
	double used;

	fill(client);
	if (!read_info(client))
		return;
	used = info_number(client, "used_memory");
	for (i = 0; i < bench->warm_ups + bench->runs && !bench_over(bench); i++)
		save(client, &samples, i >= bench->warm_ups);
	bench_check(bench, client->sound, "each BGSAVE of the real Redis ends well");
	if (!bench_over(bench) && samples.fork.count)
		add_rows(bench, &samples, used);
	bench_samples_free(&samples.fork);
	bench_samples_free(&samples.cow);
	bench_samples_free(&samples.writes);
	bench_samples_free(&samples.seconds);
}

void bgsave_by_redis(struct bench *bench, uint64_t bytes)
{
	const char *redis = bench_find_program(bench, "redis-server");
	struct client client = { .bench = bench, .state = bench->seed | 1, .sound = true };

	if (!redis) {
		bench_add_skipped(bench,
				  &(struct bench_row){ "redis/stall", "Redis: fork()", BENCH_NS },
				  "redis-server is not installed (package redis-server)");
		return;
	}
	/* A key takes about 1.2 KiB with its value. */
	client.keys = bytes / (VALUE + 200);
	client.info = malloc(INFO_ROOM);
	if (client.info && service_prepare(bench, "redis", "redis", &client.service)) {
		const char *argv[] = { redis,
				       "--port",
				       "0",
				       "--unixsocket",
				       bench_text(bench, "%s/" SOCKET, client.service.directory),
				       "--dir",
				       client.service.directory,
				       "--save",
				       "",
				       "--enable-debug-command",
				       "local",
				       NULL };

		service_start(bench, &client.service, argv);
		client.fd = service_connect(bench, &client.service, SOCKET);
		if (client.fd >= 0) {
			run_saves(&client);
			close(client.fd);
		}
		service_stop(&client.service);
	}
	free(client.info);
}
