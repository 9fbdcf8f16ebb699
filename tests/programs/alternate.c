// SPDX-License-Identifier: MIT OR Apache-2.0
/* Waits by turns for an answer that takes 15 microseconds and one that takes 45: two stacks, short waits, strictly
 * periodic. Who answers does not sleep: to wake an idle CPU takes longer than the answer, and comes once in each
 * wait as it is. Protocol as in waits.c; the argument: how often.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NAMED __attribute__((noinline))

static int answers[2];
static atomic_int question;
static volatile int sink;

static long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000 + time.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

NAMED static void ask(int times)
{
	char byte;

	atomic_store(&question, times);
	if (read(answers[0], &byte, 1) != 1)
		abort();
	sink++;
}

NAMED static void short_wait(void)
{
	ask(1);
	sink++;
}

NAMED static void long_wait(void)
{
	ask(3);
	sink++;
}

static void *answer(void *cpu)
{
	int times;
	long end;

	pin((long)cpu);
	for (;;) {
		times = atomic_exchange(&question, 0);
		if (!times)
			continue;
		if (times < 0)
			return NULL;
		end = now() + times * 15000L;
		while (now() < end)
			;
		if (write(answers[1], "", 1) != 1)
			return NULL;
	}
}

static void line(void)
{
	char byte;

	while (read(0, &byte, 1) == 1 && byte != '\n')
		;
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 1000;
	pthread_t thread;

	if (pipe(answers))
		return 1;
	pin(0);
	printf("%d\n", getpid());
	fflush(stdout);
	line();
	pthread_create(&thread, NULL, answer, (void *)1);
	for (long i = 0; i < rounds; i++) {
		short_wait();
		long_wait();
	}
	atomic_store(&question, -1);
	pthread_join(thread, NULL);
	printf("done\n");
	fflush(stdout);
	line();
	_exit(0);
}
