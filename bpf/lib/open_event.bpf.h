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
/* One more than any name may have, with its NUL: what fills it was longer still. */
#define NAME_ROOM (PATH_MAX + 1)

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
	OPEN_COMPAT = 1024, /* a 32-bit call */
};

struct open_head {
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
};

/* Sent up to the last byte in use of `text`: the name with its NUL, then the parts of the walk. */
struct open_event {
	struct open_head head;
	char text[NAME_ROOM + PATH_BYTES + PATH_PART];
};

/* For user space: the names of the bits. */
enum open_bits *_bits __attribute__((unused));
enum route *_route __attribute__((unused));
struct open_head *_head __attribute__((unused));

/* What was asked for. */
struct open_args {
	const void *name;
	u64 flags;
	u32 mode;
	s32 dfd;
	u8 resolve;
};

/* Events are put together here. One for each kind of program: where tracepoints can be preempted, another
 * one may run on the same CPU in between; the same one may not (the kernel counts it as skipped). */
enum scratch {
	SCRATCH_EXIT,
	SCRATCH_SUBMIT,
	SCRATCH_REFUSED,
	SCRATCH_COMPLETE,
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
	struct open_head *head;

	if (!event)
		return NULL;
	head = &event->head;
	head->at = bpf_ktime_get_ns();
	head->latency_ns = 0;
	head->flags = args->flags;
	head->ino = 0;
	head->tgid = GET(direct, task, tgid);
	head->tid = GET(direct, task, pid);
	head->ppid = parent_tgid(direct, task);
	head->uid = bpf_get_current_uid_gid();
	head->ret = 0;
	head->dfd = args->dfd;
	head->mode = args->mode;
	head->bits = 0;
	head->name_size = 0;
	head->walk_size = 0;
	head->route = route;
	head->resolve = args->resolve;
	bpf_get_current_comm(&head->comm, sizeof(head->comm));
	return event;
}

/* size: what the helper that read the name, up to NAME_ROOM bytes of it, has returned. */
static __always_inline void set_name(struct open_event *event, long size)
{
	if (size > 0 && size <= NAME_ROOM) {
		event->head.name_size = size;
		if (size == NAME_ROOM)
			event->head.bits |= OPEN_NAME_CUT;
		return;
	}
	event->head.bits |= OPEN_UNREADABLE;
	count_loss(LOST_UNREADABLE);
}

/* Where the walk starts: at the file if one was opened, else where the name starts from. */
static __always_inline bool find_path(struct open_event *event, struct task_struct *task,
				      struct path_walk *walk)
{
	struct open_head *head = &event->head;
	bool found;

	if (head->ret >= 0 && !(head->bits & OPEN_DIRECT) && path_of_fd(walk, task, head->ret)) {
		head->bits |= OPEN_FILE;
		return true;
	}
	if (!head->name_size)
		return false;
	if (event->text[0] == '/' && !(head->resolve & RESOLVE_IN_ROOT))
		found = path_of_root(walk, task);
	else if (head->dfd == AT_FDCWD)
		found = path_of_cwd(walk, task);
	else
		found = path_of_fd(walk, task, head->dfd);
	if (found)
		head->bits |= OPEN_BASE;
	return found;
}

static __always_inline void add_path(bool direct, struct open_event *event, struct task_struct *task)
{
	struct path_walk walk = { .used = &event->head.walk_size };
	struct open_head *head = &event->head;
	u32 at = head->name_size;

	barrier_var(at);
	if (at > NAME_ROOM || !find_path(event, task, &walk))
		return;
	walk.buf = event->text + at;
	path_walk(direct, &walk);
	if (walk.end == PATH_CUT) {
		head->bits |= OPEN_CUT;
		count_loss(LOST_TRUNCATED);
	} else if (walk.end == PATH_PSEUDO) {
		head->bits |= OPEN_PSEUDO;
		head->ino = walk.ino;
	}
	if (walk.unlinked)
		head->bits |= OPEN_UNLINKED;
}

static __always_inline void send_event(struct open_event *event)
{
	u64 size = event->head.name_size + event->head.walk_size;

	barrier_var(size);
	if (size <= sizeof(event->text))
		ring_send(event, sizeof(event->head) + size, cfg.wake_bytes);
}

#endif
