/* SPDX-License-Identifier: MIT */
/*
 * Work that is known in advance, for the tests and benchmarks of `cow stat`: so many pages copied,
 * reused, zero-filled, so many forks. Each is exact but for the few pages of the process itself
 * (stack, C library). An error ends it with status 99.
 *
 *	stat-work KIND [PAGES | COUNT]
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE ((size_t)4096)

static size_t number;

static void check(int holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	_exit(99);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static volatile char *map(int flags, int fd)
{
	void *memory = mmap(NULL, number * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	check(memory != MAP_FAILED, "mmap");
	madvise(memory, number * PAGE, MADV_NOHUGEPAGE);
	return memory;
}

static void write_all(volatile char *memory, char value)
{
	size_t i;

	for (i = 0; i < number; i++)
		memory[i * PAGE] = value;
}

static unsigned int read_all(const volatile char *memory)
{
	unsigned int sum = 0;
	size_t i;

	for (i = 0; i < number; i++)
		sum += (unsigned char)memory[i * PAGE];
	return sum;
}

static void wait_for(pid_t child)
{
	int status;

	check(child > 0 && waitpid(child, &status, 0) == child && status == 0, "child");
}

/* A file of so many pages, gone when it is closed. */
static int file(void)
{
	const char *directory = getenv("TMPDIR");
	char path[512];
	size_t i;
	int fd;

	snprintf(path, sizeof(path), "%s/stat-work.XXXXXX", directory ? directory : "/tmp");
	fd = mkstemp(path);
	check(fd >= 0 && unlink(path) == 0, path);
	for (i = 0; i < number; i++)
		check(pwrite(fd, "x", 1, (off_t)(i * PAGE)) == 1, "pwrite");
	return fd;
}

/* number pages zero-filled by the parent, copied by the child, reused by the parent. */
static void pages(void)
{
	volatile char *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	pid_t child;

	write_all(memory, 1);
	child = fork();
	if (child == 0) {
		write_all(memory, 2);
		_exit(0);
	}
	wait_for(child);
	write_all(memory, 3);
}

/* The same by the kernel on the process's behalf: read(2) into shared pages. */
static void kernel_pages(void)
{
	volatile char *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	pid_t child;
	size_t i;

	check(zero >= 0, "/dev/zero");
	write_all(memory, 1);
	child = fork();
	if (child)
		wait_for(child);
	for (i = 0; i < number; i++)
		check(read(zero, (void *)(memory + i * PAGE), 1) == 1, "read");
	if (child == 0)
		_exit(0);
}

/* Written through the kernel's page of zeroes: read first. */
static void zero_page(void)
{
	volatile char *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);

	check(read_all(memory) == 0, "zeroes");
	write_all(memory, 1);
}

/* Shared memory, written by parent and child before and after a fork: nothing is copied. */
static void shared(int fd, int anonymous)
{
	volatile char *memory = map(MAP_SHARED | (anonymous ? MAP_ANONYMOUS : 0), fd);
	pid_t child;

	read_all(memory);
	write_all(memory, 1);
	child = fork();
	if (child == 0) {
		write_all(memory, 2);
		_exit(0);
	}
	wait_for(child);
	write_all(memory, 3);
}

/* A private file mapping, written when its pages are present, or when they are not. */
static void private_file(int read_first)
{
	volatile char *memory = map(MAP_PRIVATE, file());

	if (read_first)
		read_all(memory);
	write_all(memory, 1);
}

/* After reuses, page-cache pages that the process allocates must not look like copies. */
static void reuse_then_write_file(void)
{
	volatile char *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int fd = file();
	pid_t child;
	size_t i;

	write_all(memory, 1);
	child = fork();
	if (child == 0)
		_exit(0);
	wait_for(child);
	for (i = 0; i < number; i++) {
		memory[i * PAGE] = 2;
		check(pwrite(fd, "x", 1, (off_t)((number + i) * PAGE)) == 1, "pwrite");
	}
}

/* Huge pages, each split by a write of the child. */
static void huge(void)
{
	size_t length = number * 512 * PAGE, i;
	char *memory = aligned_alloc(512 * PAGE, length);
	pid_t child;

	check(memory != NULL, "aligned_alloc");
	madvise(memory, length, MADV_HUGEPAGE);
	memset(memory, 1, length);
	child = fork();
	if (child == 0) {
		for (i = 0; i < number; i++)
			((volatile char *)memory)[i * 512 * PAGE] = 2;
		_exit(0);
	}
	wait_for(child);
	for (i = 0; i < number; i++)
		((volatile char *)memory)[i * 512 * PAGE] = 3;
}

static void forks(void)
{
	pid_t child;
	size_t i;

	for (i = 0; i < number; i++) {
		child = fork();
		if (child == 0)
			_exit(0);
		wait_for(child);
	}
}

/* The same with memory of 64 MiB, as something that is worth a fork has. */
static void large_forks(void)
{
	size_t count = number;
	volatile char *memory;

	number = 16384;
	memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	write_all(memory, 1);
	number = count;
	forks();
}

static pid_t spawn(void)
{
	pid_t child = vfork(); /* NOLINT(clang-analyzer-security*): it is what is counted */

	if (child == 0) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(98);
	}
	return child;
}

static void vforks(void)
{
	size_t i;

	for (i = 0; i < number; i++)
		wait_for(spawn());
}

static void *thread_copies(void *memory)
{
	write_all(memory, 4);
	return NULL;
}

/* Copies made by threads that have ended, in a process whose leader has ended first. */
static void threads(void)
{
	volatile char *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	pthread_t thread;
	pid_t child;

	write_all(memory, 1);
	child = fork();
	if (child == 0) {
		check(pthread_create(&thread, NULL, thread_copies, (void *)memory) == 0, "thread");
		pthread_exit(NULL);
	}
	wait_for(child);
}

/* An orphan's child copies: the tree is followed when its middle has ended. */
static void orphan(void)
{
	volatile char *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int ends[2];
	char byte;

	write_all(memory, 1);
	check(pipe(ends) == 0, "pipe");
	if (fork() == 0) {
		if (fork() == 0) {
			write_all(memory, 2);
			_exit(0);
		}
		_exit(0);
	}
	close(ends[1]);
	check(read(ends[0], &byte, 1) == 0, "read"); /* until the last of them has ended */
	wait(NULL);
}

/* Names that would disturb a table or a terminal. */
static void odd_name(void)
{
	prctl(PR_SET_NAME, "a) R\n\033[31m\xff\"");
	pages();
}

static void on_interrupt(int signal_number)
{
	_exit(40 + signal_number);
}

/* Says that it is ready, waits for a signal; SIGINT and SIGTERM end it with 40 + N. */
static void signals(void)
{
	signal(SIGINT, on_interrupt);
	signal(SIGTERM, on_interrupt);
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

/* Copies in bursts: little for a while, then `number` pages, twice. */
static void bursts(void)
{
	volatile char *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	size_t all = number, i;
	pid_t child;

	write_all(memory, 1);
	for (i = 0; i < 30; i++) {
		number = i == 14 || i == 24 ? all : 80;
		child = fork();
		if (child == 0) {
			write_all(memory, 2);
			_exit(0);
		}
		wait_for(child);
		usleep(50000);
	}
}

/* Waits for a line, then does `pages`: something to be attached to. */
static void on_line(void)
{
	volatile char *memory = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	pid_t child;

	write_all(memory, 1);
	puts("ready");
	fflush(stdout);
	while (getchar() == '\n') {
		child = fork();
		if (child == 0) {
			write_all(memory, 2);
			_exit(0);
		}
		wait_for(child);
		write_all(memory, 3);
		puts("done");
		fflush(stdout);
	}
}

/*
 * Runs a program that may use neither perf events nor BPF, as in many containers: a filter that
 * fails these two system calls.
 */
static void without_events(char **program)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_perf_event_open, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog all = { sizeof(filter) / sizeof(filter[0]), filter };

	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
	check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) == 0, "seccomp");
	execv(program[0], program);
	check(0, program[0]);
}

/* Prints for how long the work ran, so that the start of `cow` itself is not measured. */
static void timed(const char *kind)
{
	double began = now();

	if (strcmp(kind, "timed-pages") == 0)
		pages();
	else if (strcmp(kind, "timed-forks") == 0)
		forks();
	else
		large_forks();
	printf("%.6f\n", now() - began);
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";

	if (strcmp(kind, "without-events") == 0 && argc > 2)
		without_events(argv + 2);
	number = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
	if (strcmp(kind, "pages") == 0)
		pages();
	else if (strcmp(kind, "kernel-pages") == 0)
		kernel_pages();
	else if (strcmp(kind, "zero-page") == 0)
		zero_page();
	else if (strcmp(kind, "shared-file") == 0)
		shared(file(), 0);
	else if (strcmp(kind, "shared-anonymous") == 0)
		shared(-1, 1);
	else if (strcmp(kind, "private-file-read") == 0)
		private_file(1);
	else if (strcmp(kind, "private-file") == 0)
		private_file(0);
	else if (strcmp(kind, "reuse-then-file") == 0)
		reuse_then_write_file();
	else if (strcmp(kind, "huge") == 0)
		huge();
	else if (strcmp(kind, "forks") == 0)
		forks();
	else if (strcmp(kind, "vforks") == 0)
		vforks();
	else if (strcmp(kind, "threads") == 0)
		threads();
	else if (strcmp(kind, "orphan") == 0)
		orphan();
	else if (strcmp(kind, "odd-name") == 0)
		odd_name();
	else if (strcmp(kind, "signals") == 0)
		signals();
	else if (strcmp(kind, "bursts") == 0)
		bursts();
	else if (strcmp(kind, "on-line") == 0)
		on_line();
	else if (strcmp(kind, "now") == 0)
		printf("%.6f\n", now());
	else if (strncmp(kind, "timed-", 6) == 0)
		timed(kind);
	else
		check(0, "no such kind of work");
	return 0;
}
