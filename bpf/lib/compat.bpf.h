/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between kernels: one function each, the commit that made the difference beside it.
 * The suffix of a flavour (struct x___pre_v5_14) says which kernels have that shape; libbpf drops it.
 */
#ifndef TRACEBELT_COMPAT_H
#define TRACEBELT_COMPAT_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* A field of a kernel struct. In tp_btf programs the verifier knows the type and a plain load does;
 * in raw_tp programs the pointer is a number and a helper has to read. `direct` is a constant of the
 * entry point, so one of the two is compiled away. */
#define GET(direct, ptr, field) ((direct) ? (ptr)->field : BPF_CORE_READ(ptr, field))

/* include/linux/sched.h: TASK_DEAD, set for good by do_task_dead() before its last switch. */
#define TASK_DEAD 0x80

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct___pre_v5_14 {
	volatile long state;
};
struct task_struct___since_v5_14 {
	unsigned int __state;
};
struct sched_entity___since_v6_12 {
	unsigned char sched_delayed;
};
struct delayed_filename {
	struct filename *__incomplete_filename;
};
struct io_open___delayed {
	struct delayed_filename filename;
};
struct cgroup___pre_v6_1 {
	u64 ancestor_ids[1];
};
struct cgroup___since_v6_1 {
	struct cgroup *ancestors[1];
};
#pragma clang attribute pop

/* 5.14, 2f064a59a11f ("sched: Change task_struct::state"): state became __state.
 *
 * Read live on purpose, not taken from sched_switch's fourth argument (5.18, fa2c3254d7cf): when
 * __schedule() finds a signal pending it makes the task runnable again, and before 6.14 the argument
 * still carried the sleeping state. A wakeup on another CPU cannot turn the live state into
 * TASK_RUNNING before the switch is done: it waits for on_cpu to drop. */
static __always_inline unsigned int task_state(bool direct, struct task_struct *task)
{
	struct task_struct___since_v5_14 *since = (void *)task;
	struct task_struct___pre_v5_14 *pre = (void *)task;

	if (bpf_core_field_exists(since->__state))
		return GET(direct, since, __state);
	return GET(direct, pre, state);
}

/* Whoever called. A typed pointer came with 5.11, 3ca1032ab7ab ("bpf: Implement get_current_task_btf and
 * RET_PTR_TO_BTF_ID"): a tp_btf program that uses this is asked for only where the helper exists. */
static __always_inline struct task_struct *current_task(bool direct)
{
	return direct ? bpf_get_current_task_btf() : (struct task_struct *)bpf_get_current_task();
}

static __always_inline u32 parent_tgid(bool direct, struct task_struct *task)
{
	return direct ? task->real_parent->tgid : BPF_CORE_READ(task, real_parent, tgid);
}

/* 5.17, e6f2dd0f8067 ("bpf: Add bpf_loop helper"). */
static __always_inline bool has_loop(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop);
}

/* 5.15, dd6e10fbd9fb ("bpf: Add bpf_task_pt_regs() helper"). */
static __always_inline bool has_task_pt_regs(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs);
}

/* Size with the NUL, or a negative error. Before 6.16 ("maccess: fix strncpy_from_user_nofault() empty string
 * handling") the kernel returned 0 for an empty string, whose size is 1. */
static __always_inline long read_user_string(char *to, u32 room, const void *from)
{
	long size = bpf_probe_read_user_str(to, room, from);

	return size == 0 ? 1 : size;
}

/* on_cpu exists only where CONFIG_SMP does; on one CPU the running task is current. By 7.2 it is a u8, with
 * others beside it: read in its own size. */
static __always_inline bool task_running(bool direct, struct task_struct *task)
{
	if (bpf_core_field_exists(task->on_cpu))
		return direct ? task->on_cpu : BPF_CORE_READ_BITFIELD_PROBED(task, on_cpu);
	return bpf_get_current_task() == (u64)task;
}

/* Could it go on if it had a CPU? The state alone does not tell: it is set a while before the task leaves.
 * 6.12, 152e11f6df29 ("sched/fair: Implement delayed dequeue"): some that sleep stay on the run queue. */
static __always_inline bool task_runnable(bool direct, struct task_struct *task)
{
	struct sched_entity___since_v6_12 *se = (void *)&task->se;

	if (!task_state(direct, task))
		return true;
	if (!GET(direct, task, on_rq))
		return false;
	if (bpf_core_field_exists(se->sched_delayed))
		return !BPF_CORE_READ(se, sched_delayed);
	return true;
}

/* How often a task has been switched in, and how long it waited for that in all: /proc/PID/schedstat. Only
 * with CONFIG_SCHED_INFO, which distributions have set; without it both stay 0. */
static __always_inline u32 arrivals(bool direct, struct task_struct *task)
{
	return bpf_core_field_exists(task->sched_info) ? GET(direct, task, sched_info.pcount) : 0;
}

static __always_inline u64 run_delay(bool direct, struct task_struct *task)
{
	return bpf_core_field_exists(task->sched_info) ? GET(direct, task, sched_info.run_delay) : 0;
}

/* The name that an io_uring open was submitted with. Kernels with delayed_filename wrap the pointer. */
static __always_inline struct filename *io_open_filename(struct io_open *open)
{
	struct io_open___delayed *delayed = (void *)open;

	if (bpf_core_type_exists(struct delayed_filename))
		return BPF_CORE_READ(delayed, filename.__incomplete_filename);
	return BPF_CORE_READ(open, filename);
}

/* 6.1, 7f203bc89eb6 ("cgroup: Replace cgroup->ancestor_ids[] with ->ancestors[]"). */
static __always_inline u64 cgroup_ancestor_id(struct cgroup *cgroup, u32 level)
{
	struct cgroup___since_v6_1 *since = (void *)cgroup;
	struct cgroup___pre_v6_1 *pre = (void *)cgroup;
	struct cgroup *ancestor = NULL;
	u64 id = 0;

	if (bpf_core_field_exists(since->ancestors)) {
		bpf_core_read(&ancestor, sizeof(ancestor), &since->ancestors[level]);
		return BPF_CORE_READ(ancestor, kn, id);
	}
	bpf_core_read(&id, sizeof(id), &pre->ancestor_ids[level]);
	return id;
}

#endif
