/* SPDX-License-Identifier: GPL-2.0 */
/* Where waits are counted: by thread, stacks and state, in two sets of which user space empties one. */
#ifndef TRACEBELT_OFFCPU_COUNT_H
#define TRACEBELT_OFFCPU_COUNT_H

#include "calls.bpf.h"
#include "offcpu_task.bpf.h"
#include "unwind.bpf.h"

struct offcpu_key {
	u64 user;
	u64 kernel;
	u64 waker;
	u64 cgroup; /* 0: they are not kept apart */
	u32 tgid;
	u32 tid; /* as cgroup */
	u32 image;
	u8 state;
	u8 flags;
	u16 unused;
};

struct offcpu_cell {
	u64 ns;
	u64 count;
	u64 longest;
	u64 pooled; /* of ns: what was drawn for these stacks, and need not be their own */
	char comm[16];
};

struct cells {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct offcpu_key);
	__type(value, struct offcpu_cell);
} cells_a SEC(".maps"), cells_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct cells);
} cells_active SEC(".maps") = { .values = { &cells_a } };

/* The time of waits for which there was no cell: it is not lost, only whose it is. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct offcpu_cell);
} homeless SEC(".maps");

/* Cells ever made; user space empties a set long before it is full, and is woken each time as many. */
u64 cells_made;
#define CELLS_WAKE 8192

struct offcpu_key *_key __attribute__((unused));
struct offcpu_cell *_cell __attribute__((unused));
struct stack *_stack __attribute__((unused));

static __always_inline void wake_collector(void)
{
	struct {
		u64 hash;
		u32 record, words, tgid, image, end, tid;
	} record = { .record = RECORD_FULL };

	ring_try(&record, sizeof(record), 0);
}

static __always_inline void count_homeless(u64 ns, u32 count)
{
	u32 zero = 0;
	struct offcpu_cell *cell = bpf_map_lookup_elem(&homeless, &zero);

	if (!cell)
		return;
	cell->ns += ns;
	cell->count += count;
}

static __always_inline void grow_cell(struct offcpu_cell *cell, u64 ns, u32 count, u64 longest, u64 pooled)
{
	__sync_fetch_and_add(&cell->ns, ns);
	__sync_fetch_and_add(&cell->count, count);
	if (pooled)
		__sync_fetch_and_add(&cell->pooled, pooled);
	if (longest > cell->longest)
		cell->longest = longest;
}

/* Sees to it that user space has the stacks at hand: that in `t` and that in `scratch`. */
static __always_inline void keep_stacks(bool direct, struct task_struct *task, struct offcpu_task *t,
					struct scratch *scratch, bool sweep)
{
	struct offcpu_what *what = &t->what;
	enum kept kept;

	if (what->user >= STACK_IDS && what->user != t->kept_user && t->user.frames) {
		/* Woken at once: the process may end any moment, and its names with it. */
		kept = stack_keep(&t->user, 0);
		if (kept == KEPT_NOT) {
			what->user = STACK_NOT_KEPT;
		} else {
			t->kept_user = what->user;
			if (kept == KEPT_NOW)
				send_top(&t->top, cfg.wake_bytes);
		}
	}
	if (!direct || what->kernel < STACK_IDS || what->kernel == t->kept_kernel)
		return;
	kept = stack_keep(&scratch->kernel, cfg.wake_bytes);
	if (kept == KEPT_NOT) {
		what->kernel = STACK_NOT_KEPT;
		return;
	}
	t->kept_kernel = what->kernel;
	if (kept == KEPT_NOW)
		send_calls(task, scratch, sweep, cfg.wake_bytes);
}

static __always_inline void fill_key(bool direct, struct task_struct *task, struct offcpu_task *t,
				     const struct offcpu_what *what, u8 flags, struct offcpu_key *key)
{
	key->user = what->user;
	key->kernel = what->kernel;
	key->waker = what->waker;
	key->image = t->image;
	key->state = what->state;
	key->flags = what->flags | flags;
	key->tgid = GET(direct, task, tgid);
	if (cfg.by_thread)
		key->tid = GET(direct, task, pid);
	if (cfg.by_cgroup)
		key->cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

static __always_inline void add_cell(bool direct, struct task_struct *task, void *set,
				     const struct offcpu_key *key, u64 ns, u32 count, u64 longest, u64 pooled)
{
	struct offcpu_cell fresh = { .ns = ns, .count = count, .longest = longest, .pooled = pooled };
	struct offcpu_cell *cell;

	if (cfg.by_leader)
		task = GET(direct, task, group_leader);
	bpf_core_read(&fresh.comm, sizeof(fresh.comm), &task->comm);
	if (!bpf_map_update_elem(set, key, &fresh, BPF_NOEXIST)) {
		__sync_fetch_and_add(&cells_made, 1);
		if (cells_made % CELLS_WAKE == 0)
			wake_collector();
		return;
	}
	cell = bpf_map_lookup_elem(set, key); /* there by now, or the set is full */
	if (cell)
		grow_cell(cell, ns, count, longest, pooled);
	else
		count_homeless(ns, count);
}

/* A wait, or what is left of one, for its own stacks. Those are at hand, and user space may not have them. */
static __always_inline void count_own(bool direct, struct task_struct *task, struct offcpu_task *t,
				      struct scratch *scratch, bool sweep, u8 flags, u64 ns)
{
	struct offcpu_key key = {};
	struct offcpu_cell *cell;
	u32 zero = 0;
	void *set = bpf_map_lookup_elem(&cells_active, &zero);

	if (!set)
		return;
	fill_key(direct, task, t, &t->what, flags, &key);
	cell = bpf_map_lookup_elem(set, &key);
	if (cell) {
		grow_cell(cell, ns, 1, ns, 0);
		return;
	}
	keep_stacks(direct, task, t, scratch, sweep);
	key.user = t->what.user;
	key.kernel = t->what.kernel;
	add_cell(direct, task, set, &key, ns, 1, ns, 0);
}

/* Pooled waits, for the stacks that were drawn. */
static __always_inline void count_pooled(bool direct, struct task_struct *task, struct offcpu_task *t, u64 ns,
					 u32 count, u64 longest)
{
	struct offcpu_key key = {};
	struct offcpu_cell *cell;
	u32 zero = 0;
	void *set = bpf_map_lookup_elem(&cells_active, &zero);

	if (!set)
		return;
	fill_key(direct, task, t, &t->pool.what, 0, &key);
	cell = bpf_map_lookup_elem(set, &key);
	if (cell)
		grow_cell(cell, ns, count, longest, ns);
	else
		add_cell(direct, task, set, &key, ns, count, longest, ns);
}

#endif
