/* SPDX-License-Identifier: MIT */
/* What `cow stat` keeps in memory: the table of processes, and the marks of sudden rises. */
#include "cli/stat/live.h"
#include "cli/stat/processes.h"
#include "cli/stat/rise.h"
#include "proc/keyed.h"
#include "tests/tap.h"

static struct process *add(struct processes *processes, uint64_t key, int pid, uint64_t copied)
{
	struct process *process = processes_add(processes, key);

	processes_set_pid(processes, process, pid);
	process->counts.value[METRIC_COPIED] = copied;
	return process;
}

static uint64_t sum_of_copies(const struct processes *processes)
{
	struct counts sum;

	processes_sum(processes, &sum);
	return sum.value[METRIC_COPIED];
}

TEST(alive_and_ended)
{
	struct processes *processes = processes_new();
	struct process *one = add(processes, 1, 100, 5), *two = add(processes, 2, 101, 7);

	ok(processes_find(processes, 1) == one, "found by key");
	ok(processes_of_pid(processes, 101) == two, "found by process ID");
	processes_end(processes, one);
	ok(!processes_find(processes, 1), "no longer found by key");
	ok(processes_of_pid(processes, 100) == one, "but by process ID");
	is_u64(processes_count(processes), 2, "listed");
	is_u64(sum_of_copies(processes), 12, "sum");
	processes_rest(processes)->value[METRIC_COPIED] = 3;
	is_u64(sum_of_copies(processes), 15, "with what is nobody's");
	processes_free(processes);
	processes_free(NULL);
}

TEST(reused_process_ids)
{
	struct processes *processes = processes_new();
	struct process *old = add(processes, 100, 100, 5), *new;

	/* The end of the old one was not seen: its ID says that it must have ended. */
	new = add(processes, 100, 100, 1);
	ok(old->ended && !new->ended, "the old one has ended");
	ok(processes_find(processes, 100) == new, "the new one is found by key");
	ok(processes_of_pid(processes, 100) == new, "and by process ID");
	is_u64(sum_of_copies(processes), 6, "both count");
	processes_free(processes);
}

TEST(bounded)
{
	struct processes *processes = processes_new();
	struct process *alive = add(processes, 1, 1, 0), *heavy = NULL, *process;
	const uint64_t count = 100000;
	uint64_t key;

	for (key = 2; key < count; key++) {
		process = add(processes, key, (int)key, key == 500 ? 1000000 : 1);
		if (key == 500)
			heavy = process;
		processes_end(processes, process);
	}
	ok(processes_count(processes) < 33000, "%zu are listed", processes_count(processes));
	is_u64(processes_count(processes) + processes_omitted(processes), count - 1, "all of them");
	is_u64(sum_of_copies(processes), 1000000 + count - 3, "sum");
	ok(processes_find(processes, 1) == alive, "the one alive is kept");
	ok(processes_of_pid(processes, 500) == heavy, "so is the one that copied most");
	processes_free(processes);
}

/* A kernel without a counter, and one that counts backwards (a container's own /proc/vmstat). */
TEST(counters_that_lack)
{
	struct vmstat before = { .value = {
					 [VMSTAT_FAULTS] = 10, [VMSTAT_REUSED] = KEYED_ABSENT } };
	struct vmstat after = before;
	uint64_t delta = 77;

	after.value[VMSTAT_FAULTS] = 15;
	ok(vmstat_delta(&before, &after, VMSTAT_FAULTS, &delta), "counted");
	is_u64(delta, 5, "grown by");
	ok(!vmstat_delta(&before, &after, VMSTAT_REUSED, &delta), "absent");
	ok(!vmstat_delta(&after, &before, VMSTAT_FAULTS, &delta), "backwards");
	is_u64(delta, 5, "untouched");
}

static const uint32_t counted = METRIC_BIT(METRIC_COPIED) | METRIC_BIT(METRIC_FORKS);

static unsigned int look(struct rise *rise, uint64_t copied, char text[256])
{
	const struct counts delta = { .value = { [METRIC_COPIED] = copied } };

	return rise_look(rise, counted, &delta, text, 256);
}

TEST(rises)
{
	struct rise rise = { .seen = 0 };
	char text[256];
	int i;

	for (i = 0; i < 20; i++)
		is_u64(look(&rise, 1000 + (uint64_t)(i % 3) * 50, text), 0, "noise %d", i);
	is_u64(look(&rise, 12000, text), 1, "a burst");
	is_str(text, "copied x12", "and how large it is");
	is_u64(look(&rise, 1000, text), 0, "back to normal");
	is_str(text, "", "nothing is said");
	is_u64(look(&rise, 12000, text), 1, "a second burst is marked, too");
}

TEST(no_rises)
{
	struct rise fresh = { .seen = 0 }, quiet = { .seen = 0 }, wild = { .seen = 0 };
	char text[256];
	int i;

	is_u64(look(&fresh, 1000000, text), 0, "the first interval teaches");
	for (i = 0; i < 20; i++)
		is_u64(look(&quiet, i % 2 ? 40 : 0, text), 0, "a handful is none");
	for (i = 0; i < 30; i++)
		look(&wild, i % 2 ? 10000 : 0, text);
	is_u64(look(&wild, 12000, text), 0, "what goes up and down all the time does not rise");
}

TAP_MAIN(CASE(alive_and_ended), CASE(counters_that_lack), CASE(reused_process_ids), CASE(bounded),
	 CASE(rises), CASE(no_rises))
