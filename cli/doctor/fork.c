/* SPDX-License-Identifier: MIT */
/*
 * What a fork of a process would cost.
 *
 * Model. fork() copies the page-table entries of private areas that have pages of their own; those
 * of shared memory and plain files are left to be filled on demand. Its time grows with these
 * entries, so it is calibrated: this process forks itself with and without a known amount of
 * memory, and the difference gives the price of a page here and now.
 *
 * At worst every page that parent and child can write separately comes to exist twice. Those are
 * the resident and swapped pages of private writable areas, but for areas that a child does not
 * get (MADV_DONTFORK). Later growth of either is no copy and is not in it.
 *
 * What an earlier fork copied is the best estimate of what the next one will; it comes from a
 * report of cow stat, or from a child that lives and still shares.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/doctor/doctor.h"
#include "cli/output.h"
#include "cli/ps/ps.h"
#include "cli/report.h"
#include "proc/areas.h"

#define CALIBRATION_BYTES ((size_t)64 << 20)
#define CALIBRATION_RUNS  7
#define PAGE_BYTES        4096

/* --- what it maps --- */

struct area_sums {
	uint64_t rss, anonymous, huge, swap;
};

static const struct keyed_field area_fields[] = {
	{ "Rss", offsetof(struct area_sums, rss) },
	{ "Anonymous", offsetof(struct area_sums, anonymous) },
	{ "AnonHugePages", offsetof(struct area_sums, huge) },
	{ "Swap", offsetof(struct area_sums, swap) },
};

#define AREA_FIELDS (sizeof(area_fields) / sizeof(area_fields[0]))

/* "VmFlags: rd wr mr mw me dc": dc stands for MADV_DONTFORK. */
static bool is_left_out(struct text details)
{
	struct text line, word;

	while (text_line(&details, &line)) {
		if (!text_word(&line, &word) || !text_is(word, "VmFlags:"))
			continue;
		while (text_word(&line, &word))
			if (text_is(word, "dc"))
				return true;
	}
	return false;
}

static uint64_t or_zero(uint64_t value)
{
	return value == KEYED_ABSENT ? 0 : value;
}

static int add_area(const struct proc_area *area, struct text details, struct fork_cost *cost,
		    uint64_t *copied_entries)
{
	struct area_sums sums;

	cost->areas++;
	if (area->shared || is_left_out(details))
		return 0;
	keyed_clear(area_fields, AREA_FIELDS, &sums);
	if (keyed_parse(details, area_fields, AREA_FIELDS, KEYED_FIRST, &sums) < 0)
		return -EINVAL;
	/* Only areas with anonymous pages have their entries copied, and then all of them. */
	if (or_zero(sums.anonymous) || or_zero(sums.swap))
		*copied_entries += (or_zero(sums.rss) - or_zero(sums.huge) + or_zero(sums.swap)) /
				   PAGE_BYTES;
	if (!area->writable)
		return 0;
	cost->worst_bytes += or_zero(sums.rss) + or_zero(sums.swap);
	cost->huge_bytes += or_zero(sums.huge);
	cost->writable_bytes += area->end - area->start;
	return 0;
}

static int read_areas(struct doctor *doctor, pid_t pid, struct fork_cost *cost, uint64_t *entries)
{
	struct proc_area area;
	struct text text, details;
	char path[40];
	int found, error;

	snprintf(path, sizeof(path), "proc/%d/smaps", (int)pid);
	error = proc_root_read(&doctor->root, path, &doctor->buffer, &text);
	while (!error) {
		found = proc_smaps_area_next(&text, &area, &details);
		if (found <= 0)
			return found;
		error = add_area(&area, details, cost, entries);
	}
	return error;
}

static int read_process(struct doctor *doctor, pid_t pid, struct fork_cost *cost)
{
	struct proc_status status;
	struct proc_stat stat;
	struct text text;
	char path[40];
	int error;

	snprintf(path, sizeof(path), "proc/%d/stat", (int)pid);
	error = proc_root_read(&doctor->root, path, &doctor->buffer, &text);
	if (!error)
		error = proc_stat_parse(text, &stat);
	if (error)
		return error;
	memcpy(cost->command, stat.command, sizeof(cost->command));
	snprintf(path, sizeof(path), "proc/%d/status", (int)pid);
	error = proc_root_read(&doctor->root, path, &doctor->buffer, &text);
	if (!error)
		error = proc_status_parse(text, &status);
	if (error)
		return error;
	cost->rss_bytes = or_zero(status.resident_bytes);
	cost->page_table_bytes = or_zero(status.page_table_bytes);
	return 0;
}

/* --- calibration --- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int compare_times(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

struct timing {
	uint64_t median, slowest; /* nanoseconds */
};

/*
 * The memory is written before each fork: entries that an earlier fork has write-protected already
 * are copied in half the time, and no process that works has only such.
 */
static bool time_forks(char *memory, size_t bytes, struct timing *ret_timing)
{
	uint64_t times[CALIBRATION_RUNS], begin;
	pid_t pid;
	int i;

	for (i = 0; i < CALIBRATION_RUNS; i++) {
		if (bytes)
			memset(memory, i + 1, bytes);
		begin = now_ns();
		pid = fork();
		if (pid == 0)
			_exit(0);
		times[i] = now_ns() - begin;
		if (pid < 0)
			return false;
		waitpid(pid, NULL, 0);
	}
	qsort(times, CALIBRATION_RUNS, sizeof(times[0]), compare_times);
	*ret_timing = (struct timing){
		.median = times[CALIBRATION_RUNS / 2],
		.slowest = times[CALIBRATION_RUNS - 1],
	};
	return true;
}

static uint64_t page_price(uint64_t loaded_ns, uint64_t base_ns)
{
	return loaded_ns > base_ns ?
		       (loaded_ns - base_ns) * 1000 / (CALIBRATION_BYTES / PAGE_BYTES) :
		       0;
}

/* Prices of a page in picoseconds, as is usual and at worst, and of a fork without any. */
static bool calibrate(struct timing *ret_base, struct timing *ret_page_ps)
{
	struct timing base, loaded;
	bool done;
	char *memory = mmap(NULL, CALIBRATION_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return false;
	madvise(memory, CALIBRATION_BYTES, MADV_NOHUGEPAGE);
	done = time_forks(NULL, 0, &base) && time_forks(memory, CALIBRATION_BYTES, &loaded);
	munmap(memory, CALIBRATION_BYTES);
	if (!done)
		return false;
	*ret_base = base;
	ret_page_ps->median = page_price(loaded.median, base.median);
	ret_page_ps->slowest = page_price(loaded.slowest, base.median);
	return true;
}

static void estimate_latency(struct doctor *doctor, uint64_t entries, struct fork_cost *cost)
{
	struct timing base, page_ps;

	cost->latency_ns = cost->latency_max_ns = DOCTOR_UNKNOWN;
	if (doctor->root.captured || !calibrate(&base, &page_ps))
		return;
	cost->per_page_ps = page_ps.median;
	cost->latency_ns = base.median + entries * page_ps.median / 1000;
	cost->latency_max_ns = base.slowest + entries * page_ps.slowest / 1000;
}

/* --- earlier forks --- */

static bool read_number(json_object *from, const char *key, uint64_t *ret_value)
{
	json_object *value;

	if (!json_object_object_get_ex(from, key, &value) ||
	    json_object_get_type(value) != json_type_int || json_object_get_int64(value) < 0)
		return false;
	*ret_value = (uint64_t)json_object_get_int64(value);
	return true;
}

static int read_report(const char *path, struct fork_cost *cost)
{
	json_object *report = report_read(path, "cow stat --json"), *copies;
	uint64_t bytes, forks;
	bool known;

	if (!report)
		return -EINVAL;
	known = json_object_object_get_ex(report, "cow", &copies) &&
		read_number(copies, "copied_bytes", &bytes) &&
		read_number(report, "forks", &forks) && forks > 0;
	if (known) {
		cost->earlier_bytes = bytes / forks;
		cost->earlier_source = "a report of cow stat";
	} else {
		complain("%s is no report of cow stat with a fork in it; make one: cow stat --json "
			 "FILE -p PID",
			 path);
	}
	json_object_put(report);
	return known ? 0 : -EINVAL;
}

/*
 * What a child that lives still shares of its parent's own memory, at least: the pages of files are
 * shared, too, and never copied. What else the parent has of worst_bytes was copied since the fork,
 * or is new; so the difference is an upper bound.
 */
static uint64_t shared_at_least(const struct ps_process *parent)
{
	return parent->inside > parent->file ? parent->inside - parent->file : 0;
}

static void look_at_children(struct doctor *doctor, pid_t pid, struct fork_cost *cost)
{
	const struct ps_options options = { .root = doctor->root, .threads = 1 };
	const struct ps_process *parent = NULL;
	struct ps_result result = { 0 };
	size_t i;

	if (doctor->root.captured || !ps_can_see_frames(&doctor->root) ||
	    ps_select_tree(&doctor->root, pid, &result) < 0)
		return;
	if (result.count > 1 && ps_measure(&options, &result) == 0)
		for (i = 0; i < result.count; i++)
			if (result.processes[i].pid == pid)
				parent = &result.processes[i];
	/* A child that ran another program shares libraries at most. */
	if (parent && parent->state == PS_MEASURED &&
	    shared_at_least(parent) > cost->worst_bytes / 10 &&
	    shared_at_least(parent) <= cost->worst_bytes) {
		cost->earlier_bytes = cost->worst_bytes - shared_at_least(parent);
		cost->earlier_source = "a child that lives, so far";
	}
	ps_result_free(&result);
}

/* --- does it fit --- */

static void judge_room(struct doctor *doctor, struct fork_cost *cost)
{
	const char *where = "RAM";
	struct cgroup_limit cgroup;
	char need[UNIT_LENGTH], room[UNIT_LENGTH], likely[UNIT_LENGTH];
	struct finding *finding;
	uint64_t worst = cost->worst_bytes + cost->page_table_bytes, left;
	bool fits, likely_fits;

	cost->room_bytes = doctor->memory.available == KEYED_ABSENT ? DOCTOR_UNKNOWN :
								      doctor->memory.available;
	if (doctor_find_cgroup(doctor, cost->pid, &cgroup)) {
		left = cgroup.limit > cgroup.usage ? cgroup.limit - cgroup.usage : 0;
		if (left < cost->room_bytes) {
			cost->room_bytes = left;
			where = "its cgroup";
		}
	}
	fits = worst <= cost->room_bytes;
	likely_fits = fits ||
		      (cost->earlier_bytes != DOCTOR_UNKNOWN &&
		       cost->earlier_bytes + cost->page_table_bytes <= cost->room_bytes / 2);
	finding = doctor_add(doctor, "fork-memory",
			     fits        ? LEVEL_OK :
			     likely_fits ? LEVEL_WARNING :
					   LEVEL_CRITICAL,
			     EVIDENCE_RULE);
	finding_value(finding, "%s at worst, %s has %s", format_bytes(need, worst), where,
		      cost->room_bytes == DOCTOR_UNKNOWN ? "an unknown rest" :
							   format_bytes(room, cost->room_bytes));
	finding_meaning(
		finding,
		fits ? "even if parent or child write every page, it fits" :
		likely_fits ?
		       "not if every page is written; as much as an earlier fork copied (%s) fits" :
		       "if enough of it is written while the child lives, the OOM killer ends "
		       "somebody",
		cost->earlier_bytes == DOCTOR_UNKNOWN ? "" :
							format_bytes(likely, cost->earlier_bytes));
	if (!fits)
		finding_advice(
			finding,
			"fork when little is written, leave more room, or keep the state in a "
			"region of libcow with a limit");
	finding_reason(finding,
		       "all resident private writable pages, and the page tables of the child");
}

static void judge_commitment(struct doctor *doctor, const struct fork_cost *cost)
{
	const struct proc_meminfo *memory = &doctor->memory;
	char need[UNIT_LENGTH];
	struct finding *finding;
	uint64_t mode, left;

	if (!doctor_read_u64(doctor, "proc/sys/vm/overcommit_memory", &mode) || mode != 2 ||
	    memory->commit_limit == KEYED_ABSENT || memory->committed == KEYED_ABSENT)
		return;
	left = memory->commit_limit > memory->committed ? memory->commit_limit - memory->committed :
							  0;
	if (cost->writable_bytes <= left)
		return;
	finding = doctor_add(doctor, "fork-commitment", LEVEL_CRITICAL, EVIDENCE_RULE);
	finding_value(finding, "%s to be charged", format_bytes(need, cost->writable_bytes));
	finding_meaning(finding, "fork() will fail with ENOMEM: strict overcommit has %s left",
			format_bytes(need, left));
	finding_advice(finding, "raise vm.overcommit_ratio, or vm.overcommit_memory=0");
	finding_reason(finding, "rule of the kernel");
}

static void judge_latency(struct doctor *doctor, const struct fork_cost *cost)
{
	char time[UNIT_LENGTH], slowest[UNIT_LENGTH], tables[UNIT_LENGTH];
	struct finding *finding;
	bool long_stop;

	if (cost->latency_ns == DOCTOR_UNKNOWN)
		return;
	long_stop = cost->latency_ns > 100000000;
	finding = doctor_add(doctor, "fork-latency", long_stop ? LEVEL_WARNING : LEVEL_OK,
			     EVIDENCE_MEASURED);
	finding_value(finding, "about %s, up to %s", format_ns(time, cost->latency_ns),
		      format_ns(slowest, cost->latency_max_ns));
	finding_meaning(finding, "the thread that forks stops for so long; page tables: %s",
			format_bytes(tables, cost->page_table_bytes));
	if (long_stop)
		finding_advice(
			finding,
			"huge pages shorten it (see huge-pages); vfork or posix_spawn avoid it, if "
			"a program is run");
	finding_reason(
		finding,
		"median and slowest of %d forks now and here: %llu.%03llu ns for each page of 4 "
		"KiB; a process whose page tables are not in the cache is nearer to the slowest",
		CALIBRATION_RUNS, (unsigned long long)cost->per_page_ps / 1000,
		(unsigned long long)cost->per_page_ps % 1000);
}

static int complain_process(int error, pid_t pid)
{
	if (error == -ENOENT || error == -ESRCH)
		complain("there is no process %d; cow ps --all lists those there are", (int)pid);
	else if (error == -EACCES || error == -EPERM)
		complain(
			"process %d may not be looked at; that takes CAP_SYS_PTRACE over it, which "
			"root of a container may lack",
			(int)pid);
	else if (error == -EINVAL || error == -ERANGE)
		complain("the files in proc/%d are not what a kernel writes; is this a /proc?",
			 (int)pid);
	else
		complain_errno(error, "cannot read proc/%d", (int)pid);
	return error;
}

int doctor_look_at_fork(struct doctor *doctor, pid_t pid, const char *earlier,
			struct fork_cost *ret_cost)
{
	struct fork_cost cost = { .pid = pid, .earlier_bytes = DOCTOR_UNKNOWN };
	uint64_t entries = 0;
	int error;

	error = earlier ? read_report(earlier, &cost) : 0;
	if (error)
		return error;
	error = read_process(doctor, pid, &cost);
	if (!error)
		error = read_areas(doctor, pid, &cost, &entries);
	if (error)
		return complain_process(error, pid);
	if (!earlier)
		look_at_children(doctor, pid, &cost);
	estimate_latency(doctor, entries, &cost);
	judge_latency(doctor, &cost);
	judge_room(doctor, &cost);
	judge_commitment(doctor, &cost);
	*ret_cost = cost;
	return 0;
}
