/* SPDX-License-Identifier: GPL-2.0 */
/* From switch-out to switch-in of the same thread.
 *
 * At switch-out the clock is read and the user stack is walked: only then is it current. At switch-in the
 * length of the wait is known, and the kernel stack is walked for those waits that need it.
 */
#ifndef TRACEBELT_OFFCPU_SWITCH_H
#define TRACEBELT_OFFCPU_SWITCH_H

#include "offcpu_count.bpf.h"
#include "offcpu_pool.bpf.h"

enum walk {
	WALK_NOT, /* it runs: what it waited for is not on its stack any more */
	WALK_NEXT,
	WALK_SWEEP,
};

static __always_inline bool length_wanted(u64 ns)
{
	return ns >= cfg.min_ns && ns <= cfg.max_ns;
}

/* A wait of `ns` is over, or a part of it that is to be counted now. `exact`: it is charged to its own
 * stacks, and not pooled. */
static __always_inline void end_wait(bool direct, struct task_struct *task, struct offcpu_task *t, u8 flags,
				     enum walk walk, bool exact, u64 ns)
{
	struct offcpu_pool *pool = &t->pool;
	struct scratch *scratch;

	if (!exact && !pool_wait(pool, ns))
		return;
	scratch = scratch_of(walk == WALK_SWEEP);
	if (!scratch)
		return;
	if (cfg.kernel_stacks && (exact || pool->before || pool->after)) {
		if (!direct) {
			/* It was walked when the task left. */
		} else if (walk == WALK_NOT) {
			t->what.kernel = STACK_UNSEEN;
		} else {
			walk_kernel(task, cfg.depth, scratch, walk == WALK_SWEEP);
			t->what.kernel = scratch->kernel.hash;
		}
	}
	if (exact) {
		count_own(direct, task, t, scratch, walk == WALK_SWEEP, flags, ns);
		return;
	}
	if (pool->before || pool->after)
		keep_stacks(direct, task, t, scratch, walk == WALK_SWEEP);
	if (pool->before)
		pool->what = t->what;
	if (pool->due_ns)
		count_pooled(direct, task, t, pool->due_ns, pool->due_count, pool->due_longest);
	if (pool->after)
		pool->what = t->what;
}

/* Takes the part of the wait that is not counted yet. Programs and the sweep may both be at it: `atomic` says
 * that the kernel knows atomic exchange (5.12, 5ffa25502b5a, "bpf: Add instructions for atomic_[cmp]xchg").
 * It is constant for a program, for older kernels refuse the instruction even where it is not reached; there
 * a wait that ends in the very nanoseconds in which it is looked at is counted twice. */
static __always_inline u64 claim(bool atomic, struct offcpu_task *t)
{
	u64 at = t->at;

	if (atomic)
		return __sync_lock_test_and_set(&t->at, 0);
	t->at = 0;
	return at;
}

static __always_inline u64 part(u64 from, u64 to)
{
	if (from < times.began)
		from = times.began;
	return to > from ? to - from : 0;
}

/* It waits, as far as we know, but has run since: its switch-in was not seen. Some hypervisors go on
 * executing kernel text from before the tracepoint was switched on, in the idle task above all. What it
 * did not run since then it waited. */
static __always_inline void recover(bool direct, bool atomic, struct task_struct *task, struct offcpu_task *t,
				    u64 now)
{
	u64 ran = GET(direct, task, se.sum_exec_runtime) - t->exec_ns;
	u32 times_run = arrivals(direct, task) - t->arrivals;
	u64 left = t->left, wait, from = claim(atomic, t);

	if (!from || running == RUN_BEGINS)
		return;
	wait = part(from, now);
	if (!wait) /* all of it has been counted */
		return;
	if (wait <= ran) {
		count_loss(LOST_UNMATCHED);
		return;
	}
	count_loss(RECOVERED);
	if (!length_wanted(now - left - ran))
		return;
	if (times_run != 1) { /* these were several waits: what for is not known */
		t->what.user = STACK_UNSEEN;
		t->what.kernel = STACK_UNSEEN;
	}
	end_wait(direct, task, t, 0, WALK_NOT, !cfg.quantum_ns || now - left - ran >= cfg.quantum_ns,
		 wait - ran);
}

static __always_inline void end_task(bool direct, struct task_struct *task, struct offcpu_task *t)
{
	struct offcpu_pool *pool = &t->pool;

	if (pool->ns)
		count_pooled(direct, task, t, pool->ns, pool->count, pool->longest);
	pool->ns = 0;
	pool->count = 0;
}

/* The stack that was walked into scratch memory stays with the thread, if user space has not got it yet. */
static __always_inline void take_user(bool direct, struct task_struct *task, struct offcpu_task *t,
				      const struct scratch *scratch)
{
	const struct stack *from = &scratch->user;
	u32 size = from->frames * 8;

	if (t->kept_when != times.forgot) {
		t->kept_when = times.forgot;
		t->kept_user = t->kept_kernel = STACK_NONE;
	}
	t->what.user = from->hash;
	if (from->hash == t->kept_user || size > sizeof(from->ip))
		return;
	bpf_probe_read_kernel(t->user.ip, size, from->ip);
	t->user.hash = from->hash;
	t->user.frames = from->frames;
	t->user.end = from->end;
	t->user.tgid = GET(direct, task, tgid);
	t->user.image = t->image;
	fill_top(&t->top, scratch, &t->user);
}

static __always_inline void leave(void *ctx, bool direct, bool preempt, struct task_struct *prev, u64 now)
{
	unsigned int state = task_state(direct, prev);
	struct offcpu_task *t;
	struct scratch *scratch;
	bool wanted;
	u64 mm;

	preempt |= !state;
	wanted = preempt ? cfg.preempted : state_wanted(state_letter(state));
	if (state & TASK_DEAD)
		wanted = false;
	t = find_task(direct, prev);
	if (t && t->at)
		recover(direct, direct, prev, t, now);
	if (!wanted || running == RUN_ENDS) {
		if (t && state & TASK_DEAD) {
			end_task(direct, prev, t);
			forget_task(direct, prev);
		}
		return;
	}
	if (!t)
		t = make_task(direct, prev);
	scratch = scratch_of(false);
	if (!t || !scratch)
		return;
	t->what.state = preempt ? 'R' : state_letter(state);
	t->what.flags = preempt ? FLAG_PREEMPTED : 0;
	t->what.waker = 0;
	t->what.user = STACK_NONE;
	t->user.frames = 0;
	t->arrivals = arrivals(direct, prev);
	t->exec_ns = GET(direct, prev, se.sum_exec_runtime);
	mm = (u64)GET(direct, prev, mm);
	if (mm && !(GET(direct, prev, flags) & PF_KTHREAD)) {
		if (t->mm != mm)
			note_image(direct, prev, t, mm);
		if (cfg.user_stacks) {
			walk_user(ctx, cfg.depth, scratch);
			take_user(direct, prev, t, scratch);
		}
	}
	if (!direct && cfg.kernel_stacks) {
		walk_own_kernel(ctx, cfg.depth, scratch);
		t->what.kernel = scratch->kernel.hash;
		if (stack_keep(&scratch->kernel, cfg.wake_bytes) == KEPT_NOT)
			t->what.kernel = STACK_NOT_KEPT;
	}
	t->left = now;
	t->at = now;
}

static __always_inline void arrive(bool direct, struct task_struct *next, u64 now)
{
	struct offcpu_task *t = find_task(direct, next);
	u64 from, whole;

	if (!t || !t->at) /* it was preempted, in a state not asked for, or is new */
		return;
	if (arrivals(direct, next) != t->arrivals) {
		recover(direct, direct, next, t, now);
		return;
	}
	whole = now - t->left;
	from = claim(direct, t);
	if (!from || running == RUN_BEGINS || !length_wanted(whole))
		return;
	end_wait(direct, next, t, 0, WALK_NEXT, !cfg.quantum_ns || whole >= cfg.quantum_ns, part(from, now));
}

static __always_inline int on_switch(void *ctx, bool direct, bool preempt, struct task_struct *prev,
				     struct task_struct *next)
{
	u64 now;
	bool prev_wanted, next_wanted;

	if (!running)
		return 0;
	/* 0: idle */
	prev_wanted = GET(direct, prev, pid) && task_wanted(&cfg.filter, direct, prev) &&
		      kind_wanted(direct, prev) && !at_the_gate(direct, prev);
	next_wanted = GET(direct, next, pid) && ids_wanted(&cfg.filter, direct, next);
	if (!prev_wanted && !next_wanted)
		return 0;
	now = bpf_ktime_get_ns();
	if (running == RUN_ENDS && now > times.until)
		now = times.until;
	if (prev_wanted)
		leave(ctx, direct, preempt, prev, now);
	if (next_wanted)
		arrive(direct, next, now);
	return 0;
}

#endif
