/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `cow probe` hand to each other.
 *
 *	facts.c   the library's own probe, and what /proc and /sys say beside it
 *	reason.c  from both: why something is refused, and what to do about it
 *	print.c   text and JSON
 *
 * Whether something is to be had is the library's answer alone; files of /proc only explain it.
 */
#ifndef CLI_PROBE_PROBE_H
#define CLI_PROBE_PROBE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/utsname.h>

#include <cow.h>

#include "cli/doctor/doctor.h"

#define PROBE_UNKNOWN DOCTOR_UNKNOWN
#define PROBE_WORD    32

enum filter { FILTER_NONE, FILTER_STRICT, FILTER_PROGRAM, FILTER_UNKNOWN }; /* as in /proc */

struct probe_device {
	bool exists;
	mode_t mode;
	uid_t owner;
	gid_t group;
};

/* Numbers are PROBE_UNKNOWN, and words empty, where nothing says. */
struct probe_facts {
	struct cow_system system;
	struct utsname kernel;
	uid_t user;
	uint64_t capabilities; /* effective */
	enum filter filter;
	bool no_new_privileges, container;
	uint64_t unprivileged; /* vm.unprivileged_userfaultfd */
	struct probe_device device;
	uint64_t huge_page_bytes;
	char huge_pages[PROBE_WORD], shared_huge_pages[PROBE_WORD];
	uint64_t map_count, overcommit, descriptors;
	uint64_t memory_bytes, available_bytes;
	struct cgroup_limit cgroup; /* version 0: none */
};

/* 0, or a negative errno of the library's probe. */
int probe_look(struct probe_facts *ret_facts);

#define PROBE_CAP_PTRACE 19
bool probe_has(const struct probe_facts *facts, int capability);

/* A feature, what the library does without it, and since when it exists. */
struct probe_feature {
	uint32_t bit;
	const char *name, *since, *without;
};
extern const struct probe_feature probe_features[]; /* ends with bit 0 */

/* "thread" and so on; NULL for AUTO. */
extern const char *const probe_trap_names[];
#define PROBE_TRAPS 5

/* Why a trap, or a way to userfaultfd, is refused, or what to know about it; "" where there is
 * nothing to say. */
void probe_why_trap(const struct probe_facts *facts, enum cow_trap trap, char *text, size_t room);
const char *probe_why_call(const struct probe_facts *facts);
const char *probe_why_user_call(const struct probe_facts *facts);
const char *probe_why_device(const struct probe_facts *facts);
const char *probe_why_pagemap(const struct probe_facts *facts);

/* One thing to do, in order of preference. */
struct probe_advice {
	const char *what;    /* "in a container" */
	const char *command; /* to be typed, or a line of a configuration file */
	const char *note;    /* or NULL */
};
#define PROBE_ADVICE_MAX 8
/* Returns how many; 0: there is no better trap. */
unsigned probe_advise(const struct probe_facts *facts,
		      struct probe_advice advice[PROBE_ADVICE_MAX]);

void probe_print_text(const struct probe_facts *facts);
bool probe_print_json(const struct probe_facts *facts);

#endif
