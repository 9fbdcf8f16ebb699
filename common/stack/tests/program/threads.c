// A process whose first thread has ended.
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) int named(int n) { return n * 3; }

static void *waits(void *first)
{
	pthread_join(*(pthread_t *)first, NULL);
	printf("named %p\nready 0\n", (char *)named + 3);
	fflush(stdout);
	char byte;
	_exit(read(0, &byte, 1) < 0);
}

int main(void)
{
	static pthread_t first;
	pthread_t thread;
	first = pthread_self();
	pthread_create(&thread, NULL, waits, &first);
	pthread_exit(NULL);
}
