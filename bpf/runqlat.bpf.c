// SPDX-License-Identifier: GPL-2.0
/* runqlat: how long runnable tasks wait for a CPU.
 *
 * A wait starts when a task is enqueued: it is woken (why: wakeup), or it is switched out while still
 * runnable (why: preempted). It ends when the task is switched in. The first start stands.
 *
 * Cost: a wakeup is one task-storage look-up, a switch is one for the task that comes in and one for the
 * task that goes out if it stays runnable, and one histogram update. The idle task is skipped first.
 */
#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "children.bpf.h"
#include "compat.bpf.h"
#include "filter.bpf.h"
#include "hist.bpf.h"
#include "maps.bpf.h"
#include "ring.bpf.h"

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
	u32 storage; /* starts are in task storage, else in the hash */
} cfg = { .unit_ns = NSEC_PER_USEC };

struct runq_start {
	u64 at; /* 0: not waiting */
	u64 run_delay; /* the kernel's own account of the task's waits, at that time */
	u32 arrivals; /* how often the task had been switched in by then */
	u32 why;
};

/* Where a kernel can create an element under the run queue's lock (hook.rs decides). */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct runq_start);
} start_storage SEC(".maps");

/* Elsewhere: one entry for a thread's whole life, so that a wait costs look-ups only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, struct runq_start);
} start_hash SEC(".maps");

/* Two sets of histograms. The programs write to the one in `active`; user space puts the other there,
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
} dense_active SEC(".maps") = { .values = { &dense_a } };

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
} sparse_active SEC(".maps") = { .values = { &sparse_a } };

/* Cells ever made: tells user space when to empty a set before it is full. */
u64 cells_made;

struct runq_event {
	u64 at; /* CLOCK_MONOTONIC, the switch-in */
	u64 wait_ns;
	u32 tgid;
	u32 tid;
	u32 prev_tgid;
	u32 cpu;
	u32 why;
	u32 unused;
	char comm[16];
	char prev_comm[16];
};

struct runq_event *_event __attribute__((unused));
struct runq_key *_key __attribute__((unused));
struct runq_cell *_cell __attribute__((unused));

/* `direct`: see GET in compat.bpf.h. Task storage takes only a pointer that the verifier knows. */
static __always_inline struct runq_start *find_start(bool direct, struct task_struct *task, u32 tid)
{
	if (direct && cfg.storage)
		return bpf_task_storage_get(&start_storage, task, NULL, 0);
	return bpf_map_lookup_elem(&start_hash, &tid);
}

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

/* A start that a switch-in should have ended, but the task has run since: the switch was not seen. Some
 * hypervisors go on executing kernel text from before the tracepoint was switched on, in the idle task
 * above all. If it ran once, the kernel's account has that wait; else it is lost, and said to be. */
static __always_inline void recover(bool direct, struct task_struct *task, const struct runq_start *start,
				    u32 arrivals)
{
	u64 wait = run_delay(direct, task) - start->run_delay;

	if (arrivals - start->arrivals != 1 || start->why >= WHYS)
		count_loss(LOST_UNMATCHED);
	else if (!cfg.slower_ns)
		add_wait(direct, task, wait, start->why);
	else if (wait >= cfg.slower_ns) /* when, and after whom, nobody knows */
		count_loss(LOST_UNMATCHED);
}

static __always_inline void start_wait(bool direct, struct task_struct *task, u32 tid, enum why why, u64 now)
{
	struct runq_start fresh = {
		.at = now,
		.run_delay = run_delay(direct, task),
		.arrivals = arrivals(direct, task),
		.why = why,
	};
	struct runq_start *start;

	if (direct && cfg.storage) {
		start = bpf_task_storage_get(&start_storage, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!start) {
			count_loss(LOST_MAP_FULL);
			return;
		}
	} else {
		start = bpf_map_lookup_elem(&start_hash, &tid);
		if (!start) {
			if (bpf_map_update_elem(&start_hash, &tid, &fresh, BPF_ANY))
				count_loss(LOST_MAP_FULL);
			return;
		}
	}
	if (start->at) {
		if (start->arrivals == fresh.arrivals) /* the first start stands */
			return;
		recover(direct, task, start, fresh.arrivals);
	}
	*start = fresh;
}

/* A task's last switch: it will not wait again, and cannot be waiting now. */
static __always_inline void end_task(bool direct, struct task_struct *task, u32 tid)
{
	struct runq_start *start = find_start(direct, task, tid);

	if (!start)
		return;
	if (start->at)
		recover(direct, task, start, arrivals(direct, task));
	if (!(direct && cfg.storage))
		bpf_map_delete_elem(&start_hash, &tid);
}

static __always_inline void send_event(bool direct, struct task_struct *prev, struct task_struct *next,
				       u64 now, u64 wait, u32 why)
{
	struct runq_event event = {
		.at = now,
		.wait_ns = wait,
		.tgid = GET(direct, next, tgid),
		.tid = GET(direct, next, pid),
		.prev_tgid = GET(direct, prev, tgid),
		.cpu = bpf_get_smp_processor_id(),
		.why = why,
	};

	bpf_core_read(&event.comm, sizeof(event.comm), &next->comm);
	bpf_core_read(&event.prev_comm, sizeof(event.prev_comm), &prev->comm);
	ring_send(&event, sizeof(event), cfg.wake_bytes);
}

static __always_inline int on_wakeup(bool direct, struct task_struct *task)
{
	if (!running)
		return 0;
	/* Woken while it runs: it waits for nothing. If it is switched out later, that is the start. */
	if (task_running(direct, task) || !task_wanted(&cfg.filter, direct, task))
		return 0;
	start_wait(direct, task, GET(direct, task, pid), WHY_WAKEUP, bpf_ktime_get_ns());
	return 0;
}

static __always_inline int on_switch(bool direct, bool preempt, struct task_struct *prev,
				     struct task_struct *next)
{
	u32 prev_tid = GET(direct, prev, pid);
	u32 next_tid = GET(direct, next, pid);
	struct runq_start *start;
	u64 now = 0, wait;
	u32 why, ran;

	if (!running)
		return 0;
	if (prev_tid) { /* 0: idle */
		unsigned int state = task_state(direct, prev);

		if (preempt || !state) {
			if (task_wanted(&cfg.filter, direct, prev)) {
				now = bpf_ktime_get_ns();
				start_wait(direct, prev, prev_tid, WHY_PREEMPTED, now);
			}
		} else if (state & TASK_DEAD) {
			end_task(direct, prev, prev_tid);
		}
	}

	if (!next_tid || !ids_wanted(&cfg.filter, direct, next))
		return 0;
	start = find_start(direct, next, next_tid);
	if (!start || !start->at) {
		if (task_wanted(&cfg.filter, direct, next))
			count_loss(start ? LOST_UNMATCHED : BEGAN_BEFORE);
		return 0;
	}
	if (!now)
		now = bpf_ktime_get_ns();
	wait = now - start->at;
	why = start->why;
	start->at = 0;
	ran = arrivals(direct, next);
	if (ran != start->arrivals) {
		recover(direct, next, start, ran);
		count_loss(LOST_UNMATCHED); /* when this wait began is not known */
		return 0;
	}
	if ((s64)wait < 0 || why >= WHYS) {
		count_loss(LOST_UNMATCHED);
		return 0;
	}
	if (!cfg.slower_ns)
		add_wait(direct, next, wait, why);
	else if (wait >= cfg.slower_ns)
		send_event(direct, prev, next, now, wait, why);
	return 0;
}

/* Entry points. Either the tp_btf or the raw_tp ones are loaded: see HOOKS in tools/runqlat. */

SEC("tp_btf/sched_wakeup")
int BPF_PROG(wakeup_btf, struct task_struct *task)
{
	return on_wakeup(true, task);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(wakeup_new_btf, struct task_struct *task)
{
	return on_wakeup(true, task);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switch_btf, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return on_switch(true, preempt, prev, next);
}

SEC("raw_tp/sched_wakeup")
int BPF_PROG(wakeup_raw, struct task_struct *task)
{
	return on_wakeup(false, task);
}

SEC("raw_tp/sched_wakeup_new")
int BPF_PROG(wakeup_new_raw, struct task_struct *task)
{
	return on_wakeup(false, task);
}

SEC("raw_tp/sched_switch")
int BPF_PROG(switch_raw, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return on_switch(false, preempt, prev, next);
}

char LICENSE[] SEC("license") = "GPL";
