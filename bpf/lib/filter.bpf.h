/* SPDX-License-Identifier: GPL-2.0 */
/* "Is this task wanted": by process, thread, name and cgroup. Asked of the task that the event is
 * about, never of whoever happens to be current. All of it is constant during a run, so the verifier
 * removes what is not in use. common/src/filter.rs fills it in. */
#ifndef TRACEBELT_FILTER_H
#define TRACEBELT_FILTER_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "compat.bpf.h"

struct filter {
	u32 self; /* tgid of the tool: it never reports itself */
	u32 tgid; /* the one process wanted; 0: see tgids */
	u32 tid;
	u8 by_tgids; /* look into filter_tgids */
	u8 by_tids;
	u8 by_cgroup; /* enum by_cgroup */
	u8 comm_len;
	/* The text to find in comm, and ones where it counts, as two little words each. */
	u64 comm_text[2];
	u64 comm_mask[2];
};

enum by_cgroup {
	CGROUP_ANY,
	CGROUP_UNDER, /* in one of filter_cgroups or below it */
	CGROUP_EXACT, /* in one of those in filter_pinned itself */
};

/* Deeper than anyone nests; the kernel's own limit is cgroup.max.depth. */
#define MAX_CGROUP_DEPTH 32

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, u8);
} filter_tgids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, u8);
} filter_tids SEC(".maps");

struct cgroup_ids {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u64);
} filter_cgroups SEC(".maps");

/* Holds the user's map, which he may change while we run. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct cgroup_ids);
} filter_pinned SEC(".maps");

/* Does comm contain the text? Sixteen shifted comparisons without an inner loop. */
static __always_inline bool comm_wanted(const volatile struct filter *f, const char *comm)
{
	u64 low, high;
	int i;

	__builtin_memcpy(&low, comm, 8);
	__builtin_memcpy(&high, comm + 8, 8);
	for (i = 0; i < 16; i++) {
		if (((low ^ f->comm_text[0]) & f->comm_mask[0]) == 0 &&
		    ((high ^ f->comm_text[1]) & f->comm_mask[1]) == 0)
			return true;
		low = low >> 8 | high << 56;
		high >>= 8;
	}
	return false;
}

/* In one of filter_cgroups or below it. */
static __always_inline bool cgroup_under(struct cgroup *cgroup)
{
	int depth = BPF_CORE_READ(cgroup, level);
	u64 id;
	int level;

	for (level = 0; level < MAX_CGROUP_DEPTH; level++) {
		if (level > depth)
			break;
		id = cgroup_ancestor_id(cgroup, level);
		if (bpf_map_lookup_elem(&filter_cgroups, &id))
			return true;
	}
	return false;
}

static __always_inline bool cgroup_wanted(const volatile struct filter *f, struct task_struct *task)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	u64 id;

	if (f->by_cgroup == CGROUP_EXACT) {
		u32 only = 0;
		void *pinned = bpf_map_lookup_elem(&filter_pinned, &only);

		id = BPF_CORE_READ(cgroup, kn, id);
		return pinned && bpf_map_lookup_elem(pinned, &id);
	}
	return cgroup_under(cgroup);
}

/* The part that costs next to nothing and never changes for a task. */
static __always_inline bool ids_wanted(const volatile struct filter *f, bool direct, struct task_struct *task)
{
	u32 tgid = GET(direct, task, tgid);
	u32 tid;

	if (tgid == f->self)
		return false;
	if (f->tgid && tgid != f->tgid)
		return false;
	if (f->by_tgids && !bpf_map_lookup_elem(&filter_tgids, &tgid))
		return false;
	if (!f->tid && !f->by_tids)
		return true;
	tid = GET(direct, task, pid);
	if (f->tid && tid != f->tid)
		return false;
	return !f->by_tids || bpf_map_lookup_elem(&filter_tids, &tid);
}

static __always_inline bool task_wanted(const volatile struct filter *f, bool direct,
					struct task_struct *task)
{
	if (!ids_wanted(f, direct, task))
		return false;
	if (f->comm_len) {
		char comm[16] = {};

		/* To its NUL: behind it an earlier, longer name may still stand. */
		bpf_core_read_str(&comm, sizeof(comm), &task->comm);
		if (!comm_wanted(f, comm))
			return false;
	}
	return !f->by_cgroup || cgroup_wanted(f, task);
}

#endif
