/* SPDX-License-Identifier: GPL-2.0 */
/* Which tasks wait, and since when.
 *
 * A table of small sets, found by thread id: one cache line a wait. A task's storage would be three, each
 * a miss on a busy machine, and 1,800 ns for a new thread. A set that is full, and kernels without
 * compare-and-exchange in BPF (before 5.12, 5ffa25502b5a), use a hash.
 */
#ifndef TRACEBELT_RUNQ_TASK_H
#define TRACEBELT_RUNQ_TASK_H

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "runq_hist.bpf.h"

struct runq_start {
	u64 at; /* 0: not waiting */
	u64 run_delay; /* the kernel's own account of the task's waits, at that time */
	u32 arrivals; /* how often the task had been switched in by then */
	u32 tid; /* in the table; 0: free */
	u32 why;
	u32 unused;
};

/* The start of a wait that was there before the run. */
#define BEFORE 1

#define WAYS 2
#define SETS 32768

struct runq_set {
	struct runq_start way[WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* for its alignment: a set is one cache line */
	__uint(max_entries, SETS);
	__type(key, u32);
	__type(value, struct runq_set);
} start_table SEC(".maps");

/* One entry for a thread's whole life, so that a wait costs look-ups only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, struct runq_start);
} start_hash SEC(".maps");

/* Was the hash ever needed although there is a table? */
u32 overflowed;

static __always_inline struct runq_start *find_start(bool table, u32 tid)
{
	u32 set_nr = tid % SETS;
	struct runq_set *set;
	int i;

	if (table) {
		set = bpf_map_lookup_elem(&start_table, &set_nr);
		if (!set)
			return NULL;
		for (i = 0; i < WAYS; i++)
			if (set->way[i].tid == tid)
				return &set->way[i];
		if (!overflowed)
			return NULL;
	}
	return bpf_map_lookup_elem(&start_hash, &tid);
}

/* A place for a task that has none. NULL: no room, which has been counted. */
static __always_inline struct runq_start *make_start(bool table, u32 tid)
{
	struct runq_start fresh = {};
	u32 set_nr = tid % SETS;
	struct runq_start *start;
	struct runq_set *set;
	int i;

	if (table) {
		set = bpf_map_lookup_elem(&start_table, &set_nr);
		for (i = 0; set && i < WAYS; i++) {
			start = &set->way[i];
			if (!start->tid && !__sync_val_compare_and_swap(&start->tid, 0, tid))
				return start;
		}
		overflowed = 1;
	}
	if (bpf_map_update_elem(&start_hash, &tid, &fresh, BPF_NOEXIST)) {
		count_loss(LOST_MAP_FULL);
		return NULL;
	}
	return bpf_map_lookup_elem(&start_hash, &tid);
}

/* The wait is over. In the table the place is free from here on: the last access to it. */
static __always_inline void drop_start(bool table, struct runq_start *start)
{
	start->at = 0;
#if defined(__TARGET_ARCH_x86)
	start->tid = 0;
#else
	/* What was read before must not be read after: another CPU may take the place at once. */
	if (table)
		__sync_val_compare_and_swap(&start->tid, start->tid, 0);
#endif
}

#endif
