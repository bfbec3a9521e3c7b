/* SPDX-License-Identifier: MIT */
/*
 * Whether the program has a thread beside this one: what a cut may do rests on it, so a thread of
 * the program must never be taken for one of the library's, nor for none.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/sys.h"
#include "tests/tap.h"

#if defined(__SANITIZE_THREAD__)
#define HAS_ANOTHER true /* ThreadSanitizer's own */
#else
#define HAS_ANOTHER false
#endif

static pthread_barrier_t both;

static void *stay(void *context)
{
	(void)context;
	pthread_barrier_wait(&both); /* it runs */
	pthread_barrier_wait(&both); /* it may end */
	return NULL;
}

static void start(pthread_t *thread, bool own)
{
	pthread_barrier_init(&both, NULL, 2);
	if (own ? sys_thread_start(thread, stay, NULL) : pthread_create(thread, NULL, stay, NULL))
		bail("no thread");
	pthread_barrier_wait(&both);
}

static void end(pthread_t thread)
{
	pthread_barrier_wait(&both);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&both);
}

TEST(the_librarys_threads_do_not_count)
{
	pthread_t own;

	if (HAS_ANOTHER) {
		skip("a thread of the sanitizer's is always there");
		return;
	}
	ok(sys_is_alone(), "at first");
	start(&own, true);
	ok(sys_is_alone(), "beside a thread of the library");
	end(own);
	for (unsigned i = 0; i < 1000 && !sys_is_alone(); i++)
		usleep(1000); /* a thread that was joined may still be in the kernel */
	ok(sys_is_alone(), "when it has ended");
}

TEST(the_programs_threads_do)
{
	pthread_t other;

	start(&other, false);
	ok(!sys_is_alone(), "beside a thread of the program");
	end(other);
}

/* What the parent had running is not there; what the child starts is the program's. */
TEST(a_child_has_none_of_its_parents)
{
	pthread_t own, other;
	int status = 0;
	pid_t pid;

	if (HAS_ANOTHER) {
		skip("under ThreadSanitizer a child cannot start threads");
		return;
	}
	start(&own, true);
	pid = fork();
	if (pid == 0) {
		bool alone = sys_is_alone();

		start(&other, false);
		_exit(alone && !sys_is_alone() ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	is_int(status, 0, "the child counts anew");
	end(own);
}

TAP_MAIN(CASE(the_librarys_threads_do_not_count), CASE(the_programs_threads_do),
	 CASE(a_child_has_none_of_its_parents))
