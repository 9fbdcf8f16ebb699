/* SPDX-License-Identifier: GPL-2.0 */
/* Waits by the clock: a wakeup, or a switch out of a task that could go on, stamps the task; the switch
 * that runs it ends the wait. Any kernel can be asked this way, and a wait is known the moment it ends.
 *
 * Cost: two readings of the clock and two or three look-ups for each wait.
 *
 * `direct`, a constant of the entry point: typed programs read fields directly (GET in compat.bpf.h) and keep
 * starts in the table, the others by a helper and in the hash.
 */
#ifndef TRACEBELT_RUNQ_CLOCK_H
#define TRACEBELT_RUNQ_CLOCK_H

#include "ring.bpf.h"
#include "runq_task.bpf.h"

struct runq_event {
	u64 at; /* CLOCK_MONOTONIC, the switch-in */
	u64 wait_ns;
	u32 tgid;
	u32 tid;
	u32 prev_tgid;
	u32 cpu;
	u32 why;
	u32 unused;
	char comm[16];
	char prev_comm[16];
};

struct runq_event *_event __attribute__((unused));

/* A start that a switch-in should have ended, but the task has run since: the switch was not seen. Some
 * hypervisors go on executing kernel text from before the tracepoint was switched on, in the idle task
 * above all. If it ran once, the kernel's account has that wait; else it is lost, and said to be. The
 * account is short by what the run queue's clock stood still between a wakeup and the switch. */
static __always_inline void recover(bool direct, struct task_struct *task, const struct runq_start *start,
				    u32 ran)
{
	u64 wait = run_delay(direct, task) - start->run_delay;

	if (start->at == BEFORE)
		return;
	if (ran - start->arrivals != 1 || start->why >= WHYS) {
		count_losses(LOST_UNMATCHED, ran - start->arrivals);
	} else if (!cfg.slower_ns) {
		add_wait(direct, task, wait, start->why);
		count_loss(RECOVERED);
	} else if (wait >= cfg.slower_ns) { /* when, and after whom, nobody knows */
		count_loss(LOST_UNMATCHED);
	}
}

static __always_inline void start_wait(bool direct, struct task_struct *task, u32 tid, enum why why, u64 at)
{
	struct runq_start *start = find_start(direct, tid);
	u32 ran = arrivals(direct, task);

	if (!start)
		start = make_start(direct, tid);
	if (!start)
		return;
	if (start->at) {
		if (start->arrivals == ran) /* the first start stands */
			return;
		recover(direct, task, start, ran);
	}
	start->run_delay = run_delay(direct, task);
	start->arrivals = ran;
	start->why = why;
	start->at = at;
}

/* A task's last switch: it will not wait again, and cannot be waiting now. */
static __always_inline void end_task(bool direct, struct task_struct *task, u32 tid)
{
	struct runq_start *start = find_start(direct, tid);

	if (!start)
		return;
	if (start->at)
		recover(direct, task, start, arrivals(direct, task));
	drop_start(direct, start);
	if (!direct || overflowed)
		bpf_map_delete_elem(&start_hash, &tid);
}

static __always_inline void send_event(bool direct, struct task_struct *prev, struct task_struct *next,
				       u64 now, u64 wait, u32 why)
{
	struct runq_event event = {
		.at = now,
		.wait_ns = wait,
		.tgid = GET(direct, next, tgid),
		.tid = GET(direct, next, pid),
		.prev_tgid = GET(direct, prev, tgid),
		.cpu = bpf_get_smp_processor_id(),
		.why = why,
	};

	bpf_core_read(&event.comm, sizeof(event.comm), &next->comm);
	bpf_core_read(&event.prev_comm, sizeof(event.prev_comm), &prev->comm);
	ring_send(&event, sizeof(event), cfg.wake_bytes);
}

static __always_inline int on_wakeup(bool direct, struct task_struct *task)
{
	if (!running)
		return 0;
	/* Woken while it runs: it waits for nothing. If it is switched out later, that is the start. */
	if (task_running(direct, task) || !task_wanted(&cfg.filter, direct, task))
		return 0;
	start_wait(direct, task, GET(direct, task, pid), WHY_WAKEUP, bpf_ktime_get_ns());
	return 0;
}

static __always_inline int on_switch(bool direct, bool preempt, struct task_struct *prev,
				     struct task_struct *next)
{
	u32 prev_tid = GET(direct, prev, pid);
	u32 next_tid = GET(direct, next, pid);
	struct runq_start *start;
	u64 now = 0, wait;
	u32 why, ran;

	if (!running)
		return 0;
	if (prev_tid) { /* 0: idle */
		unsigned int state = task_state(direct, prev);

		if (preempt || !state) {
			if (task_wanted(&cfg.filter, direct, prev)) {
				now = bpf_ktime_get_ns();
				start_wait(direct, prev, prev_tid, WHY_PREEMPTED, now);
			}
		} else if (state & TASK_DEAD) {
			end_task(direct, prev, prev_tid);
		}
	}

	if (!next_tid || !ids_wanted(&cfg.filter, direct, next))
		return 0;
	start = find_start(direct, next_tid);
	if (!start || !start->at) {
		if (task_wanted(&cfg.filter, direct, next))
			count_loss(running == RUN_BEGINS ? BEGAN_BEFORE : LOST_UNMATCHED);
		return 0;
	}
	ran = arrivals(direct, next);
	if (ran != start->arrivals || start->at == BEFORE) {
		recover(direct, next, start, ran);
		count_loss(ran == start->arrivals ? BEGAN_BEFORE : LOST_UNMATCHED);
		drop_start(direct, start);
		return 0;
	}
	if (!now)
		now = bpf_ktime_get_ns();
	wait = now - start->at;
	why = start->why;
	drop_start(direct, start);
	if ((s64)wait < 0 || why >= WHYS) {
		count_loss(LOST_UNMATCHED);
		return 0;
	}
	if (!cfg.slower_ns)
		add_wait(direct, next, wait, why);
	else if (wait >= cfg.slower_ns)
		send_event(direct, prev, next, now, wait, why);
	return 0;
}

/* Over all tasks. When the run begins: which of them wait already. Just before its end: which of them have
 * run since their start, unseen. A switch that is seen takes the start away before the task's count of
 * switch-ins grows, so this may run beside the other programs. */
static __always_inline int on_sweep(bool direct, struct task_struct *task)
{
	struct runq_start *start;
	u32 ran;

	if (!task || !task->pid || !task_wanted(&cfg.filter, true, task))
		return 0;
	if (running == RUN_BEGINS) {
		if (task->on_rq && !task_running(true, task))
			start_wait(direct, task, task->pid, WHY_WAKEUP, BEFORE);
		return 0;
	}
	start = find_start(direct, task->pid);
	ran = arrivals(true, task);
	if (start && start->at > BEFORE && start->arrivals != ran) {
		count_losses(LOST_UNMATCHED, ran - start->arrivals);
		start->at = BEFORE;
	}
	return 0;
}

#endif
