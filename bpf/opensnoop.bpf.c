// SPDX-License-Identifier: GPL-2.0
/* opensnoop: who opens which file, and how it went.
 *
 * System calls are seen when they return, at the one tracepoint that all of them pass, 32-bit ones too:
 * the arguments are still in the caller's registers, and the page with the name is in memory by then.
 * Opens through io_uring: open_uring.bpf.h.
 *
 * Cost: any other system call, a few comparisons; an open, one record of the bytes that it needs. Only
 * --latency and --slower look at the start of a call as well.
 */
#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "children.bpf.h"
#include "compat.bpf.h"
#include "maps.bpf.h"
#include "open_event.bpf.h"
#include "open_uring.bpf.h"
#include "syscalls.bpf.h"

struct open_start {
	u64 at; /* 0: not in an open */
};

/* Either holds when a thread's open began; cfg.storage says which. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct open_start);
} start_storage SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, struct open_start);
} start_hash SEC(".maps");

static __always_inline enum route native_route(u32 nr)
{
	switch (nr) {
	case NR_open:
		return ROUTE_OPEN;
	case NR_creat:
		return ROUTE_CREAT;
	case NR_openat:
		return ROUTE_OPENAT;
	case NR_openat2:
		return ROUTE_OPENAT2;
	case NR_open_by_handle_at:
		return ROUTE_HANDLE;
	}
	return ROUTE_NONE;
}

static __always_inline enum route compat_route(u32 nr)
{
	switch (nr) {
	case NR_compat_open:
		return ROUTE_OPEN;
	case NR_compat_creat:
		return ROUTE_CREAT;
	case NR_compat_openat:
		return ROUTE_OPENAT;
	case NR_compat_openat2:
		return ROUTE_OPENAT2;
	case NR_compat_open_by_handle_at:
		return ROUTE_HANDLE;
	}
	return ROUTE_NONE;
}

static __always_inline void set_start(bool direct, struct task_struct *task)
{
	struct open_start fresh = { .at = bpf_ktime_get_ns() };
	u32 tid = GET(direct, task, pid);
	struct open_start *start;

	if (direct && cfg.storage) {
		start = bpf_task_storage_get(&start_storage, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (start)
			*start = fresh;
		else
			count_loss(LOST_MAP_FULL);
	} else if (bpf_map_update_elem(&start_hash, &tid, &fresh, BPF_ANY)) {
		count_loss(LOST_MAP_FULL);
	}
}

/* When this open began, and forgets it; 0: not known. */
static __always_inline u64 take_start(bool direct, struct task_struct *task)
{
	u32 tid = GET(direct, task, pid);
	struct open_start *start;
	u64 at;

	if (direct && cfg.storage)
		start = bpf_task_storage_get(&start_storage, task, NULL, 0);
	else
		start = bpf_map_lookup_elem(&start_hash, &tid);
	if (!start)
		return 0;
	at = start->at;
	start->at = 0;
	if (!(direct && cfg.storage))
		bpf_map_delete_elem(&start_hash, &tid);
	return at;
}

static __always_inline void read_args(bool direct, struct pt_regs *regs, bool compat, enum route route,
				      struct open_args *args)
{
	args->dfd = AT_FDCWD;
	switch (route) {
	case ROUTE_OPEN:
		args->name = (void *)syscall_arg(direct, regs, compat, 0);
		args->flags = (u32)syscall_arg(direct, regs, compat, 1);
		args->mode = syscall_arg(direct, regs, compat, 2);
		return;
	case ROUTE_CREAT:
		args->name = (void *)syscall_arg(direct, regs, compat, 0);
		args->flags = O_CREAT | O_WRONLY | O_TRUNC;
		args->mode = syscall_arg(direct, regs, compat, 1);
		return;
	case ROUTE_HANDLE:
		args->flags = (u32)syscall_arg(direct, regs, compat, 2);
		return;
	default:
		args->dfd = syscall_arg(direct, regs, compat, 0);
		args->name = (void *)syscall_arg(direct, regs, compat, 1);
	}
	if (route == ROUTE_OPENAT2) {
		read_how(args, (void *)syscall_arg(direct, regs, compat, 2));
	} else {
		args->flags = (u32)syscall_arg(direct, regs, compat, 2);
		args->mode = syscall_arg(direct, regs, compat, 3);
	}
}

static __always_inline int on_enter(bool direct, struct pt_regs *regs)
{
	u32 nr = syscall_nr(direct, regs);
	enum route native = native_route(nr), compat = compat_route(nr);
	struct task_struct *task;

	if ((native == ROUTE_NONE && compat == ROUTE_NONE) || !running)
		return 0;
	task = current_task(direct);
	if ((syscall_compat(direct, regs, task) ? compat : native) == ROUTE_NONE)
		return 0;
	if (caller_wanted(direct, task))
		set_start(direct, task);
	return 0;
}

static __always_inline int on_exit(bool direct, struct pt_regs *regs, s32 ret)
{
	u32 nr = syscall_nr(direct, regs);
	enum route native = native_route(nr), compat = compat_route(nr), route;
	struct open_args args = {};
	struct task_struct *task;
	struct open_event *event;
	struct open_head *head;
	u64 started = 0;
	bool is_compat;

	if ((native == ROUTE_NONE && compat == ROUTE_NONE) || !running)
		return 0;
	task = current_task(direct);
	is_compat = syscall_compat(direct, regs, task);
	route = is_compat ? compat : native;
	if (route == ROUTE_NONE)
		return 0;
	if (cfg.latency)
		started = take_start(direct, task);
	if ((cfg.failed && ret >= 0) || !caller_wanted(direct, task))
		return 0;
	read_args(direct, regs, is_compat, route, &args);
	if (!flags_wanted(args.flags))
		return 0;

	event = new_event(direct, task, SCRATCH_EXIT, route, &args);
	if (!event)
		return 0;
	head = &event->head;
	head->ret = ret;
	if (cfg.latency) {
		if (started) {
			head->latency_ns = head->at - started;
		} else {
			count_loss(BEGAN_BEFORE);
			head->bits |= OPEN_NO_START;
		}
		if (head->latency_ns < cfg.slower_ns)
			return 0;
	}
	if (route == ROUTE_HANDLE)
		head->bits |= OPEN_NAMELESS;
	else
		set_name(event, read_user_string(event->text, NAME_ROOM, args.name));
	if (is_compat)
		head->bits |= OPEN_COMPAT;
	if (cfg.full || route == ROUTE_HANDLE)
		add_path(direct, event, task);
	send_event(event);
	return 0;
}

/* Entry points. One kind of them is loaded: see HOOKS in tools/opensnoop. */

SEC("tp_btf/sys_enter")
int BPF_PROG(enter_btf, struct pt_regs *regs)
{
	return on_enter(true, regs);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(exit_btf, struct pt_regs *regs, long ret)
{
	return on_exit(true, regs, ret);
}

SEC("raw_tp/sys_enter")
int BPF_PROG(enter_raw, struct pt_regs *regs)
{
	return on_enter(false, regs);
}

SEC("raw_tp/sys_exit")
int BPF_PROG(exit_raw, struct pt_regs *regs, long ret)
{
	return on_exit(false, regs, ret);
}

/* Since 5.15, dd6e10fbd9fb ("bpf: Add bpf_task_pt_regs() helper"). */
static __always_inline struct pt_regs *current_regs(void)
{
	return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
}

SEC("tracepoint/raw_syscalls/sys_enter")
int enter_tp(void *ctx)
{
	return on_enter(true, current_regs());
}

SEC("tracepoint/raw_syscalls/sys_exit")
int exit_tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_exit(true, current_regs(), ctx->ret);
}

char LICENSE[] SEC("license") = "GPL";
