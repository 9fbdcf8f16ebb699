// Makes executable memory, says in a perf map what is there, and waits until its standard input ends.
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
	void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char path[64];
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
#ifndef NO_MAP
	FILE *map = fopen(path, "w");
	if (!map)
		return 1;
	fprintf(map, "%lx 40 JS:*hot /srv/app.js:1:15\nnonsense\n%lx 40 JS:unfin", (long)code, (long)code + 64);
	fflush(map);
#endif
	printf("code %p\nready 0\n", (char *)code + 8);
	fflush(stdout);
	char byte;
	(void)!read(0, &byte, 1);
#ifndef NO_MAP
	unlink(path);
#endif
	return 0;
}
