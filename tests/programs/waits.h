/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One wait each, in functions of known names. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Not inlined, and no tail calls: each is a frame. Where the C library is built without frame pointers the
 * function that calls into it is missing from a stack, so that is never one that a test asks for. */
#define FRAME __attribute__((noinline, noclone))
#define STAYS __asm__ volatile("" ::: "memory")

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

FRAME static void pause_for(long usecs)
{
	struct timespec t = { usecs / 1000000, usecs % 1000000 * 1000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
		;
	STAYS;
}

FRAME static long nap_inner(long usecs)
{
	long start = now();

	pause_for(usecs);
	return now() - start;
}

FRAME static long nap_outer(long count, long usecs)
{
	long sum = 0;

	while (count--)
		sum += nap_inner(usecs);
	STAYS;
	return sum;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int ends[2];

FRAME static void take(void)
{
	pthread_mutex_lock(&lock);
	STAYS;
}

FRAME static long lock_inner(void)
{
	long start = now();

	take();
	start = now() - start;
	pthread_mutex_unlock(&lock);
	return start;
}

FRAME static long lock_outer(void)
{
	long sum = lock_inner();

	STAYS;
	return sum;
}

FRAME static void fetch(void)
{
	char byte;

	if (read(ends[0], &byte, 1) != 1)
		exit(1);
}

FRAME static long read_inner(void)
{
	long start = now();

	fetch();
	return now() - start;
}

FRAME static long read_outer(void)
{
	long sum = read_inner();

	STAYS;
	return sum;
}

FRAME static void put(void)
{
	if (write(ends[1], "x", 1) != 1)
		exit(1);
	STAYS;
}

FRAME static void feed_inner(void)
{
	put();
	STAYS;
}

FRAME static void feed_outer(long usecs)
{
	pause_for(usecs);
	feed_inner();
	STAYS;
}

FRAME static void wait_for_nothing(void)
{
	poll(NULL, 0, -1);
	STAYS;
}

FRAME static void poll_inner(void)
{
	wait_for_nothing();
	STAYS;
}

FRAME static void poll_outer(void)
{
	poll_inner();
	STAYS;
}

FRAME static long spin(long usecs)
{
	struct timespec t;

	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	while (t.tv_sec * 1000000 + t.tv_nsec / 1000 < usecs);
	return 0;
}

/* Who forks like this sleeps until the child is gone, and only a deadly signal ends that: K. */
FRAME static long vfork_inner(long usecs)
{
	long start = now();

	if (!vfork()) {
		usleep(usecs);
		_exit(0);
	}
	start = now() - start;
	wait(NULL);
	return start;
}

FRAME static long vfork_outer(long usecs)
{
	long sum = vfork_inner(usecs);

	STAYS;
	return sum;
}
