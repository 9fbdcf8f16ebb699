/* SPDX-License-Identifier: GPL-2.0 */
/* Over all tasks: which of them waited before the run began, and which wait still when it ends. These are
 * the ones that hang. */
#ifndef TRACEBELT_OFFCPU_SWEEP_H
#define TRACEBELT_OFFCPU_SWEEP_H

#include "offcpu_switch.bpf.h"

/* Other programs cannot: they send the registers, and user space reads the memory. */
static __always_inline u64 send_regs(struct task_struct *task, struct user_regs *regs, struct stack *stack)
{
	stack->ip[0] = regs->ip;
	stack->ip[1] = regs->sp;
	stack->ip[2] = regs->fp;
	stack->frames = 3;
	stack->tid = task->pid;
	stack->record = RECORD_REGS;
	stack->hash = stack_hashed(stack_mix(stack_mix(stack_mix(task->pid, regs->ip), regs->sp), regs->fp));
	return stack_keep(stack, cfg.wake_bytes) == KEPT_NOT ? STACK_NOT_KEPT : stack->hash;
}

/* The user stack of a task that sleeps: a program that may sleep can read its memory. Returns what to count
 * it under. */
static __always_inline u64 user_stack_of(struct task_struct *task, struct scratch *scratch, bool sleepable)
{
	struct stack *stack = &scratch->user;
	struct user_regs regs = {};
	enum kept kept;

	user_regs(task, &regs);
	if (!regs.is_64bit)
		return STACK_UNSEEN;
	if (!regs.ip)
		return STACK_NONE;
	stack->tgid = task->tgid;
	stack->image = task->self_exec_id;
	if (!sleepable)
		return send_regs(task, &regs, stack);
	walk_frames(task, &regs, cfg.depth, scratch);
	stack->record = RECORD_USER;
	kept = stack_keep(stack, cfg.wake_bytes);
	if (kept == KEPT_NOW) {
		fill_top(&scratch->top_of, scratch, stack);
		send_top(&scratch->top_of, cfg.wake_bytes);
	}
	return kept == KEPT_NOT ? STACK_NOT_KEPT : stack->hash;
}

/* What the task is in the kernel for. Where that is walked when a thread leaves, this one has not been. */
static __always_inline u64 kernel_stack_of(struct task_struct *task, struct scratch *scratch)
{
	struct stack *stack = &scratch->kernel;
	enum kept kept;

	if (!cfg.kernel_stacks || !cfg.kernel_at_leave)
		return STACK_NONE;
	walk_kernel(task, cfg.depth, scratch, true);
	if (stack->hash < STACK_IDS)
		return stack->hash;
	kept = stack_keep(stack, cfg.wake_bytes);
	if (kept == KEPT_NOW)
		send_calls(task, scratch, true, cfg.wake_bytes);
	return kept == KEPT_NOT ? STACK_NOT_KEPT : stack->hash;
}

/* When the run begins. */
static __always_inline int sweep_begin(struct task_struct *task, bool sleepable)
{
	bool runnable = task_runnable(true, task);
	u64 mm = (u64)task->mm, user = STACK_NONE, kernel, ran = task->se.sum_exec_runtime;
	u32 arrived = arrivals(true, task), state = task_state(true, task);
	struct scratch *scratch = scratch_of(true);
	struct offcpu_task *t;

	if (!scratch || task_running(true, task) || state & TASK_DEAD)
		return 0;
	if (runnable ? !cfg.preempted : !state_wanted(state_letter(state)))
		return 0;
	if (!task_wanted(&cfg.filter, true, task) || !kind_wanted(true, task) || at_the_gate(true, task))
		return 0;
	if (task->flags & PF_KTHREAD)
		mm = 0;
	if (mm && cfg.user_stacks)
		user = user_stack_of(task, scratch, sleepable);
	kernel = kernel_stack_of(task, scratch);
	t = make_task(true, task);
	if (!t || t->at || arrivals(true, task) != arrived || task_running(true, task))
		return 0; /* it has been seen leaving, or has gone on meanwhile */
	t->arrivals = arrived;
	t->exec_ns = ran;
	t->what.state = runnable ? 'R' : state_letter(state);
	t->what.flags = runnable ? FLAG_PREEMPTED : 0;
	t->what.waker = 0;
	t->what.user = user;
	t->what.kernel = kernel;
	t->user.frames = 0; /* it has been sent */
	if (mm)
		note_image(true, task, t, mm);
	t->left = bpf_ktime_get_ns();
	t->at = t->left;
	return 0;
}

/* Takes what a wait has lasted up to the end of this part of the run; the rest is for the next. 0: it is
 * over, or its switch-in is being dealt with this very moment. */
static __always_inline u64 claim_until(bool atomic, struct offcpu_task *t)
{
	u64 at = t->at;

	if (!at || at >= times.until)
		return 0;
	if (atomic)
		return __sync_val_compare_and_swap(&t->at, at, times.until) == at ? at : 0;
	t->at = times.until;
	return at;
}

/* When a part of the run ends, and again when it is all over: then no other program is at work. */
static __always_inline int sweep_end(struct task_struct *task, bool atomic)
{
	struct offcpu_task *t = find_task(true, task);
	u64 from, whole;

	if (!t)
		return 0;
	if (arrivals(true, task) != t->arrivals) {
		if (!running && t->at)
			recover(true, atomic, task, t, times.until);
	} else {
		whole = times.until - t->left;
		from = claim_until(atomic, t);
		if (from && length_wanted(whole))
			end_wait(true, task, t, FLAG_STILL, WALK_SWEEP, true, part(from, times.until));
	}
	if (!running)
		end_task(true, task, t);
	return 0;
}

static __always_inline int on_sweep(struct task_struct *task, bool sleepable, bool atomic)
{
	if (!task || !task->pid)
		return 0;
	if (running == RUN_BEGINS)
		return sweep_begin(task, sleepable);
	return sweep_end(task, atomic);
}

#endif
