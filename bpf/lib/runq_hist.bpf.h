/* SPDX-License-Identifier: GPL-2.0 */
/* Where runqlat counts: its settings, and two sets of histograms. */
#ifndef TRACEBELT_RUNQ_HIST_H
#define TRACEBELT_RUNQ_HIST_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "compat.bpf.h"
#include "filter.bpf.h"
#include "hist.bpf.h"
#include "maps.bpf.h"

enum why {
	WHY_WAKEUP,
	WHY_PREEMPTED,
	WHYS,
};

/* What one histogram is kept for. */
enum by {
	BY_NOTHING, /* also by CPU and by why: the per-CPU arrays hold those apart */
	BY_TGID,
	BY_TID,
	BY_PIDNS,
	BY_CGROUP,
};

const volatile struct {
	struct filter filter;
	u64 unit_ns;
	u64 slower_ns; /* not 0: an event for each wait of at least this, and no histogram */
	u64 wake_bytes;
	u32 by; /* enum by */
} cfg = { .unit_ns = NSEC_PER_USEC };

/* Two sets of histograms. The programs write to the one in `active`; user space puts one there before the
 * run, and later the other,
 * which returns when no program uses the first any more, and then reads and empties that one at leisure. */
struct dense {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WHYS);
	__type(key, u32);
	__type(value, struct hist);
} dense_a SEC(".maps"), dense_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct dense);
} dense_active SEC(".maps");

/* Per process, thread, ...: thousands of histograms of a few slots each, so slot by slot. */
struct runq_key {
	u64 id;
	u32 slot;
	u32 why;
};

struct runq_cell {
	u64 count;
	u64 sum;
	u64 min;
	u64 max;
	char comm[16];
};

struct sparse {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct runq_key);
	__type(value, struct runq_cell);
} sparse_a SEC(".maps"), sparse_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct sparse);
} sparse_active SEC(".maps");

/* Cells ever made: tells user space when to empty a set before it is full. */
u64 cells_made;

struct runq_key *_key __attribute__((unused));
struct runq_cell *_cell __attribute__((unused));

static __always_inline u64 key_id(bool direct, struct task_struct *task)
{
	struct pid *pid;
	unsigned int level;
	struct upid upid = {};

	switch (cfg.by) {
	case BY_TGID:
		return (u32)GET(direct, task, tgid);
	case BY_TID:
		return (u32)GET(direct, task, pid);
	case BY_CGROUP:
		return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	default: /* BY_PIDNS: the task's own, not the one its children will get (nsproxy) */
		pid = GET(direct, task, thread_pid);
		level = BPF_CORE_READ(pid, level);
		bpf_core_read(&upid, sizeof(upid), &pid->numbers[level]);
		return BPF_CORE_READ(upid.ns, ns.inum);
	}
}

static __always_inline void add_dense(u64 wait, u32 why)
{
	u32 zero = 0;
	void *set = bpf_map_lookup_elem(&dense_active, &zero);
	struct hist *hist;

	if (!set)
		return;
	hist = bpf_map_lookup_elem(set, &why);
	if (hist)
		hist_add(hist, wait, cfg.unit_ns);
}

/* Count and sum are atomic. min and max may lose to another CPU that writes the very same cell in the same
 * instant, which only threads of one process can; the loss is bounded by the cell's width, 6.25%. */
static __always_inline void add_sparse(bool direct, struct task_struct *task, u64 wait, u32 why)
{
	struct runq_key key = { .slot = hist_slot(hist_scale(wait, cfg.unit_ns)), .why = why };
	struct runq_cell fresh = { .count = 1, .sum = wait, .min = wait, .max = wait };
	struct runq_cell *cell;
	u32 zero = 0;
	void *set = bpf_map_lookup_elem(&sparse_active, &zero);

	if (!set)
		return;
	key.id = key_id(direct, task);
	cell = bpf_map_lookup_elem(set, &key);
	if (!cell) {
		struct task_struct *named = cfg.by == BY_TGID ? GET(direct, task, group_leader) : task;

		bpf_core_read(&fresh.comm, sizeof(fresh.comm), &named->comm);
		if (!bpf_map_update_elem(set, &key, &fresh, BPF_NOEXIST)) {
			__sync_fetch_and_add(&cells_made, 1);
			return;
		}
		cell = bpf_map_lookup_elem(set, &key); /* another CPU was first, or the map is full */
		if (!cell) {
			count_loss(LOST_MAP_FULL);
			return;
		}
	}
	__sync_fetch_and_add(&cell->count, 1);
	__sync_fetch_and_add(&cell->sum, wait);
	if (wait < cell->min)
		cell->min = wait;
	if (wait > cell->max)
		cell->max = wait;
}

static __always_inline void add_wait(bool direct, struct task_struct *task, u64 wait, u32 why)
{
	if (cfg.by)
		add_sparse(direct, task, wait, why);
	else
		add_dense(wait, why);
}

#endif
