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

/* What a wait has brought about. */
struct offcpu_draw {
	bool before; /* it is the one to charge, for the piece that it began in */
	bool after; /* and for the piece that it ended in, if that is another */
	u64 due_ns; /* the piece that is complete by now */
	u64 longest;
	u32 due_count;
};

static __always_inline void take_due(struct offcpu_pool *pool, u64 ns, struct offcpu_draw *draw)
{
	draw->due_ns = ns;
	draw->due_count = pool->count;
	draw->longest = pool->longest;
	pool->ns -= ns;
	pool->count = 0;
	pool->longest = 0;
}

static __always_inline void pool_wait(struct offcpu_pool *pool, u64 ns, struct offcpu_draw *draw)
{
	pool->ns += ns;
	pool->count++;
	if (ns > pool->longest)
		pool->longest = ns;
	if (!pool->settled) {
		draw->before = ((u64)bpf_get_prandom_u32() * pool->ns >> 32) < ns;
		if (pool->ns < cfg.quantum_ns)
			return;
		take_due(pool, pool->ns, draw);
		pool->settled = true;
	} else {
		draw->before = !pool->hit && pool->ns > pool->point;
		if (draw->before)
			pool->hit = true;
		if (pool->ns < cfg.quantum_ns)
			return;
		take_due(pool, cfg.quantum_ns, draw);
	}
	/* ns is less than a quantum, so there is one piece begun, at most. */
	pool->point = (u64)bpf_get_prandom_u32() * cfg.quantum_ns >> 32;
	pool->hit = draw->after = pool->ns > pool->point;
}

#endif
