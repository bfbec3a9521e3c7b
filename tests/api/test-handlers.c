/* SPDX-License-Identifier: MIT */
/*
 * Signals that the library handles, and those that only look alike: what is not a trap reaches the
 * handler that was there before, exactly as it would have without us; or ends the process, where it
 * would have. Threads that block the signal, and stacks inside a region.
 *
 * Each scene is a child of its own: handlers are a process's, and some scenes end in its death.
 * Under the explicit and the thread trap nothing is installed; the scenes hold there, too.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "tests/api/common.h"

/* The wait status of a child that runs this. */
static int run_child(void (*run)(int), int argument)
{
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		bail("fork: %s", strerror(errno));
	if (pid == 0) {
		const struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		alarm(patience(30));
		run(argument);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return status;
}

static void expect_end(void (*run)(int), int argument, int status, const char *what)
{
	int got = run_child(run, argument);

	is_int(got, status, "%s, %s (wait status: the signal, or 256 times the exit status)", what,
	       argument > 0 ? strsignal(argument) : "");
}

static const int both[] = { SIGBUS, SIGSEGV };

/* --- faults that are none of ours --- */

static unsigned char *foreign;

/* A page that raises the signal when it is written. */
static void make_foreign(int signal)
{
	if (signal == SIGSEGV) {
		foreign = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	} else {
		int fd = memfd_create("foreign", MFD_CLOEXEC); /* empty: nothing is behind it */

		foreign = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	must(foreign != MAP_FAILED);
}

static void store(unsigned char *to, unsigned char byte)
{
	*(volatile unsigned char *)to = byte;
}

/* Traps work before a foreign fault, and after it. */
static struct cow_region *working;

static void use_a_region(void)
{
	struct cow_snapshot *snapshot;

	if (!working)
		working = new_region(4);
	fill_all(working, 1);
	snapshot = take(working);
	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		must(cow_region_touch(working, page_of(working, 1), PAGE) == 0);
	store(page_of(working, 1) + 7, 2);
	must(page_in(snapshot, 1) == 1);
	must(page_of(working, 1)[7] == 2);
	cow_snapshot_unref(snapshot);
}

static struct {
	unsigned calls;
	int signal, code;
	void *address;
	sigset_t blocked;
	sigjmp_buf out;
	jmp_buf plainly_out;
} seen;

static void note(int signal, const siginfo_t *info)
{
	seen.calls++;
	seen.signal = signal;
	seen.code = info ? info->si_code : 0;
	seen.address = info ? info->si_addr : NULL;
	pthread_sigmask(SIG_BLOCK, NULL, &seen.blocked);
}

/* Puts memory there, so that the instruction succeeds. */
static void mend(int signal, siginfo_t *info, void *context)
{
	(void)context;
	note(signal, info);
	if (mmap(foreign, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != foreign)
		_exit(9);
}

static void set_handler(int signal, void (*handler)(int), int flags, int also_blocked)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	if (also_blocked)
		sigaddset(&action.sa_mask, also_blocked);
	must(sigaction(signal, &action, NULL) == 0);
}

static void set_action(int signal, void (*handler)(int, siginfo_t *, void *), int flags,
		       int also_blocked)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO };

	if (also_blocked)
		sigaddset(&action.sa_mask, also_blocked);
	must(sigaction(signal, &action, NULL) == 0);
}

static void handler_that_mends(int signal)
{
	make_foreign(signal);
	set_action(signal, mend, 0, SIGUSR1);
	use_a_region();
	errno = 77;
	store(foreign + 5, 9);
	must(errno == 77);
	must(foreign[5] == 9 && seen.calls == 1 && seen.signal == signal);
	must(seen.address == foreign + 5 && seen.code > 0);
	must(sigismember(&seen.blocked, signal) && sigismember(&seen.blocked, SIGUSR1));
	must(!sigismember(&seen.blocked, SIGUSR2));
	use_a_region();
}

TEST(a_handler_that_mends_the_fault)
{
	for (unsigned i = 0; i < 2; i++)
		expect_end(handler_that_mends, both[i], 0, "mended");
}

static void leave(int signal)
{
	note(signal, NULL);
	siglongjmp(seen.out, 1);
}

static void leave_plainly(int signal)
{
	note(signal, NULL);
	longjmp(seen.plainly_out, 1);
}

static void handler_that_leaves(int signal)
{
	make_foreign(signal);
	set_handler(signal, leave, 0, 0);
	use_a_region();
	for (volatile unsigned i = 1; i <= 3; i++) {
		if (sigsetjmp(seen.out, 1) == 0)
			store(foreign, 1);
		must(seen.calls == i);
		use_a_region();
	}
}

/* longjmp() restores no mask: with SA_NODEFER the signal has to be open all the same. */
static void handler_that_leaves_plainly(int signal)
{
	sigset_t blocked;

	make_foreign(signal);
	set_handler(signal, leave_plainly, SA_NODEFER, 0);
	use_a_region();
	for (volatile unsigned i = 1; i <= 3; i++) {
		if (setjmp(seen.plainly_out) == 0)
			store(foreign, 1);
		must(seen.calls == i);
		use_a_region();
	}
	pthread_sigmask(SIG_BLOCK, NULL, &blocked);
	must(!sigismember(&blocked, SIGUSR1) && !sigismember(&blocked, signal));
}

TEST(a_handler_that_leaves_by_a_jump)
{
	for (unsigned i = 0; i < 2; i++) {
		expect_end(handler_that_leaves, both[i], 0, "siglongjmp");
		expect_end(handler_that_leaves_plainly, both[i], 0, "longjmp, SA_NODEFER");
	}
}

static void handler_for_once(int signal)
{
	make_foreign(signal);
	set_action(signal, mend, (int)SA_RESETHAND, 0);
	use_a_region();
	store(foreign, 1);
	must(seen.calls == 1);
	use_a_region();
	make_foreign(signal);
	store(foreign, 1);
}

TEST(a_handler_for_one_signal_only)
{
	if (SANITIZED) {
		skip("a sanitizer has a handler of its own");
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		expect_end(handler_for_once, both[i], both[i], "the second one ends the process");
}

static void no_handler(int signal)
{
	make_foreign(signal);
	set_handler(signal, SIG_DFL, 0, 0);
	use_a_region();
	store(foreign, 1);
}

static void ignored(int signal)
{
	make_foreign(signal);
	set_handler(signal, SIG_IGN, 0, 0);
	use_a_region();
	store(foreign, 1);
}

TEST(without_a_handler_it_ends_the_process)
{
	for (unsigned i = 0; i < 2; i++) {
		expect_end(no_handler, both[i], both[i], "SIG_DFL");
		expect_end(ignored, both[i], both[i], "SIG_IGN: a fault cannot be ignored");
	}
}

/* --- signals that are sent --- */

static void note_only(int signal, siginfo_t *info, void *context)
{
	(void)context;
	note(signal, info);
}

static void sent_to_a_handler(int signal)
{
	set_action(signal, note_only, 0, 0);
	use_a_region();
	raise(signal);
	must(seen.calls == 1 && seen.signal == signal && seen.code <= 0);
	use_a_region();
}

static void sent_and_ignored(int signal)
{
	set_handler(signal, SIG_IGN, 0, 0);
	use_a_region();
	raise(signal);
	use_a_region();
}

static void sent_without_a_handler(int signal)
{
	set_handler(signal, SIG_DFL, 0, 0);
	use_a_region();
	raise(signal);
	_exit(5);
}

TEST(signals_that_are_sent)
{
	for (unsigned i = 0; i < 2; i++) {
		expect_end(sent_to_a_handler, both[i], 0, "a handler");
		expect_end(sent_and_ignored, both[i], 0, "ignored");
		expect_end(sent_without_a_handler, both[i], both[i], "SIG_DFL");
	}
}

/* --- accesses to a region that are no writes, or cannot succeed --- */

static void region_is_gone(int signal)
{
	(void)signal;
	set_handler(SIGSEGV, SIG_DFL, 0, 0);
	use_a_region();
	munmap(page_of(working, 0), 4 * PAGE);
	store(page_of(working, 1), 1);
}

static void region_is_executed(int signal)
{
	void (*function)(void);
	void *base;

	(void)signal;
	set_handler(SIGSEGV, SIG_DFL, 0, 0);
	use_a_region();
	base = cow_region_get_base(working);
	memcpy(&function, &base, sizeof(function));
	function();
}

TEST(what_no_opening_can_help_ends_the_process)
{
	expect_end(region_is_gone, 0, SIGSEGV, "a region that was unmapped");
	expect_end(region_is_executed, 0, SIGSEGV, "data that is executed");
}

/* --- the signal is blocked --- */

/* A snapshot of ones, then the signal is blocked. */
static struct cow_snapshot *take_and_block(int signal)
{
	struct cow_snapshot *snapshot;
	sigset_t set;

	use_a_region();
	snapshot = take(working);
	sigemptyset(&set);
	sigaddset(&set, signal);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return snapshot;
}

static void write_with_signal_blocked(int signal)
{
	struct cow_snapshot *snapshot = take_and_block(signal);

	store(page_of(working, 2), 3);
	must(page_in(snapshot, 2) == 1);
}

static void bracket_with_signal_blocked(int signal)
{
	struct cow_snapshot *snapshot = take_and_block(signal);

	must(cow_region_write_begin(working, page_of(working, 2), 1) == 0);
	store(page_of(working, 2), 3);
	cow_region_write_end(working, page_of(working, 2), 1);
	must(page_in(snapshot, 2) == 1);
}

/* As libcow(7) says: the kernel ends a process whose fault finds its signal blocked. */
TEST(a_thread_that_blocks_the_signal)
{
	const int trap_signal = TEST_TRAP == COW_TRAP_SIGNAL   ? SIGBUS :
				TEST_TRAP == COW_TRAP_MPROTECT ? SIGSEGV :
								 0;

	for (unsigned i = 0; i < 2; i++) {
		if (TEST_TRAP != COW_TRAP_EXPLICIT)
			expect_end(write_with_signal_blocked, both[i],
				   both[i] == trap_signal ? trap_signal : 0, "a plain store");
		expect_end(bracket_with_signal_blocked, both[i], 0, "a bracket");
	}
}

/* A handler of another signal is interrupted by a trap like any code; the one for the trap's own
 * signal is not, as long as that is blocked. */
static void write_from_handler(int signal)
{
	(void)signal;
	store(page_of(working, 3), 4);
}

static void handler_that_writes(int signal)
{
	struct cow_snapshot *snapshot;

	set_handler(signal, write_from_handler, 0, 0);
	use_a_region();
	snapshot = take(working);
	raise(signal);
	must(page_in(snapshot, 3) == 1 && page_of(working, 3)[0] == 4);
}

TEST(a_handler_of_another_signal_may_write)
{
	if (TEST_TRAP == COW_TRAP_EXPLICIT) {
		skip("the explicit trap sees brackets only");
		return;
	}
	expect_end(handler_that_writes, SIGUSR1, 0, "a handler that writes");
	expect_end(handler_that_writes, TEST_TRAP == COW_TRAP_SIGNAL ? SIGSEGV : SIGBUS, 0,
		   "a handler that writes");
}

/* --- stacks inside a region --- */

#define STACK_PAGES 64u

static struct {
	struct cow_region *region;
	ucontext_t outside, inside;
	unsigned cuts;
	unsigned long sum;
} stack;

static unsigned char alternate[1 << 16] __attribute__((aligned(16)));

static void set_alternate_stack(void *memory, size_t length)
{
	const stack_t alternative = { .ss_sp = memory, .ss_size = length };

	must(sigaltstack(&alternative, NULL) == 0);
}

/* Each level has some words of its own, and looks at them again on the way back. */
__attribute__((noinline)) static unsigned long descend(unsigned depth)
{
	volatile unsigned long mine[32];
	unsigned long sum = 0;

	for (unsigned i = 0; i < 32; i++)
		mine[i] = depth;
	if (depth > 0)
		sum = descend(depth - 1);
	for (unsigned i = 0; i < 32; i++)
		sum += mine[i];
	return sum;
}

static void work_inside(void)
{
	for (unsigned i = 0;; i++) {
		stack.sum = descend(200);
		swapcontext(&stack.inside, &stack.outside);
	}
}

static unsigned long expected_sum(void)
{
	return 32ul * 200 * 201 / 2;
}

static void start_inside(void)
{
	stack.region = new_region(STACK_PAGES);
	getcontext(&stack.inside);
	stack.inside.uc_stack.ss_sp = cow_region_get_base(stack.region);
	stack.inside.uc_stack.ss_size = STACK_PAGES * PAGE;
	stack.inside.uc_link = &stack.outside;
	makecontext(&stack.inside, work_inside, 0);
}

/* A cut while it sleeps, and its stack is rolled back into sleeping as it was. */
static void run_inside(int unused)
{
	static unsigned char before[STACK_PAGES * PAGE], read[STACK_PAGES * PAGE];

	(void)unused;
	start_inside();
	for (unsigned i = 0; i < 20; i++) {
		struct cow_snapshot *snapshot = take(stack.region);

		memcpy(before, cow_region_get_base(stack.region), sizeof(before));
		stack.sum = 0;
		swapcontext(&stack.outside, &stack.inside);
		must(stack.sum == expected_sum());
		must(cow_snapshot_read(snapshot, 0, read, sizeof(read)) == 0);
		must(memcmp(before, read, sizeof(read)) == 0);
		cow_snapshot_unref(snapshot);
	}
}

static void inside_with_alternate_stack(int unused)
{
	set_alternate_stack(alternate, sizeof(alternate));
	run_inside(unused);
}

/* The alternate stack of the trap's signal lies in the region as well. */
static void alternate_stack_inside(int unused)
{
	struct cow_region *region = new_region(32);
	struct cow_snapshot *snapshot;

	(void)unused;
	set_alternate_stack(page_of(region, 8), 16 * PAGE);
	fill_all(region, 1);
	snapshot = take(region);
	store(page_of(region, 2), 2);
	must(page_in(snapshot, 2) == 1);
}

static bool kernel_is_served(void)
{
	long fd = TEST_TRAP == COW_TRAP_THREAD ? syscall(SYS_userfaultfd, 0) : -1;

	if (fd >= 0)
		close((int)fd);
	return fd >= 0;
}

TEST(a_stack_inside_a_region)
{
	bool by_signal = TEST_TRAP == COW_TRAP_SIGNAL || TEST_TRAP == COW_TRAP_MPROTECT;

	if (SANITIZED || TEST_TRAP == COW_TRAP_EXPLICIT) {
		skip("%s", SANITIZED ? "a sanitizer follows stacks" :
				       "the explicit trap sees brackets only");
		return;
	}
	expect_end(inside_with_alternate_stack, 0, 0, "with an alternate stack elsewhere");
	expect_end(run_inside, 0, by_signal ? SIGSEGV : 0,
		   "without: there is nowhere to handle the signal");
	expect_end(alternate_stack_inside, 0, by_signal || !kernel_is_served() ? SIGSEGV : 0,
		   "the alternate stack itself");
}

TAP_MAIN(CASE(a_handler_that_mends_the_fault), CASE(a_handler_that_leaves_by_a_jump),
	 CASE(a_handler_for_one_signal_only), CASE(without_a_handler_it_ends_the_process),
	 CASE(signals_that_are_sent), CASE(what_no_opening_can_help_ends_the_process),
	 CASE(a_thread_that_blocks_the_signal), CASE(a_handler_of_another_signal_may_write),
	 CASE(a_stack_inside_a_region))
