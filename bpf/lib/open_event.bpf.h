/* SPDX-License-Identifier: GPL-2.0 */
/* What opensnoop's programs share: its settings, the record of one open, and how it is filled and sent. */
#ifndef TRACEBELT_OPEN_EVENT_H
#define TRACEBELT_OPEN_EVENT_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "compat.bpf.h"
#include "filter.bpf.h"
#include "maps.bpf.h"
#include "path.bpf.h"
#include "ring.bpf.h"

const volatile struct {
	struct filter filter;
	u64 slower_ns;
	u64 wake_bytes;
	u64 any_flags; /* wanted: flags with any of these bits, */
	u32 access; /* or an access mode whose bit is set here (1 << O_RDONLY is 1) */
	u32 uid;
	u8 by_flags;
	u8 by_uid;
	u8 failed; /* only opens that failed */
	u8 full; /* send absolute paths */
	u8 latency; /* the programs at sys_enter are loaded */
	u8 storage; /* starts are in task storage, else in the hash */
} cfg = {};

/* The same on every architecture here: include/uapi/asm-generic/fcntl.h, linux/openat2.h, errno-base.h. */
#define O_ACCMODE 3
#define O_WRONLY 1
#define O_CREAT 0100
#define O_TRUNC 01000
#define RESOLVE_IN_ROOT 0x10
#define ENAMETOOLONG 36
#define PATH_MAX 4096

enum route {
	ROUTE_NONE,
	ROUTE_OPEN,
	ROUTE_CREAT,
	ROUTE_OPENAT,
	ROUTE_OPENAT2,
	ROUTE_HANDLE, /* open_by_handle_at */
	ROUTE_URING,
};

enum open_bits {
	OPEN_UNREADABLE = 1, /* the name could not be read */
	OPEN_NAMELESS = 2, /* the call takes no name */
	OPEN_NAME_CUT = 4, /* longer than any path may be */
	OPEN_FILE = 8, /* the walk is the path of the file that was opened */
	OPEN_BASE = 16, /* the walk is the directory that the name starts from */
	OPEN_CUT = 32, /* the walk's upper part is missing */
	OPEN_PSEUDO = 64, /* the walk is a name and a file system's type */
	OPEN_UNLINKED = 128, /* what the walk is the path of has been unlinked */
	OPEN_DIRECT = 256, /* io_uring put it into its own table: there is no descriptor */
	OPEN_NO_START = 512, /* began before the tracer: the latency is not known */
};

/* Sent up to the last byte in use of `text`: the name with its NUL, then the parts of the walk. */
struct open_event {
	u64 at; /* CLOCK_MONOTONIC, when the call returned */
	u64 latency_ns;
	u64 flags;
	u64 ino; /* of a pseudo file */
	u32 tgid;
	u32 tid;
	u32 ppid;
	u32 uid;
	s32 ret;
	s32 dfd;
	u32 mode;
	u16 bits; /* enum open_bits */
	u16 name_size; /* with its NUL; 0: no name */
	u16 walk_size;
	u8 route; /* enum route */
	u8 resolve; /* of openat2 */
	char comm[16];
	char text[PATH_MAX + PATH_BYTES + PATH_PART];
};

#define OPEN_HEADER __builtin_offsetof(struct open_event, text)

struct open_event *_event __attribute__((unused));

/* What was asked for. */
struct open_args {
	const void *name;
	u64 flags;
	u32 mode;
	s32 dfd;
	u8 resolve;
};

/* Events are put together here: one for system calls and one for io_uring, should one interrupt the
 * other where tracepoints can be preempted. */
enum scratch {
	SCRATCH_SYSCALL,
	SCRATCH_URING,
	SCRATCHES,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, u32);
	__type(value, struct open_event);
} scratch SEC(".maps");

static __always_inline bool flags_wanted(u64 flags)
{
	return !cfg.by_flags || (flags & cfg.any_flags) || (cfg.access >> (flags & O_ACCMODE) & 1);
}

static __always_inline bool caller_wanted(bool direct, struct task_struct *task)
{
	if (!task_wanted(&cfg.filter, direct, task))
		return false;
	return !cfg.by_uid || (u32)bpf_get_current_uid_gid() == cfg.uid;
}

static __always_inline void read_how(struct open_args *args, const void *user)
{
	struct open_how how = {};

	bpf_probe_read_user(&how, sizeof(how), user);
	args->flags = how.flags;
	args->mode = how.mode;
	args->resolve = how.resolve;
}

static __always_inline struct open_event *new_event(bool direct, struct task_struct *task, enum scratch which,
						    enum route route, const struct open_args *args)
{
	u32 key = which;
	struct open_event *event = bpf_map_lookup_elem(&scratch, &key);

	if (!event)
		return NULL;
	event->at = bpf_ktime_get_ns();
	event->latency_ns = 0;
	event->flags = args->flags;
	event->ino = 0;
	event->tgid = GET(direct, task, tgid);
	event->tid = GET(direct, task, pid);
	event->ppid = parent_tgid(direct, task);
	event->uid = bpf_get_current_uid_gid();
	event->ret = 0;
	event->dfd = args->dfd;
	event->mode = args->mode;
	event->bits = 0;
	event->name_size = 0;
	event->walk_size = 0;
	event->route = route;
	event->resolve = args->resolve;
	bpf_get_current_comm(&event->comm, sizeof(event->comm));
	return event;
}

/* size: what the helper that read the name has returned. */
static __always_inline void set_name(struct open_event *event, long size)
{
	if (size > 0 && size <= PATH_MAX) {
		event->name_size = size;
		return;
	}
	event->bits |= OPEN_UNREADABLE;
	count_loss(LOST_UNREADABLE);
}

/* Where the walk starts: at the file if one was opened, else where the name starts from. */
static __always_inline bool find_path(struct open_event *event, struct task_struct *task,
				      struct path_walk *walk)
{
	bool found;

	if (event->ret >= 0 && !(event->bits & OPEN_DIRECT) && path_of_fd(walk, task, event->ret)) {
		event->bits |= OPEN_FILE;
		return true;
	}
	if (!event->name_size)
		return false;
	if (event->text[0] == '/' && !(event->resolve & RESOLVE_IN_ROOT))
		found = path_of_root(walk, task);
	else if (event->dfd == AT_FDCWD)
		found = path_of_cwd(walk, task);
	else
		found = path_of_fd(walk, task, event->dfd);
	if (found)
		event->bits |= OPEN_BASE;
	return found;
}

static __always_inline void add_path(bool direct, struct open_event *event, struct task_struct *task)
{
	struct path_walk walk = { .used = &event->walk_size };
	u32 at = event->name_size;

	barrier_var(at);
	if (at > PATH_MAX || !find_path(event, task, &walk))
		return;
	walk.buf = event->text + at;
	path_walk(direct, &walk);
	if (walk.end == PATH_CUT) {
		event->bits |= OPEN_CUT;
		count_loss(LOST_TRUNCATED);
	} else if (walk.end == PATH_PSEUDO) {
		event->bits |= OPEN_PSEUDO;
		event->ino = walk.ino;
	}
	if (walk.unlinked)
		event->bits |= OPEN_UNLINKED;
}

static __always_inline void send_event(struct open_event *event)
{
	u64 size = event->name_size + event->walk_size;

	barrier_var(size);
	if (size <= sizeof(event->text))
		ring_send(event, OPEN_HEADER + size, cfg.wake_bytes);
}

#endif
