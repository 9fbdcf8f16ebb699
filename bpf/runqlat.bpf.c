// SPDX-License-Identifier: GPL-2.0
/* runqlat: how long runnable tasks wait for a CPU.
 *
 * A wait starts when a task is put on a run queue: it is woken (why: wakeup), or it is switched out while
 * still runnable (why: preempted). It ends when the task is switched in. The first start stands, and the
 * idle task never waits.
 *
 * Cost: a wakeup is a reading of the clock and a cache line, a switch another two and a histogram update.
 * The scheduler's own account (struct sched_info) would cost a third of that, but its clock stands still
 * between a wakeup and the switch that follows: it makes 0 of a wait for an idle CPU, which are most.
 */
#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "children.bpf.h"
#include "runq_clock.bpf.h"

struct runq_event *_event __attribute__((unused));

/* Entry points. Either the tp_btf or the raw_tp ones are loaded: see HOOKS in tools/runqlat. */

SEC("iter/task")
int sweep_btf(struct bpf_iter__task *ctx)
{
	return on_sweep(true, ctx->task);
}

SEC("iter/task")
int sweep_raw(struct bpf_iter__task *ctx)
{
	return on_sweep(false, ctx->task);
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(wakeup_btf, struct task_struct *task)
{
	return on_wakeup(true, task);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(wakeup_new_btf, struct task_struct *task)
{
	return on_wakeup(true, task);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switch_btf, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return on_switch(true, preempt, prev, next);
}

SEC("raw_tp/sched_wakeup")
int BPF_PROG(wakeup_raw, struct task_struct *task)
{
	return on_wakeup(false, task);
}

SEC("raw_tp/sched_wakeup_new")
int BPF_PROG(wakeup_new_raw, struct task_struct *task)
{
	return on_wakeup(false, task);
}

SEC("raw_tp/sched_switch")
int BPF_PROG(switch_raw, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return on_switch(false, preempt, prev, next);
}

char LICENSE[] SEC("license") = "GPL";
