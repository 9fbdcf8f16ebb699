// Where a function is that was inlined twice over.
#include <stdio.h>
#include <unistd.h>

static void *here;

__attribute__((noinline)) static void note(void)
{
	here = __builtin_return_address(0);
	__asm__ volatile("");
}

__attribute__((always_inline)) static inline void innermost(void)
{
	note(); // line 15
	__asm__ volatile("");
}

__attribute__((always_inline)) static inline void between(void)
{
	innermost(); // line 21
}

__attribute__((noinline)) void around(void)
{
	between(); // line 26
}

int main(void)
{
	around();
	printf("at %p\nreturn %p\nready 0\n", (void *)note, here);
	fflush(stdout);
	char byte;
	return read(0, &byte, 1) < 0;
}
