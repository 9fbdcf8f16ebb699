/* SPDX-License-Identifier: GPL-2.0 */
/* Waits shorter than a quantum, thread by thread: their time is exact, and shared out by lot.
 *
 * They are laid end to end, and the line is cut into pieces of one quantum. A whole piece is charged to
 * the wait in which one point of it lies, drawn at random. So each wait is charged its own length on
 * average, whatever its neighbours are: a point at a fixed distance would always meet the same one of two
 * that alternate. Only the wait that a point meets needs its kernel stack.
 *
 * A thread's first piece is drawn for as it comes: each new wait takes the charge over with the
 * probability that its length is of the whole so far. There may never be a second piece, and from then on
 * there is always somebody to charge the rest to that is left when the run, or the thread, ends.
 */
#ifndef TRACEBELT_OFFCPU_POOL_H
#define TRACEBELT_OFFCPU_POOL_H

#include "offcpu_task.bpf.h"

static __always_inline void take_due(struct offcpu_pool *pool, u64 ns)
{
	pool->due_ns = ns;
	pool->due_count = pool->count;
	pool->due_longest = pool->longest;
	pool->ns -= ns;
	pool->count = 0;
	pool->longest = 0;
}

/* True: there is something to do, as `before`, `after` and `due_ns` say. */
static __always_inline bool pool_wait(struct offcpu_pool *pool, u64 ns)
{
	bool full;

	pool->ns += ns;
	pool->count++;
	if (ns > pool->longest)
		pool->longest = ns;
	full = pool->ns >= cfg.quantum_ns;
	pool->after = false;
	pool->due_ns = 0;
	if (!pool->settled)
		pool->before = ((u64)bpf_get_prandom_u32() * pool->ns >> 32) < ns;
	else
		pool->before = !pool->hit && pool->ns > pool->point;
	if (!full) {
		pool->hit |= pool->before;
		return pool->before;
	}
	take_due(pool, pool->settled ? cfg.quantum_ns : pool->ns);
	pool->settled = true;
	/* ns is less than a quantum, so there is one piece begun, at most. */
	pool->point = (u64)bpf_get_prandom_u32() * cfg.quantum_ns >> 32;
	pool->after = pool->ns > pool->point;
	pool->hit = pool->after;
	if (pool->after && pool->due_count > 1) { /* it is counted where it is charged */
		pool->due_count--;
		pool->count = 1;
		pool->longest = ns;
	}
	return true;
}

#endif
