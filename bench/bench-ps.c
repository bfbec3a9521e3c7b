/* SPDX-License-Identifier: MIT */
/*
 * cow ps beside the tools that people use for the same question, smem and smemstat, over the same
 * processes: the forks of one large process, each of which has written a part of what it inherited.
 *
 * Half of them have written pages here and there, half one stretch. All programs are started
 * anew each time and print everything that they found to a file; smem and smemstat are limited to
 * the population, so that they do not pay for the rest of the machine.
 *
 * The truth for what a sample estimates is the sum of the kernel's PSS (smaps_rollup) where nothing
 * is shared outside, since that is what the distinct pages then add up to.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/harness.h"

#define WRITTEN       25 /* each child writes one page in so many */
#define TRIALS        20 /* of the interval */
#define LEADER        "cow-bench-leader"
#define CHILD         "cow-bench-child"
#define CHILD_PATTERN "^cow-bench-child"
#define STRANGER      "cow-bench-other" /* a child that is not in the selection; as long as CHILD */

static struct bench_options options;
static char cow[PATH_MAX];
static char output[] = "/tmp/cow-bench-ps.XXXXXX";

/* --- the population --- */

struct population {
	pid_t leader;
	unsigned children;
	size_t bytes; /* of the leader */
	pid_t *pids;
};

/* The names that ps shows and that smem selects by stand in the arguments of the program. */
static void rename_self(char *argument, const char *name)
{
	check(strlen(argument) >= strlen(name), "start this by its path");
	memset(argument + strlen(name), 0, strlen(argument) - strlen(name));
	memcpy(argument, name, strlen(name)); /* NOLINT: a zero follows */
	prctl(PR_SET_NAME, name);
}

static void write_page(char *memory, size_t page)
{
	memory[page * 4096] = (char)(memory[page * 4096] + 1);
}

/* Random pages, or a stretch of the same size. */
static void write_part(char *memory, size_t pages, unsigned number, uint64_t seed)
{
	uint64_t state = seed + 7919 * (number + 1);
	size_t written = pages / WRITTEN, begin, i;

	/* The first numbers of neighbouring seeds are neighbours. */
	for (i = 0; i < 16; i++)
		random_next(&state);
	begin = random_next(&state) % (pages - written);
	for (i = 0; i < written; i++)
		write_page(memory, number % 4 < 2 ? random_next(&state) % pages : begin + i);
}

static void tell(int fd, pid_t pid)
{
	check(write(fd, &pid, sizeof(pid)) == sizeof(pid), "cannot write to a pipe");
}

/* Where memory runs out, a benchmark is what can be spared. */
static void offer_to_oom_killer(void)
{
	FILE *file = fopen("/proc/self/oom_score_adj", "we");

	if (file) {
		fputs("1000", file);
		fclose(file);
	}
}

static void lead(char *argument, const struct population *population, int ready)
{
	char *memory = plain_memory(population->bytes);
	unsigned i;
	pid_t pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	offer_to_oom_killer();
	rename_self(argument, LEADER);
	memset(memory, 1, population->bytes);
	for (i = 0; i < population->children; i++) {
		pid = fork();
		check(pid >= 0, "cannot fork");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			rename_self(argument, i % 2 ? STRANGER : CHILD);
			write_part(memory, population->bytes / 4096, i, options.seed);
			tell(ready, getpid());
			for (;;)
				pause();
		}
	}
	for (;;)
		pause();
}

static void start(char *argument, struct population *population)
{
	int ready[2];
	unsigned i;

	check(pipe2(ready, O_CLOEXEC) == 0, "cannot make a pipe");
	population->leader = fork();
	check(population->leader >= 0, "cannot fork");
	if (population->leader == 0)
		lead(argument, population, ready[1]);
	close(ready[1]);
	population->pids = calloc(population->children, sizeof(pid_t));
	check(population->pids, "out of memory");
	for (i = 0; i < population->children; i++)
		check(read(ready[0], &population->pids[i], sizeof(pid_t)) == sizeof(pid_t),
		      "a child did not start; is there enough memory?");
	close(ready[0]);
}

static void stop(struct population *population)
{
	kill(population->leader, SIGKILL);
	waitpid(population->leader, NULL, 0);
	free(population->pids);
}

/* --- programs --- */

/* Runs a program with its output in a file: its time in seconds, or a negative number. */
static double run(const char *const arguments[])
{
	posix_spawn_file_actions_t actions;
	double begin = now_us();
	int status, error;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output, O_WRONLY | O_TRUNC, 0);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	error = posix_spawnp(&pid, arguments[0], &actions, NULL,
			     (char *const *)(uintptr_t)arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error || waitpid(pid, &status, 0) != pid || status != 0)
		return -1;
	return (now_us() - begin) / 1e6;
}

static double run_cow(const char *const arguments[])
{
	double seconds = run(arguments);

	check(seconds >= 0, "cow ps failed");
	return seconds;
}

static double total(const char *key)
{
	struct json_object *report = json_object_from_file(output), *totals, *value = NULL;
	double number;

	check(report && json_object_object_get_ex(report, "total", &totals) &&
		      json_object_object_get_ex(totals, key, &value),
	      "cow ps printed something else than its report");
	check(json_object_get_type(value) == json_type_int,
	      "cow ps does not know this; run as root");
	number = (double)json_object_get_int64(value);
	json_object_put(report);
	return number;
}

/* The kernel's own sums, in bytes. */
static double rollup(pid_t pid, const char *key)
{
	char path[64], line[256];
	unsigned long long sum = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	file = fopen(path, "re");
	check(file, "cannot read smaps_rollup");
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':')
			sum = strtoull(line + strlen(key) + 1, NULL, 10);
	fclose(file);
	return 1024.0 * (double)sum;
}

static double sum_of(const struct population *population, const char *key)
{
	double sum = rollup(population->leader, key);
	unsigned i;

	for (i = 0; i < population->children; i++)
		sum += rollup(population->pids[i], key);
	return sum;
}

/* --- measurements --- */

struct times {
	struct samples smem, smemstat, cow, fast;
	struct samples smem_ratio, smemstat_ratio, fast_ratio;
};

static void add_ratio(struct samples *times, struct samples *ratios, double peer, double ours)
{
	if (peer < 0)
		return;
	samples_add(times, peer);
	samples_add(ratios, peer / ours);
}

static void turn(struct times *times, bool counts, const char *const smem[],
		 const char *const smemstat[], const char *const exact[], const char *const fast[])
{
	double smem_time = run(smem), exact_time = run_cow(exact);
	double stat_time = run(smemstat), fast_time = fast ? run_cow(fast) : 0;

	if (!counts)
		return;
	samples_add(&times->cow, exact_time);
	add_ratio(&times->smem, &times->smem_ratio, smem_time, exact_time);
	add_ratio(&times->smemstat, &times->smemstat_ratio, stat_time, exact_time);
	if (!fast)
		return;
	samples_add(&times->fast, fast_time);
	if (smem_time >= 0)
		samples_add(&times->fast_ratio, smem_time / fast_time);
}

static void show_times(struct times *times, double bound)
{
	bench_result("cow ps", "s", &times->cow, BOUND_NONE, 0);
	if (times->smem.count) {
		bench_result("smem", "s", &times->smem, BOUND_NONE, 0);
		bench_result("smem / cow ps", "x", &times->smem_ratio, AT_LEAST, bound);
	} else {
		bench_note("smem is not there: apt-get install smem");
	}
	if (times->smemstat.count) {
		bench_result("smemstat", "s", &times->smemstat, BOUND_NONE, 0);
		bench_result("smemstat / cow ps", "x", &times->smemstat_ratio, BOUND_NONE, 0);
	} else {
		bench_note("smemstat is not there: apt-get install smemstat");
	}
	if (!times->fast.count)
		return;
	bench_result("cow ps --fast", "s", &times->fast, BOUND_NONE, 0);
	if (times->fast_ratio.count)
		bench_result("smem / cow ps --fast", "x", &times->fast_ratio, AT_LEAST, 20);
}

static void free_times(struct times *times)
{
	samples_free(&times->smem);
	samples_free(&times->smemstat);
	samples_free(&times->cow);
	samples_free(&times->fast);
	samples_free(&times->smem_ratio);
	samples_free(&times->smemstat_ratio);
	samples_free(&times->fast_ratio);
}

/* The intervals of samples with other seeds, against what the kernel says. */
static void judge_fast(const char *tree, double truth)
{
	struct samples off = { 0 }, width = { 0 };
	double unique, error;
	uint64_t first_seed = options.seed * 1000;
	unsigned right = 0, i;
	char seed[24];

	for (i = 0; i < TRIALS; i++) {
		snprintf(seed, sizeof(seed), "%llu", (unsigned long long)first_seed + i);
		run_cow((const char *[]){ cow, "ps", "--tree", tree, "--json", "--fast", "--seed",
					  seed, NULL });
		unique = total("unique_bytes");
		error = total("unique_error_bytes");
		right += fabs(unique - truth) <= error;
		samples_add(&off, 100 * fabs(unique - truth) / truth);
		samples_add(&width, 100 * error / truth);
	}
	bench_value("99 % intervals that hold the truth, of 20", "", right, AT_LEAST, 19);
	bench_result("half the width of the interval", "%", &width, BOUND_NONE, 0);
	bench_value("largest error of 20 samples", "%", samples_quantile(&off, 1), AT_MOST, 2);
	samples_free(&off);
	samples_free(&width);
}

/* The leader and all that came of it: nothing but libraries is shared outside. */
static void measure_tree(const struct population *population)
{
	char tree[16], list[65536];
	struct times times = { 0 };
	double truth, unique;
	size_t used = 0;
	unsigned i;

	snprintf(tree, sizeof(tree), "%d", (int)population->leader);
	used = (size_t)snprintf(list, sizeof(list), "%s", tree);
	for (i = 0; i < population->children && used < sizeof(list) - 16; i++)
		used += (size_t)sprintf(list + used, ",%d", (int)population->pids[i]);
	bench_section("a process and its forks, nothing shared outside: %u processes, %.1f GB RSS, "
		      "%.1f GB unique",
		      population->children + 1, sum_of(population, "Rss") / 1e9,
		      sum_of(population, "Pss") / 1e9);
	for (i = 0; i < BENCH_WARM_UP + options.runs; i++)
		turn(&times, i >= BENCH_WARM_UP,
		     (const char *[]){ "smem", "-P", "^cow-bench-[lco]", "-c", "pid uss pss rss",
				       NULL },
		     (const char *[]){ "smemstat", "-p", list, NULL },
		     (const char *[]){ cow, "ps", "--tree", tree, "--json", NULL },
		     (const char *[]){ cow, "ps", "--tree", tree, "--json", "--fast", NULL });
	show_times(&times, 3);
	free_times(&times);
	run_cow((const char *[]){ cow, "ps", "--tree", tree, "--json", NULL });
	unique = total("unique_bytes");
	truth = sum_of(population, "Pss");
	bench_value("unique beside the kernel's summed PSS", "%",
		    100 * fabs(unique - truth) / truth, AT_MOST, 0.1);
	judge_fast(tree, truth);
}

/* The children report in any order: those of one half are told by their names. */
static bool is_selected(pid_t pid)
{
	char path[64], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	file = fopen(path, "re");
	check(file && fgets(name, sizeof(name), file), "a child has gone");
	fclose(file);
	return strncmp(name, CHILD, strlen(CHILD)) == 0;
}

/* Every second child: most of what they have is shared with those left out. */
static void measure_half(const struct population *population)
{
	size_t count = (population->children + 1) / 2, i, used = 0;
	const char **arguments = calloc(count + 4, sizeof(char *));
	char(*pids)[16] = calloc(count + 1, sizeof(*pids)), list[65536];
	struct times times = { 0 };

	if (!arguments || !pids)
		exit(1);
	arguments[0] = cow;
	arguments[1] = "ps";
	arguments[2] = "--json";
	bench_section("half of the forks, the rest is outside: %zu processes", count);
	for (i = 0, count = 0; i < population->children; i++) {
		if (!is_selected(population->pids[i]))
			continue;
		snprintf(pids[count], sizeof(pids[count]), "%d", (int)population->pids[i]);
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? "," : "",
					 pids[count]);
		arguments[3 + count] = pids[count];
		count++;
	}
	for (i = 0; i < BENCH_WARM_UP + options.runs; i++)
		turn(&times, i >= BENCH_WARM_UP,
		     (const char *[]){ "smem", "-P", CHILD_PATTERN, "-c", "pid uss pss rss", NULL },
		     (const char *[]){ "smemstat", "-p", list, NULL }, arguments, NULL);
	show_times(&times, 1.5);
	run_cow(arguments);
	bench_value("unique", "MB", total("unique_bytes") / 1e6, BOUND_NONE, 0);
	bench_value("of it shared outside", "MB", total("shared_outside_bytes") / 1e6, BOUND_NONE,
		    0);
	free_times(&times);
	free((void *)arguments);
	free(pids);
}

/* The command of the same build. */
static void find_cow(void)
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	check(length > 0, "cannot read /proc/self/exe");
	self[length] = '\0';
	check((size_t)snprintf(cow, sizeof(cow), "%s/../cli/cow", dirname(self)) < sizeof(cow),
	      "the path of this program is too long");
	check(access(cow, X_OK) == 0, "the command is not there; build it first");
}

int main(int argc, char **argv)
{
	struct population population;
	int fd;

	bench_begin("bench-ps", "cow ps beside smem and smemstat, over 200 forks of one process",
		    argc, argv, &options);
	find_cow();
	fd = mkstemp(output);
	check(fd >= 0, "cannot make a file in /tmp");
	close(fd);
	population = (struct population){
		.children = options.quick ? 20 : 200,
		.bytes = (size_t)(options.quick ? 16 : 290) << 20,
	};
	start(argv[0], &population);
	if (bench_wants("tree"))
		measure_tree(&population);
	if (bench_wants("half"))
		measure_half(&population);
	stop(&population);
	unlink(output);
	return bench_end();
}
