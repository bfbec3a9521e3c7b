/* SPDX-License-Identifier: MIT */
/*
 * Two sockets: exit records come to one whenever a task ends, answers to questions about those
 * alive to the other. An exit record may come before the table knows its process (which began and
 * ended since the last look): it waits for two more looks, then it is none of the target's.
 */
#include "cli/stat/taskstats.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/taskstats.h>

#include "cli/output.h"
#include "cli/stat/live.h"
#include "cli/stat/processes.h"
#include "cli/stat/tuning.h"
#include "proc/taskstats.h"

#define RECEIVE_BYTES  (16 << 20)
#define DATAGRAM_BYTES 16384
#define LOOKS          2
#define FAULTS         (METRIC_BIT(METRIC_MINOR_FAULTS) | METRIC_BIT(METRIC_MAJOR_FAULTS))

/* The end of a thread. */
struct ended {
	uint32_t tgid;
	unsigned int looks;
	uint64_t copies, copy_ns;
	uint64_t minor_faults, major_faults;
};

struct taskstats_source {
	int exits, questions;
	uint16_t family;
	bool counts_copies; /* nobody better does */
	bool counts_faults; /* likewise */
	bool lacks_copies;  /* a record came without them */
	struct ended *ended;
	size_t ended_count, ended_room;
	struct proc_taskstats answer;
	bool answered;
};

struct request {
	struct nlmsghdr netlink;
	struct genlmsghdr generic;
	struct nlattr attribute;
	char value[64];
};

static int open_socket(int receive_bytes)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	const struct timeval limit = { .tv_sec = 5 };
	int fd, error;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (fd < 0)
		return -errno;
	/* Beyond what users may ask for, where that is allowed. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof(receive_bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (const struct sockaddr *)&kernel, sizeof(kernel)) == 0)
		return fd;
	error = -errno;
	close(fd);
	return error;
}

static int send_request(int fd, uint16_t family, uint8_t command, uint8_t version, uint16_t type,
			const void *value, size_t length)
{
	struct request request = {
		.netlink = { .nlmsg_type = family, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
		.generic = { .cmd = command, .version = version },
		.attribute = { .nla_type = type, .nla_len = (uint16_t)(NLA_HDRLEN + length) },
	};

	if (length > sizeof(request.value))
		return -E2BIG;
	memcpy(request.value, value, length);
	request.netlink.nlmsg_len = (uint32_t)(offsetof(struct request, value) + NLA_ALIGN(length));
	return send(fd, &request, request.netlink.nlmsg_len, 0) < 0 ? -errno : 0;
}

static int receive(int fd, int flags, void *buffer, size_t *ret_length)
{
	ssize_t length;

	do {
		length = recv(fd, buffer, DATAGRAM_BYTES, flags);
	} while (length < 0 && errno == EINTR);
	if (length < 0)
		return -errno;
	*ret_length = (size_t)length;
	return 0;
}

static int find_family(int fd, uint16_t *ret_family)
{
	unsigned char buffer[DATAGRAM_BYTES];
	size_t length = 0;
	int error;

	error = send_request(fd, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, CTRL_ATTR_FAMILY_NAME,
			     TASKSTATS_GENL_NAME, sizeof(TASKSTATS_GENL_NAME));
	if (!error)
		error = receive(fd, 0, buffer, &length);
	if (!error)
		error = taskstats_parse_family(buffer, length, ret_family);
	if (!error)
		error = receive(fd, 0, buffer, &length); /* the acknowledgement */
	return error;
}

static void no_record(const struct proc_taskstats *record, void *context)
{
}

/* Asks for the records of tasks that end on any processor. */
static int register_exits(struct taskstats_source *source)
{
	unsigned char buffer[DATAGRAM_BYTES];
	char processors[32];
	size_t length = 0;
	int error;

	snprintf(processors, sizeof(processors), "0-%ld", sysconf(_SC_NPROCESSORS_CONF) - 1);
	error = send_request(source->exits, source->family, TASKSTATS_CMD_GET,
			     TASKSTATS_GENL_VERSION, TASKSTATS_CMD_ATTR_REGISTER_CPUMASK,
			     processors, strlen(processors) + 1);
	if (!error)
		error = receive(source->exits, 0, buffer, &length);
	if (!error)
		error = taskstats_parse(buffer, length, source->family, no_record, NULL);
	return error;
}

static void take_answer(const struct proc_taskstats *record, void *context)
{
	struct taskstats_source *source = context;

	source->answer = *record;
	source->answered = true;
}

/* Asks about a process, all its threads, those ended included. */
static int ask(struct taskstats_source *source, pid_t pid, struct proc_taskstats *ret_record)
{
	unsigned char buffer[DATAGRAM_BYTES];
	uint32_t tgid = (uint32_t)pid;
	size_t length = 0;
	int error, i;

	error = send_request(source->questions, source->family, TASKSTATS_CMD_GET,
			     TASKSTATS_GENL_VERSION, TASKSTATS_CMD_ATTR_TGID, &tgid, sizeof(tgid));
	source->answered = false;
	/* The answer and the acknowledgement, or an error alone. */
	for (i = 0; i < 2 && !error; i++) {
		error = receive(source->questions, 0, buffer, &length);
		if (!error)
			error = taskstats_parse(buffer, length, source->family, take_answer,
						source);
	}
	if (error)
		return error;
	if (!source->answered || !source->answer.has_copies)
		return -EOPNOTSUPP;
	*ret_record = source->answer;
	return 0;
}

static uint64_t minus(uint64_t left, uint64_t right)
{
	return left > right ? left - right : 0;
}

static void set_counts(const struct taskstats_source *source, struct process *process,
		       uint64_t copies, uint64_t copy_ns)
{
	process->counts.value[METRIC_DELAY_NS] = minus(copy_ns,
						       process->base.value[METRIC_DELAY_NS]);
	if (source->counts_copies)
		process->counts.value[METRIC_COPIED] = minus(copies,
							     process->base.value[METRIC_COPIED]);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Of its whole life; a sum over threads that have ended may lack those that did so before. */
static void set_faults(const struct taskstats_source *source, struct process *process,
		       uint64_t minor, uint64_t major)
{
	uint64_t *counts = process->counts.value;
	const uint64_t *base = process->base.value;

	if (!source->counts_faults)
		return;
	counts[METRIC_MINOR_FAULTS] = larger(counts[METRIC_MINOR_FAULTS],
					     minus(minor, base[METRIC_MINOR_FAULTS]));
	counts[METRIC_MAJOR_FAULTS] = larger(counts[METRIC_MAJOR_FAULTS],
					     minus(major, base[METRIC_MAJOR_FAULTS]));
}

static bool apply_ended(struct session *session, const struct ended *ended)
{
	struct process *process = processes_of_pid(session->processes, (int)ended->tgid);

	if (!process)
		return false;
	process->copied_ended += ended->copies;
	process->delay_ended += ended->copy_ns;
	process->minor_ended += ended->minor_faults;
	process->major_ended += ended->major_faults;
	set_counts(session->taskstats, process, process->copied_ended, process->delay_ended);
	set_faults(session->taskstats, process, process->minor_ended, process->major_ended);
	return true;
}

static void apply_waiting(struct session *session)
{
	struct taskstats_source *source = session->taskstats;
	size_t kept = 0, i;

	for (i = 0; i < source->ended_count; i++) {
		if (apply_ended(session, &source->ended[i]) || ++source->ended[i].looks > LOOKS)
			continue;
		source->ended[kept++] = source->ended[i];
	}
	source->ended_count = kept;
}

static void take_exit(const struct proc_taskstats *record, void *context)
{
	struct taskstats_source *source = context;

	/* A process's sum comes after its threads' records: they are enough. */
	if (record->process)
		return;
	source->lacks_copies |= !record->has_copies;
	if (source->ended_count == source->ended_room) {
		source->ended_room = 2 * source->ended_room + 64;
		source->ended = output_realloc(source->ended,
					       source->ended_room * sizeof(struct ended));
	}
	source->ended[source->ended_count++] = (struct ended){
		.tgid = record->tgid,
		.copies = record->copies,
		.copy_ns = record->copy_ns,
		.minor_faults = record->minor_faults,
		.major_faults = record->major_faults,
	};
}

void taskstats_source_drain(struct session *session)
{
	struct taskstats_source *source = session->taskstats;
	unsigned char buffer[DATAGRAM_BYTES];
	size_t length = 0;
	int error;

	for (;;) {
		error = receive(source->exits, MSG_DONTWAIT, buffer, &length);
		if (error == -EAGAIN)
			break;
		if (!error)
			error = taskstats_parse(buffer, length, source->family, take_exit, source);
		/* ENOBUFS: the kernel had no room for one or more records. */
		if (error)
			session->lost++;
		if (error && error != -ENOBUFS && error != -EPROTO)
			break;
	}
	apply_waiting(session);
}

/* Those alive: what the kernel says now. */
static void ask_all(struct session *session)
{
	struct proc_taskstats record;
	uint64_t minor, major;
	struct process *process;
	size_t i;

	for (i = 0; i < processes_count(session->processes); i++) {
		process = processes_at(session->processes, i);
		if (!process->ended && live_faults(process->pid, &minor, &major) == 0)
			set_faults(session->taskstats, process, minor, major);
		if (process->ended || ask(session->taskstats, process->pid, &record) != 0)
			continue;
		/* While threads end their counts may be on the way from one sum to the other. */
		if (record.copies >= process->copied_ended)
			set_counts(session->taskstats, process, record.copies, record.copy_ns);
	}
}

void taskstats_source_read(struct session *session)
{
	taskstats_source_drain(session);
	ask_all(session);
}

/* What targets have counted before the session. */
static int set_bases(struct session *session)
{
	struct proc_taskstats record;
	uint64_t minor, major;
	struct process *process;
	size_t i;
	int error;

	for (i = 0; i < processes_count(session->processes); i++) {
		process = processes_at(session->processes, i);
		error = ask(session->taskstats, process->pid, &record);
		if (error)
			return error;
		process->base.value[METRIC_COPIED] = record.copies;
		process->base.value[METRIC_DELAY_NS] = record.copy_ns;
		if (live_faults(process->pid, &minor, &major) != 0)
			continue;
		process->base.value[METRIC_MINOR_FAULTS] = minor;
		process->base.value[METRIC_MAJOR_FAULTS] = major;
	}
	/* Of the system's processes none is known yet; this one shows whether the kernel counts. */
	return ask(session->taskstats, getpid(), &record);
}

static int start(struct session *session)
{
	struct taskstats_source *source = session->taskstats;
	int error;

	if (!tuning_delays_are_counted())
		return -ENODATA;
	source->questions = open_socket(1 << 20);
	if (source->questions < 0)
		return source->questions;
	source->exits = open_socket(RECEIVE_BYTES);
	if (source->exits < 0)
		return source->exits;
	error = find_family(source->questions, &source->family);
	if (!error)
		error = register_exits(source);
	if (!error)
		error = set_bases(session);
	return error;
}

int taskstats_source_start(struct session *session)
{
	int error;

	session->taskstats = output_realloc(NULL, sizeof(*session->taskstats));
	*session->taskstats = (struct taskstats_source){
		.exits = -1,
		.questions = -1,
		.counts_copies = !is_counted(session->counted, METRIC_COPIED),
		.counts_faults = !is_counted(session->counted, METRIC_MINOR_FAULTS),
	};
	error = start(session);
	if (error) {
		taskstats_source_free(session->taskstats);
		session->taskstats = NULL;
		return error;
	}
	session->counted |= METRIC_BIT(METRIC_DELAY_NS) | METRIC_BIT(METRIC_COPIED);
	session->counted_by_process |= METRIC_BIT(METRIC_DELAY_NS) | METRIC_BIT(METRIC_COPIED);
	if (session->taskstats->counts_faults) {
		session->counted |= FAULTS;
		session->counted_by_process |= FAULTS;
	}
	return 0;
}

void taskstats_source_free(struct taskstats_source *source)
{
	if (!source)
		return;
	/* Closing the socket ends the registration. */
	if (source->exits >= 0)
		close(source->exits);
	if (source->questions >= 0)
		close(source->questions);
	free(source->ended);
	free(source);
}
