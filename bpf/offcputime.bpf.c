// SPDX-License-Identifier: GPL-2.0
/* offcputime: where threads wait, and how long.
 *
 * A wait is the time from a thread's switch-out to its switch-in: what it blocked for, and the wait for a
 * CPU that follows. It is charged to the thread's user stack, its kernel stack and the state it left in.
 *
 * Cost: a switch that is filtered out is two look-ups of numbers; else it is the clock, the thread's own
 * storage and a walk over one kilobyte of its user stack; the kernel stack costs twice as much as all of
 * that, and is walked for waits of a quantum and for as many others as make up a quantum together.
 */
#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "children.bpf.h"
#include "offcpu_sweep.bpf.h"
#include "offcpu_waker.bpf.h"

/* Entry points. Either the tp_btf or the raw_tp ones are loaded: see HOOKS in tools/offcputime. */

SEC("iter.s/task")
int sweep_sleeping(struct bpf_iter__task *ctx)
{
	return on_sweep(ctx->task, true, true);
}

SEC("iter/task")
int sweep(struct bpf_iter__task *ctx)
{
	return on_sweep(ctx->task, false, true);
}

SEC("iter/task")
int sweep_plain(struct bpf_iter__task *ctx)
{
	return on_sweep(ctx->task, false, false);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switch_btf, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return on_switch(ctx, true, preempt, prev, next);
}

SEC("raw_tp/sched_switch")
int BPF_PROG(switch_raw, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return on_switch(ctx, false, preempt, prev, next);
}

SEC("tp_btf/sched_waking")
int BPF_PROG(waking_btf, struct task_struct *task)
{
	return on_waking(ctx, true, task);
}

SEC("raw_tp/sched_waking")
int BPF_PROG(waking_raw, struct task_struct *task)
{
	return on_waking(ctx, false, task);
}

char LICENSE[] SEC("license") = "GPL";
