/* deep FRAMES ROUNDS: two threads pass a byte to and fro, each from inside of that many functions. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static int pipes[2][2];
static int frames, rounds;

static __attribute__((noinline)) void play(int me)
{
	char byte = 0;

	for (int i = 0; i < rounds; i++) {
		if (me && read(pipes[1][0], &byte, 1) != 1)
			exit(1);
		if (write(pipes[!me][1], &byte, 1) != 1)
			exit(1);
		if (!me && read(pipes[0][0], &byte, 1) != 1)
			exit(1);
	}
}

static __attribute__((noinline)) void deeper(int me, int left)
{
	if (left > 0)
		deeper(me, left - 1);
	else
		play(me);
	__asm__ volatile("" ::: "memory"); /* no tail call: it would leave no frame */
}

static void *other(void *unused)
{
	deeper(1, frames);
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc != 3)
		return 2;
	frames = atoi(argv[1]);
	rounds = atoi(argv[2]);
	if (pipe(pipes[0]) || pipe(pipes[1]) || pthread_create(&thread, NULL, other, NULL))
		return 1;
	deeper(0, frames);
	return pthread_join(thread, NULL);
}
