// SPDX-License-Identifier: MIT OR Apache-2.0
/* Threads that wait in functions of known names for known times. It keeps to the protocol of `workload`: its
 * process id, a line to begin, "done", and the end of stdin to end. Nothing here sleeps in the function that
 * calls the C library from elsewhere: each name is the caller itself.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define NAMED __attribute__((noinline))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t begin;
static int bytes[2], go_on[2];
static volatile int sink; /* against calls that become jumps */

NAMED static void nap(long nanoseconds)
{
	struct timespec time = { nanoseconds / 1000000000, nanoseconds % 1000000000 };

	nanosleep(&time, NULL);
	sink++;
}

NAMED static void sleeps_37_times_20_ms(void)
{
	for (int i = 0; i < 37; i++) {
		struct timespec time = { 0, 20000000 };

		nanosleep(&time, NULL);
	}
	sink++;
}

NAMED static void waits_for_the_lock(void)
{
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
	sink++;
}

NAMED static void waits_for_a_byte(void)
{
	char byte;

	if (read(bytes[0], &byte, 1) != 1)
		abort();
	sink++;
}

NAMED static void polls_forever(void)
{
	poll(NULL, 0, -1);
	sink++;
}

/* Where threads that are done stay, so that the kernel's account of them can be read. */
NAMED static void stays(void)
{
	char byte;

	if (read(go_on[0], &byte, 1) < 0)
		abort();
	sink++;
}

static void *thread(void *function)
{
	pthread_barrier_wait(&begin);
	((void (*)(void))function)();
	stays();
	return NULL;
}

static void *hung(void *name)
{
	prctl(PR_SET_NAME, name);
	polls_forever();
	return NULL;
}

static void line(void)
{
	char byte;

	while (read(0, &byte, 1) == 1 && byte != '\n')
		;
}

int main(void)
{
	void (*functions[])(void) = { sleeps_37_times_20_ms, waits_for_the_lock, waits_for_a_byte };
	pthread_t thread_id;

	if (pipe(bytes) || pipe(go_on) || pthread_barrier_init(&begin, NULL, 4))
		return 1;
	pthread_create(&thread_id, NULL, hung, "hung");
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 3; i++)
		pthread_create(&thread_id, NULL, thread, (void *)functions[i]);
	printf("%d\n", getpid());
	fflush(stdout);
	line();
	pthread_barrier_wait(&begin);
	nap(1300000000);
	pthread_mutex_unlock(&lock);
	nap(400000000);
	if (write(bytes[1], "x", 1) != 1)
		return 1;
	nap(50000000);
	printf("done\n");
	fflush(stdout);
	line();
	_exit(0);
}
