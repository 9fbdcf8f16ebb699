// Walks its own stack by frame pointers, innermost first.
#include <stdio.h>
#include <unistd.h>

extern void *__libc_stack_end;

#define FUNCTION __attribute__((noinline))

FUNCTION int inner(int n)
{
	void **frame = __builtin_frame_address(0);
	printf("at %p\n", (void *)inner);
	while ((void *)(frame + 1) < __libc_stack_end && frame[1]) {
		printf("return %p\n", frame[1]);
		void **next = frame[0];
		if (next <= frame)
			break;
		frame = next;
	}
	printf("ready 0\n");
	fflush(stdout);
	char byte;
	return n + (int)read(0, &byte, 1);
}

FUNCTION int middle(int n) { return inner(n + 1) + 1; }
FUNCTION int outer(int n) { return middle(n + 1) + 1; }
int main(int argc, char **argv) { return outer(argc) < 0; }
