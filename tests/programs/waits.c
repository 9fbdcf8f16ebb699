// SPDX-License-Identifier: MIT OR Apache-2.0
/* Waits of known length in functions of known names: for the tests of offcputime.
 *
 * waits THREAD...: says its process id, waits at a gate, does all of it at once in a thread each, says
 * "LETTERS NAME MICROSECONDS" of each by its own clock, then "done", and waits again.
 */
#define _GNU_SOURCE
#include "waits.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

/* Two waits, for a quantum that is larger, one three times the other. */
static atomic_long longer;
FRAME static long short_one(long usecs)
{
	return nap_inner(usecs);
}
FRAME static long short_three(long usecs)
{
	long sum = nap_inner(3 * usecs);

	longer += sum;
	return sum;
}
FRAME static long split(long count, long usecs)
{
	long sum = 0;

	prctl(PR_SET_TIMERSLACK, 1);
	while (count--)
		sum += short_one(usecs) + short_three(usecs);
	return sum;
}

/* A stack for each bit pattern of `depth` bits. */
FRAME static long left(int depth, long path, long usecs);
FRAME static long right(int depth, long path, long usecs)
{
	long sum = depth ? (path & 1 ? left : right)(depth - 1, path >> 1, usecs) : nap_inner(usecs);

	STAYS;
	return sum;
}
FRAME static long left(int depth, long path, long usecs)
{
	long sum = depth ? (path & 1 ? left : right)(depth - 1, path >> 1, usecs) : nap_inner(usecs);

	STAYS;
	return sum;
}

/* COUNT threads of one nap each, 16 at a time. */
static atomic_long short_sum;
FRAME static void *short_life(void *usecs)
{
	short_sum += nap_inner((long)usecs);
	return NULL;
}
static long threads(long count, long usecs)
{
	pthread_t ids[16];

	for (long done = 0; done < count; done += 16) {
		long n = count - done < 16 ? count - done : 16;

		for (long i = 0; i < n; i++)
			if (pthread_create(&ids[i], NULL, short_life, (void *)usecs))
				exit(2);
		for (long i = 0; i < n; i++)
			pthread_join(ids[i], NULL);
	}
	return short_sum;
}

/* COUNT processes of this program, one after the other, that nap once and are gone. */
static long brief(long count, long usecs)
{
	long sum = 0;

	while (count--) {
		char text[24];
		long start = now();
		pid_t pid = fork();

		snprintf(text, sizeof(text), "%ld", usecs);
		if (!pid)
			execl("/proc/self/exe", "brief", "child", text, NULL);
		waitpid(pid, NULL, 0);
		sum += now() - start;
	}
	return sum;
}

/* Who polls never comes back: the others meet at the last two without it. */
static int gate;
static pthread_barrier_t all_there, begin, finished;

static void *work(void *words)
{
	char what[24] = "", name[24] = "";
	long a = 0, b = 0, sum = 0;

	sscanf(words, "%20[^:]:%ld:%ld:%20[^\n]", what, &a, &b, name);
	prctl(PR_SET_NAME, *name ? name : what);
	if (!strcmp(what, "hold"))
		pthread_mutex_lock(&lock);
	pthread_barrier_wait(&all_there);
	if (!strcmp(what, "poll"))
		poll_outer();
	pthread_barrier_wait(&begin);
	if (!strcmp(what, "nap"))
		sum = nap_outer(a, b);
	else if (!strcmp(what, "hold")) {
		pause_for(a);
		pthread_mutex_unlock(&lock);
	} else if (!strcmp(what, "lock"))
		sum = lock_outer();
	else if (!strcmp(what, "feed"))
		feed_outer(a);
	else if (!strcmp(what, "vfork"))
		sum = vfork_outer(a);
	 else if (!strcmp(what, "read"))
		sum = read_outer();
	else if (!strcmp(what, "spin"))
		sum = spin(a);
	else if (!strcmp(what, "split")) {
		sum = split(a, b);
		printf("longer %ld\n", longer / 1000);
	} else if (!strcmp(what, "paths"))
		for (long path = 0; path < 1 << a; path++)
			sum += left(a, path, b);
	else if (!strcmp(what, "threads"))
		sum = threads(a, b);
	else if (!strcmp(what, "brief"))
		sum = brief(a, b);
	else
		exit(2);
	if (gate)
		printf("%s %ld\n", what, sum / 1000);
	pthread_barrier_wait(&finished);
	pause();
	return NULL;
}

int main(int argc, char **argv)
{
	char line[8];
	int polls = 0;

	gate = argc > 1 && strcmp(argv[1], "now");
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 3 && !strcmp(argv[1], "child")) {
		nap_outer(1, atol(argv[2]));
		return 0;
	}
	if (pipe(ends))
		return 1;
	for (int i = 1 + !gate; i < argc; i++)
		polls += !strncmp(argv[i], "poll", 4);
	pthread_barrier_init(&all_there, NULL, argc - !gate);
	pthread_barrier_init(&begin, NULL, argc - !gate - polls);
	pthread_barrier_init(&finished, NULL, argc - !gate - polls);
	for (int i = 1 + !gate; i < argc; i++) {
		pthread_t id;

		if (pthread_create(&id, NULL, work, argv[i]))
			return 2;
	}
	pthread_barrier_wait(&all_there);
	if (gate) {
		printf("%d\n", getpid());
		if (!fgets(line, sizeof(line), stdin))
			return 0;
	}
	pthread_barrier_wait(&begin);
	pthread_barrier_wait(&finished);
	if (!gate)
		return 7;
	printf("done\n");
	pause();
}
