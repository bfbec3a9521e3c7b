/* SPDX-License-Identifier: MIT */
/*
 * Texts of lines that are a name and a number: "Pss:  352 kB", "pgreuse 1234". /proc/PID/status,
 * smaps, smaps_rollup, ksm_stat, meminfo, vmstat and a cgroup's memory.stat are such.
 *
 * A caller lists the names it wants and where their values go. Kernels differ in what they
 * report, so a name that is not there is no error: its value stays what it was (KEYED_ABSENT, if
 * the caller set it so). Values with the unit kB become bytes. A name that comes again is added
 * up where KEYED_SUM says so (smaps: once for each area), else the first one counts.
 */
#ifndef PROC_KEYED_H
#define PROC_KEYED_H

#include "proc/text.h"

#define KEYED_ABSENT UINT64_MAX

struct keyed_field {
	const char *name;
	size_t offset; /* of a uint64_t in the result */
};

enum keyed_repeat { KEYED_FIRST, KEYED_SUM };

/*
 * Returns how many lines were used, or -EINVAL / -ERANGE where a wanted name has no number that
 * fits; the result is then partly filled. Lines that are not of this form are passed over.
 */
int keyed_parse(struct text text, const struct keyed_field *fields, size_t count,
		enum keyed_repeat repeat, void *result);

/* Sets the fields to KEYED_ABSENT. */
void keyed_clear(const struct keyed_field *fields, size_t count, void *result);

#endif
