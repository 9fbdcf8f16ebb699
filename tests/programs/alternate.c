// SPDX-License-Identifier: MIT OR Apache-2.0
/* Waits by turns for an answer that takes some 15 microseconds and one that takes 45: two stacks, short waits,
 * strictly periodic. Protocol as in waits.c; the argument: how often.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NAMED __attribute__((noinline))

static int questions[2], answers[2];
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

NAMED static void ask(char times)
{
	if (write(questions[1], &times, 1) != 1 || read(answers[0], &times, 1) != 1)
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
	char times;

	pin((long)cpu);
	while (read(questions[0], &times, 1) == 1) {
		long end = now() + times * 15000L;

		while (now() < end)
			;
		if (write(answers[1], &times, 1) != 1)
			break;
	}
	return NULL;
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

	if (pipe(questions) || pipe(answers))
		return 1;
	pthread_create(&thread, NULL, answer, (void *)1);
	pin(0);
	printf("%d\n", getpid());
	fflush(stdout);
	line();
	for (long i = 0; i < rounds; i++) {
		short_wait();
		long_wait();
	}
	printf("done\n");
	fflush(stdout);
	line();
	_exit(0);
}
