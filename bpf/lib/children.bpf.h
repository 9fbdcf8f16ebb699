/* SPDX-License-Identifier: GPL-2.0 */
/* `TOOL -- CMD`: the command's tgid is in filter_tgids, and so is every process it forks, from its
 * first instruction on. Loaded only for such a run: see common::filter::CHILDREN. */
#ifndef TRACEBELT_CHILDREN_H
#define TRACEBELT_CHILDREN_H

#include <vmlinux.h>
#include <bpf/bpf_tracing.h>

#include "filter.bpf.h"
#include "maps.bpf.h"

static __always_inline int on_fork(bool direct, struct task_struct *parent, struct task_struct *child)
{
	u32 parent_tgid = GET(direct, parent, tgid);
	u32 tgid = GET(direct, child, tgid);
	u8 yes = 1;

	if (tgid == parent_tgid || !bpf_map_lookup_elem(&filter_tgids, &parent_tgid))
		return 0;
	if (bpf_map_update_elem(&filter_tgids, &tgid, &yes, BPF_ANY))
		count_loss(LOST_MAP_FULL);
	return 0;
}

/* The leader is freed after all its threads: only then may another process get the number. */
static __always_inline int on_free(bool direct, struct task_struct *task)
{
	u32 tgid = GET(direct, task, tgid);

	if (tgid == (u32)GET(direct, task, pid))
		bpf_map_delete_elem(&filter_tgids, &tgid);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork_btf, struct task_struct *parent, struct task_struct *child)
{
	return on_fork(true, parent, child);
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(free_btf, struct task_struct *task)
{
	return on_free(true, task);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(fork_raw, struct task_struct *parent, struct task_struct *child)
{
	return on_fork(false, parent, child);
}

SEC("raw_tp/sched_process_free")
int BPF_PROG(free_raw, struct task_struct *task)
{
	return on_free(false, task);
}

#endif
