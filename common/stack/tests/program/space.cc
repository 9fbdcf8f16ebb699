// Names that have to be demangled.
#include <cstdio>
#include <unistd.h>

namespace space {
template <class T> struct Type {
	__attribute__((noinline)) static T method(T n, const char *) { return n * 3; }
};
} // namespace space

int main(int argc, char **)
{
	int (*method)(int, const char *) = space::Type<int>::method;
	std::printf("method %p\nvalue %d\nready 0\n", (void *)((char *)method + 3), method(argc, ""));
	std::fflush(stdout);
	char byte;
	return read(0, &byte, 1) < 0;
}
