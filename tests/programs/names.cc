// SPDX-License-Identifier: MIT OR Apache-2.0
// Naps in C++: a template's method with overloads, and a function that is inlined there. Protocol as in waits.c.
#include <cstdio>
#include <ctime>
#include <unistd.h>

namespace space
{
// Where the C library is built without frame pointers this one is missing from the stack.
__attribute__((noinline)) void pause_for(long usecs)
{
	timespec t = { 0, usecs * 1000 };

	nanosleep(&t, nullptr);
	__asm__ volatile("" ::: "memory");
}

// "i" is how a mangled name spells int.
extern "C" __attribute__((noinline)) void i(long usecs)
{
	pause_for(usecs);
	__asm__ volatile("" ::: "memory");
}

__attribute__((always_inline)) inline void inlined(long usecs)
{
	i(usecs);
	__asm__ volatile("" ::: "memory");
}

template <typename T> struct Type {
	__attribute__((noinline)) long method(T count, const char *)
	{
		timespec from, to;

		clock_gettime(CLOCK_MONOTONIC, &from);
		while (count--)
			inlined(5000);
		clock_gettime(CLOCK_MONOTONIC, &to);
		return (to.tv_sec - from.tv_sec) * 1000000 + (to.tv_nsec - from.tv_nsec) / 1000;
	}
};
} // namespace space

int main()
{
	char line[8];

	setvbuf(stdout, nullptr, _IOLBF, 0);
	printf("%d\n", getpid());
	if (!fgets(line, sizeof(line), stdin))
		return 0;
	printf("nap %ld\n", space::Type<int>().method(29, ""));
	printf("done\n");
	pause();
}
