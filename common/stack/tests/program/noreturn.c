// A call that is the last instruction of its function: the address to return to is in the next one.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline, noreturn)) void last(void)
{
	printf("at %p\nreturn %p\nready 0\n", (void *)last, __builtin_return_address(0));
	fflush(stdout);
	char byte;
	_exit(read(0, &byte, 1) < 0);
}

__attribute__((noinline, noreturn)) void ends_with_a_call(void) { last(); }
__attribute__((noinline, used)) int behind(int n) { return n + 1; }

int main(void)
{
	printf("behind %p\n", (void *)behind);
	ends_with_a_call();
}
