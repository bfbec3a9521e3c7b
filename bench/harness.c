/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/harness.h"

static struct {
	const char *name;
	struct bench_options options;
	struct json_object *root, *results;
	char section[200], heading[100];
	unsigned missed;
	bool ran;     /* something of what --only names */
	double start; /* now_us() */
	const struct bench_column *columns;
	unsigned column_count;
} bench;

void bench_fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", bench.name, what);
	exit(1);
}

void check_errno(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s: %s\n", bench.name, what, strerror(-r));
	exit(1);
}

static void usage(const char *purpose, FILE *stream)
{
	fprintf(stream,
		"usage: %s [--quick] [--strict] [--runs N] [--only NAMES] [--seed N]\n"
		"       [--directory DIR] [--json FILE]\n"
		"%s\n"
		"  --quick      tiny sizes, to see that it runs\n"
		"  --strict     exit status 1 when a result misses its bound\n"
		"  --runs       counted turns of each measurement (default 9)\n"
		"  --only       these parts: PART or PART/PIECE, comma between them\n"
		"  --seed       of the random orders (default 1)\n"
		"  --directory  for files, on a disk (default .)\n"
		"  --json       write the results there\n",
		bench.name, purpose);
}

static void read_line(const char *path, const char *key, char *value, size_t room)
{
	char line[512];
	FILE *file = fopen(path, "re");

	snprintf(value, room, "unknown");
	while (file && fgets(line, sizeof(line), file)) {
		char *at = key ? strchr(line, ':') : line;

		if (key && (strncmp(line, key, strlen(key)) != 0 || !at))
			continue;
		at += key ? 2 : 0;
		at[strcspn(at, "\n")] = 0;
		snprintf(value, room, "%.*s", (int)room - 1, at);
		break;
	}
	if (file)
		fclose(file);
}

static void describe_machine(void)
{
	struct json_object *machine = json_object_new_object();
	char cpu[128], thp[128];
	struct utsname kernel;

	uname(&kernel);
	read_line("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
	read_line("/sys/kernel/mm/transparent_hugepage/enabled", NULL, thp, sizeof(thp));
	printf("%s: Linux %s %s, %ld x %s, pages of %ld bytes, huge pages: %s\n", bench.name,
	       kernel.release, kernel.machine, sysconf(_SC_NPROCESSORS_ONLN), cpu,
	       sysconf(_SC_PAGESIZE), thp);
	printf("%u turns after %u that do not count, seed %llu%s\n", bench.options.runs,
	       BENCH_WARM_UP, (unsigned long long)bench.options.seed,
	       bench.options.quick ? ", quick" : "");
	json_object_object_add(machine, "kernel", json_object_new_string(kernel.release));
	json_object_object_add(machine, "cpu", json_object_new_string(cpu));
	json_object_object_add(machine, "cpus",
			       json_object_new_int64(sysconf(_SC_NPROCESSORS_ONLN)));
	json_object_object_add(machine, "page_bytes", json_object_new_int64(sysconf(_SC_PAGESIZE)));
	json_object_object_add(machine, "huge_pages", json_object_new_string(thp));
	json_object_object_add(bench.root, "machine", machine);
}

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (*end || !*text) {
		fprintf(stderr, "%s: %s is not a number\n", bench.name, text);
		exit(2);
	}
	return value;
}

static void parse(int argc, char **argv, const char *purpose)
{
	static const struct option known[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "strict", no_argument, NULL, 's' },
		{ "runs", required_argument, NULL, 'r' },
		{ "only", required_argument, NULL, 'o' },
		{ "seed", required_argument, NULL, 'e' },
		{ "json", required_argument, NULL, 'j' },
		{ "directory", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'q':
			bench.options.quick = true;
			bench.options.runs = 3;
			break;
		case 's':
			bench.options.strict = true;
			break;
		case 'r':
			bench.options.runs = (unsigned)number(optarg);
			break;
		case 'o':
			bench.options.only = optarg;
			break;
		case 'e':
			bench.options.seed = number(optarg);
			break;
		case 'j':
			bench.options.json = optarg;
			break;
		case 'd':
			bench.options.directory = optarg;
			break;
		default:
			usage(purpose, option == 'h' ? stdout : stderr);
			exit(option == 'h' ? 0 : 2);
		}
	}
	if (bench.options.runs == 0)
		bench.options.runs = 1;
}

void bench_begin(const char *name, const char *purpose, int argc, char **argv,
		 struct bench_options *ret_options)
{
	bench.name = name;
	bench.options = (struct bench_options){ .seed = 1, .runs = 9, .directory = "." };
	parse(argc, argv, purpose);
	bench.start = now_us();
	setvbuf(stdout, NULL, _IOLBF, 0);
	bench.root = json_object_new_object();
	bench.results = json_object_new_array();
	json_object_object_add(bench.root, "schema", json_object_new_string("cow-bench-program/1"));
	json_object_object_add(bench.root, "name", json_object_new_string(name));
	describe_machine();
	*ret_options = bench.options;
}

void bench_section(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(bench.section, sizeof(bench.section), format, arguments);
	va_end(arguments);
	printf("\n%s\n", bench.section);
}

void bench_note(const char *format, ...)
{
	va_list arguments;

	printf("  ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
}

void samples_add(struct samples *samples, double value)
{
	if (samples->count == samples->room) {
		samples->room = samples->room ? 2 * samples->room : 64;
		samples->values = realloc(samples->values, samples->room * sizeof(double));
		check(samples->values, "out of memory");
	}
	samples->values[samples->count++] = value;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double samples_quantile(struct samples *samples, double share)
{
	size_t at;

	check(samples->count > 0, "no samples");
	qsort(samples->values, samples->count, sizeof(double), compare);
	at = (size_t)ceil(share * (double)samples->count);
	return samples->values[at == 0 ? 0 : at - 1];
}

void samples_free(struct samples *samples)
{
	free(samples->values);
	*samples = (struct samples){ 0 };
}

static const char *verdict(double value, enum bench_bound kind, double bound)
{
	bool holds = kind == AT_MOST ? value <= bound : value >= bound;

	if (kind == BOUND_NONE)
		return "";
	if (!holds)
		bench.missed++;
	return holds ? "ok" : "MISSED";
}

/* An indented name belongs to the last one that is not; by itself it would say nothing. */
static const char *full_name(const char *name, char *full, size_t room)
{
	size_t indent = strspn(name, " ");

	if (indent == 0)
		snprintf(bench.heading, sizeof(bench.heading), "%s", name);
	snprintf(full, room, "%s%s%s", indent > 0 ? bench.heading : "", indent > 0 ? ": " : "",
		 name + indent);
	return full;
}

static struct json_object *record(const char *name, const char *unit, double value, double low,
				  double high)
{
	struct json_object *result = json_object_new_object();
	char full[200];

	json_object_object_add(result, "section", json_object_new_string(bench.section));
	json_object_object_add(result, "name",
			       json_object_new_string(full_name(name, full, sizeof(full))));
	json_object_object_add(result, "unit", json_object_new_string(unit));
	json_object_object_add(result, "median", json_object_new_double(value));
	json_object_object_add(result, "p10", json_object_new_double(low));
	json_object_object_add(result, "p90", json_object_new_double(high));
	json_object_array_add(bench.results, result);
	return result;
}

static void print_result(const char *name, const char *unit, double value, double low, double high,
			 enum bench_bound kind, double bound)
{
	const char *judged = verdict(value, kind, bound);
	struct json_object *result = record(name, unit, value, low, high);
	int digits = value < 0.1 ? 5 : 3;
	char wanted[40] = "";

	if (kind != BOUND_NONE)
		snprintf(wanted, sizeof(wanted), "%s %.4g", kind == AT_MOST ? "<=" : ">=", bound);
	printf("  %-58s %10.*f %-5s [%9.*f .. %9.*f]  %-9s %s\n", name, digits, value, unit, digits,
	       low, digits, high, wanted, judged);
	if (kind != BOUND_NONE) {
		json_object_object_add(result, kind == AT_MOST ? "at_most" : "at_least",
				       json_object_new_double(bound));
		json_object_object_add(result, "holds",
				       json_object_new_boolean(strcmp(judged, "ok") == 0));
	}
}

void bench_result(const char *name, const char *unit, struct samples *samples,
		  enum bench_bound kind, double bound)
{
	print_result(name, unit, samples_quantile(samples, 0.5), samples_quantile(samples, 0.1),
		     samples_quantile(samples, 0.9), kind, bound);
}

void bench_value(const char *name, const char *unit, double value, enum bench_bound kind,
		 double bound)
{
	print_result(name, unit, value, value, value, kind, bound);
}

void bench_columns(const struct bench_column columns[], unsigned count)
{
	check(count <= BENCH_COLUMNS_MAX, "too many columns");
	bench.columns = columns;
	bench.column_count = count;
	printf("  %-26s", "");
	for (unsigned i = 0; i < count; i++) {
		char title[20];

		snprintf(title, sizeof(title), "%s, %s", columns[i].name, columns[i].unit);
		printf(" %14s", title);
	}
	printf("\n");
}

void bench_row(const char *name, struct samples cells[])
{
	char full[120];

	printf("  %-26s", name);
	for (unsigned i = 0; i < bench.column_count; i++) {
		if (cells[i].count == 0) {
			printf(" %14s", "-");
			continue;
		}
		printf(" %14.3f", samples_quantile(&cells[i], 0.5));
		snprintf(full, sizeof(full), "%s: %s", name, bench.columns[i].name);
		record(full, bench.columns[i].unit, samples_quantile(&cells[i], 0.5),
		       samples_quantile(&cells[i], 0.1), samples_quantile(&cells[i], 0.9));
	}
	printf("\n");
}

static bool names_meet(const char *named, size_t length, const char *name)
{
	size_t own = strlen(name), common = own < length ? own : length;

	return strncmp(named, name, common) == 0 &&
	       (own == length || (own < length ? named : name)[common] == '/');
}

bool bench_wants(const char *name)
{
	const char *at = bench.options.only;

	for (size_t length; at; at = at[length] ? at + length + 1 : NULL) {
		length = strcspn(at, ",");
		if (names_meet(at, length, name))
			return bench.ran = true;
	}
	return !bench.options.only;
}

static void print_missed(void)
{
	if (bench.missed > 0)
		printf("%s: %u of the bounds missed%s\n", bench.name, bench.missed,
		       bench.options.quick ? " (quick sizes mean nothing)" : "");
	for (size_t i = 0; i < json_object_array_length(bench.results); i++) {
		struct json_object *result = json_object_array_get_idx(bench.results, i), *holds;

		if (json_object_object_get_ex(result, "holds", &holds) &&
		    !json_object_get_boolean(holds))
			printf("  %s: %s\n",
			       json_object_get_string(json_object_object_get(result, "section")),
			       json_object_get_string(json_object_object_get(result, "name")));
	}
}

int bench_end(void)
{
	double seconds = (now_us() - bench.start) / 1e6;

	if (bench.options.only && !bench.ran) {
		fprintf(stderr, "%s: there is no part of the name %s\n", bench.name,
			bench.options.only);
		return 2;
	}
	json_object_object_add(bench.root, "results", bench.results);
	json_object_object_add(bench.root, "seconds", json_object_new_double(seconds));
	printf("\n%s: %.0f s\n", bench.name, seconds);
	print_missed();
	if (bench.options.json &&
	    json_object_to_file_ext(bench.options.json, bench.root, JSON_C_TO_STRING_PRETTY) < 0) {
		fprintf(stderr, "%s: cannot write %s: %s\n", bench.name, bench.options.json,
			strerror(errno));
		return 1;
	}
	json_object_put(bench.root);
	return bench.missed > 0 && bench.options.strict;
}

double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* xorshift64*: fast, and good enough for an order of pages. */
uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state ? *state : 88172645463325252ull;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 2685821657736338717ull;
}

void *plain_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check(memory != MAP_FAILED, "out of memory");
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	return memory;
}

uint64_t pss_bytes(void)
{
	char value[64];

	read_line("/proc/self/smaps_rollup", "Pss", value, sizeof(value));
	return strtoull(value, NULL, 10) * 1024;
}

double rewrite_and_fork_us(unsigned char *memory, size_t size)
{
	double start, stall;
	pid_t child;

	for (size_t at = 0; at < size; at += 4096)
		memory[at]++;
	start = now_us();
	child = fork();
	if (child == 0)
		_exit(0);
	stall = now_us() - start;
	check(child > 0, "fork");
	waitpid(child, NULL, 0);
	return stall;
}
