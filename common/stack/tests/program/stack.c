// Says where functions are, and waits until its standard input ends.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#ifndef NAMED
#define NAMED named
#endif

// A symbol at 0, as libraries have them for their versions: what is nowhere must not be taken for it.
__asm__(".globl nothing\n.type nothing, STT_OBJECT\n.set nothing, 0\n");

__attribute__((noinline)) static int local(int n) { return n * 3; }
__attribute__((noinline)) int NAMED(int n) { return local(n) + 1; }

// Somewhere within a function, not at its start.
static void say(const char *name, const void *address) { printf("%s %p\n", name, (const char *)address + 3); }

int main(int argc, char **argv)
{
	say("named", (void *)NAMED);
	say("local", (void *)local);
#ifndef STATIC
	say("clock_nanosleep", (void *)clock_nanosleep);
	void *vdso = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
	if (vdso)
		say("vdso", dlsym(vdso, "__vdso_clock_gettime"));
#endif
	printf("value %d\nready 0\n", NAMED(argc));
	fflush(stdout);
	char byte;
	return read(0, &byte, 1) < 0;
}
