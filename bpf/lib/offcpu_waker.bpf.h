/* SPDX-License-Identifier: GPL-2.0 */
/* Who woke a thread up: `current` when sched_waking fires. (sched_wakeup may come later, on another CPU, in
 * the context of anybody.) A thread that is woken by an interrupt has for its waker whom that interrupted.
 */
#ifndef TRACEBELT_OFFCPU_WAKER_H
#define TRACEBELT_OFFCPU_WAKER_H

#include "offcpu_switch.bpf.h"

/* May this wait, which has lasted for `ns` so far, be charged to its own stacks? */
static __always_inline bool may_count(const struct offcpu_pool *pool, u64 ns)
{
	if (ns >= cfg.quantum_ns || !pool->settled)
		return true;
	ns += pool->ns;
	return ns >= cfg.quantum_ns || (!pool->hit && ns > pool->point);
}

static __always_inline int on_waking(void *ctx, bool direct, struct task_struct *task)
{
	struct task_struct *waker = current_task(direct);
	struct scratch *scratch;
	struct offcpu_task *t;
	struct stack *record;
	enum kept kept;
	u64 user = STACK_NONE, kernel = STACK_NONE, hash;
	u32 tid, tgid;

	if (!running || !ids_wanted(&cfg.filter, direct, task))
		return 0;
	t = find_task(direct, task);
	if (!t || !t->at || t->what.waker || !may_count(&t->pool, bpf_ktime_get_ns() - t->left))
		return 0;
	scratch = scratch_of(false);
	if (!scratch)
		return 0;
	tid = GET(direct, waker, pid);
	tgid = GET(direct, waker, tgid);
	hash = stack_mix(0, (u64)tid << 32 | tgid);
	if (cfg.user_stacks && tid && GET(direct, waker, mm) && !(GET(direct, waker, flags) & PF_KTHREAD)) {
		walk_user(ctx, cfg.depth, scratch);
		user = scratch->user.hash;
		scratch->user.tgid = tgid;
		scratch->user.image = GET(direct, waker, self_exec_id);
		kept = user >= STACK_IDS ? stack_keep(&scratch->user, 0) : KEPT_BEFORE;
		if (kept == KEPT_NOW) {
			fill_top(&scratch->top_of, scratch, &scratch->user);
			send_top(&scratch->top_of, cfg.wake_bytes);
		}
		if (kept == KEPT_NOT)
			user = STACK_NOT_KEPT;
	}
	if (cfg.kernel_stacks) {
		walk_own_kernel(ctx, cfg.depth, scratch);
		kernel = scratch->kernel.hash;
		if (kernel >= STACK_IDS && stack_keep(&scratch->kernel, cfg.wake_bytes) == KEPT_NOT)
			kernel = STACK_NOT_KEPT;
	}
	record = &scratch->kernel;
	record->ip[0] = user;
	record->ip[1] = kernel;
	bpf_core_read(&record->ip[2], 16, &waker->comm);
	hash = stack_mix(stack_mix(stack_mix(hash, user), kernel), record->ip[2]);
	record->hash = stack_hashed(stack_mix(hash, record->ip[3]));
	record->record = RECORD_WAKER;
	record->tgid = tgid;
	record->tid = tid;
	record->frames = 4;
	t->what.waker = record->hash;
	if (stack_keep(record, cfg.wake_bytes) == KEPT_NOT)
		t->what.waker = STACK_NOT_KEPT;
	return 0;
}

#endif
