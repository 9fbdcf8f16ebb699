/* SPDX-License-Identifier: GPL-2.0 */
/* What is known of each thread: when and how it left its CPU, and its short waits so far.
 *
 * A thread's user stack stays here, in full, from its leaving until its wait is known to count: so the
 * stacks of waits that do not are sent to nobody, and a thread that never comes back still has its own.
 */
#ifndef TRACEBELT_OFFCPU_TASK_H
#define TRACEBELT_OFFCPU_TASK_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "compat.bpf.h"
#include "filter.bpf.h"
#include "unwind.bpf.h"

const volatile struct {
	struct filter filter;
	u64 min_ns; /* waits shorter or longer than these do not count */
	u64 max_ns;
	u64 quantum_ns; /* shorter waits are pooled; 0: none are */
	u64 wake_bytes;
	u32 depth; /* frames of a stack at most */
	u32 states; /* bits of the states that count; see state_wanted() */
	u8 threads; /* enum threads */
	u8 user_stacks;
	u8 kernel_stacks;
	u8 preempted; /* waits of runnable threads count, too */
	u8 by_thread; /* threads are kept apart */
	u8 by_cgroup;
	u8 by_leader; /* a process has the name of its first thread */
	u8 kernel_at_leave; /* the kernel stack is walked when a thread leaves: raw_tp */
	u8 storage; /* start_storage is there, and not start_hash */
	u32 command; /* tgid of the command that the tool runs; 0: none */
} cfg = { .depth = MAX_FRAMES };

/* User space writes it. */
struct {
	u64 began; /* when the run began */
	u64 until; /* when the part of it ended that is being collected */
	u64 forgot; /* how often user space has forgotten stacks */
} times SEC(".data.times");

enum threads {
	THREADS_ALL,
	THREADS_USER,
	THREADS_KERNEL,
};

/* What a thread waits for. */
struct offcpu_what {
	u64 user; /* hash of the stack, or enum stack_id */
	u64 kernel;
	u64 waker;
	u8 state; /* as ps shows it */
	u8 flags; /* enum flags */
	u8 unused[6];
};

enum flags {
	FLAG_PREEMPTED = 1, /* it could have gone on */
	FLAG_STILL = 2, /* it has not come back */
};

/* Waits shorter than the quantum: see offcpu_pool.bpf.h. */
struct offcpu_pool {
	u64 ns; /* those not charged yet */
	u64 longest;
	u32 count;
	u32 point;
	u8 settled;
	u8 hit;
	/* What the last wait has brought about. */
	u8 before; /* it is the one to charge, for the piece that it began in */
	u8 after; /* and for the piece that it ended in, if that is another */
	u32 due_count;
	u64 due_ns; /* a piece that it has completed */
	u64 due_longest;
	struct offcpu_what what; /* to charge */
};

/* Also where what the verifier need not know is kept between two steps: it would go through all that follows
 * once for each state letter, flag and outcome of a draw that it saw being set. */
struct offcpu_task {
	u64 at; /* from when on its wait has not been counted; 0: it does not wait */
	u64 left; /* when it left its CPU, or when the run began, whichever is later */
	u64 exec_ns; /* its time on CPUs by then */
	u64 mm; /* as address only */
	u32 arrivals; /* how often it had been given a CPU */
	u32 image;
	struct offcpu_what what;
	u64 kept_user, kept_kernel; /* stacks that user space has got, unless it has forgotten some since */
	u64 kept_when;
	struct offcpu_pool pool;
	struct stack user;
	struct stack_top top;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct offcpu_task);
} start_storage SEC(".maps");

/* By thread id, where storage is not to be had. Made before the run, so its size is set then. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct offcpu_task);
} start_hash SEC(".maps");

/* Which program each process runs, as far as user space has been told. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, u32);
} told_images SEC(".maps");

static const struct offcpu_task fresh_task;

static __always_inline struct offcpu_task *find_task(bool direct, struct task_struct *task)
{
	u32 tid;

	if (direct && cfg.storage)
		return bpf_task_storage_get(&start_storage, task, NULL, 0);
	tid = GET(direct, task, pid);
	return bpf_map_lookup_elem(&start_hash, &tid);
}

static __always_inline struct offcpu_task *make_task(bool direct, struct task_struct *task)
{
	struct offcpu_task *t;
	u32 tid;

	if (direct && cfg.storage) {
		t = bpf_task_storage_get(&start_storage, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	} else {
		tid = GET(direct, task, pid);
		bpf_map_update_elem(&start_hash, &tid, &fresh_task, BPF_NOEXIST);
		t = bpf_map_lookup_elem(&start_hash, &tid);
	}
	if (!t)
		count_loss(LOST_MAP_FULL);
	return t;
}

static __always_inline void forget_task(bool direct, struct task_struct *task)
{
	u32 tid;

	if (direct && cfg.storage)
		return; /* it goes with the task */
	tid = GET(direct, task, pid);
	bpf_map_delete_elem(&start_hash, &tid);
}

/* Has the process another program than when it was met last, or is it new? User space has to note where
 * its code lies while it is there. */
static __always_inline void note_image(bool direct, struct task_struct *task, struct offcpu_task *t, u64 mm)
{
	u32 tgid = GET(direct, task, tgid);
	u32 image = GET(direct, task, self_exec_id);
	u32 *told = bpf_map_lookup_elem(&told_images, &tgid);
	struct {
		u64 hash;
		u32 record, words, tgid, image, end, tid;
	} record = { .record = RECORD_PROCESS, .tgid = tgid, .image = image };

	t->mm = mm;
	t->image = image;
	if (told && *told == image)
		return;
	if (ring_try(&record, sizeof(record), 0))
		bpf_map_update_elem(&told_images, &tgid, &image, BPF_ANY);
}

/* include/linux/sched.h, and TASK_REPORT there: the letters of ps. K: it sleeps like D, but a deadly
 * signal ends that. */
static __always_inline u8 state_letter(u32 state)
{
	if (!state)
		return 'R';
	if ((state & 0x402) == 0x402) /* TASK_IDLE */
		return 'I';
	if ((state & 0x102) == 0x102) /* TASK_KILLABLE */
		return 'K';
	if (state & 0x1)
		return 'S';
	if (state & 0x4)
		return 'T';
	if (state & 0x8)
		return 't';
	if (state & 0x40)
		return 'P';
	return 'D'; /* TASK_UNINTERRUPTIBLE; TASK_RTLOCK_WAIT and TASK_FROZEN are shown as it */
}

/* A bit of cfg.states for each letter. */
static __always_inline bool state_wanted(u8 letter)
{
	switch (letter) {
	case 'R':
		return cfg.states & 1 << 0;
	case 'S':
		return cfg.states & 1 << 1;
	case 'D':
		return cfg.states & 1 << 2;
	case 'K':
		return cfg.states & 1 << 3;
	case 'I':
		return cfg.states & 1 << 4;
	case 'T':
		return cfg.states & 1 << 5;
	case 't':
		return cfg.states & 1 << 6;
	default:
		return cfg.states & 1 << 7;
	}
}

/* include/linux/sched.h: it was forked, and has executed nothing yet. */
#define PF_FORKNOEXEC 0x00000040

/* The command that the tool runs is held before its exec: until then it is the tool's own affair. Threads are
 * forked, too, and never execute anything: so it is the first one's flag that counts. */
static __always_inline bool at_the_gate(bool direct, struct task_struct *task)
{
	struct task_struct *leader;

	if (!cfg.command || (u32)GET(direct, task, tgid) != cfg.command)
		return false;
	leader = GET(direct, task, group_leader);
	return GET(direct, leader, flags) & PF_FORKNOEXEC;
}

static __always_inline bool kind_wanted(bool direct, struct task_struct *task)
{
	bool kernel;

	if (cfg.threads == THREADS_ALL)
		return true;
	kernel = GET(direct, task, flags) & PF_KTHREAD;
	return kernel == (cfg.threads == THREADS_KERNEL);
}

#endif
