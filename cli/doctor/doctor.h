/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `cow doctor` hand to each other.
 *
 *	machine.c  settings of the machine and its file systems -> findings
 *	limits.c   memory, cgroups, PostgreSQL -> findings
 *	fork.c     what a fork of one process would cost        caps.c   privileges
 *	print.c    text and JSON
 *
 * A finding says what was found, what that means here, what to do, and how we know: measured (by
 * us, with the kernel it was measured on), a rule of the kernel, or a rule of thumb that nobody
 * here has measured. The last kind never is more than a note.
 */
#ifndef CLI_DOCTOR_DOCTOR_H
#define CLI_DOCTOR_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proc/process.h"
#include "proc/root.h"
#include "proc/system.h"

#define DOCTOR_UNKNOWN UINT64_MAX

enum level { LEVEL_OK, LEVEL_NOTE, LEVEL_WARNING, LEVEL_CRITICAL };
enum evidence { EVIDENCE_MEASURED, EVIDENCE_RULE, EVIDENCE_NONE };

struct finding {
	const char *id; /* a word for scripts; constant */
	enum level level;
	enum evidence evidence;
	char value[160];
	char meaning[320];
	char advice[320]; /* empty: nothing to do */
	char reason[320];
};

struct doctor {
	struct proc_root root;
	struct proc_buffer buffer; /* of the file read last */
	bool container;
	struct proc_meminfo memory;
	struct finding *findings;
	size_t count, room;
	size_t looked, unreadable; /* files that were there, and those of them that made no sense */
};

/* Adds a finding and returns it, to be filled. It moves when the next one is added. */
struct finding *doctor_add(struct doctor *doctor, const char *id, enum level level,
			   enum evidence evidence);
__attribute__((format(printf, 2, 3))) void finding_value(struct finding *finding,
							 const char *format, ...);
__attribute__((format(printf, 2, 3))) void finding_meaning(struct finding *finding,
							   const char *format, ...);
__attribute__((format(printf, 2, 3))) void finding_advice(struct finding *finding,
							  const char *format, ...);
__attribute__((format(printf, 2, 3))) void finding_reason(struct finding *finding,
							  const char *format, ...);

/* Reads a file of the tree: false where it is missing, cannot be read or makes no sense. */
bool doctor_read(struct doctor *doctor, const char *path, struct text *ret_text);
bool doctor_read_u64(struct doctor *doctor, const char *path, uint64_t *ret_value);
/* The word in brackets, or the whole line. */
bool doctor_read_word(struct doctor *doctor, const char *path, char *word, size_t room);

/* Whether a container engine left its mark. */
bool doctor_is_container(struct doctor *doctor);

void doctor_look_at_machine(struct doctor *doctor);
void doctor_look_at_memory(struct doctor *doctor);
void doctor_look_at_cgroups(struct doctor *doctor, pid_t pid); /* 0: of this process */
void doctor_look_at_file_systems(struct doctor *doctor);
void doctor_look_at_postgresql(struct doctor *doctor);

/* The tightest limit of a process: bytes that are left, or DOCTOR_UNKNOWN. */
struct cgroup_limit {
	uint64_t limit, usage;
	int version;
	char path[256]; /* where it is set */
};
bool doctor_find_cgroup(struct doctor *doctor, pid_t pid, struct cgroup_limit *ret_limit);

struct fork_cost {
	pid_t pid;
	char command[PROC_COMMAND_LENGTH];
	uint64_t rss_bytes, page_table_bytes;
	uint64_t worst_bytes;    /* all that parent and child may come to have twice */
	uint64_t writable_bytes; /* what overcommit accounting charges for */
	uint64_t huge_bytes;     /* of worst_bytes, in huge pages */
	uint64_t latency_ns,
		latency_max_ns; /* DOCTOR_UNKNOWN: not calibrated, in a captured tree */
	uint64_t per_page_ps;   /* as calibrated: picoseconds for a page of 4 KiB */
	uint64_t areas;
	uint64_t earlier_bytes; /* what an earlier fork copied; DOCTOR_UNKNOWN: none was seen */
	const char *earlier_source;
	uint64_t room_bytes; /* the least of RAM and cgroup */
};

/* earlier: a report of cow stat --json, or NULL. 0, or a negative errno after a message. */
int doctor_look_at_fork(struct doctor *doctor, pid_t pid, const char *earlier,
			struct fork_cost *ret_cost);

struct privilege {
	const char *name, *brings;
	bool present;
};
/* Ends with a NULL name. */
const struct privilege *doctor_privileges(struct doctor *doctor);

enum level doctor_worst(const struct doctor *doctor);
void doctor_print_text(const struct doctor *doctor, const struct fork_cost *cost,
		       const struct privilege *privileges);
bool doctor_print_json(const struct doctor *doctor, const struct fork_cost *cost,
		       const struct privilege *privileges);

#endif
