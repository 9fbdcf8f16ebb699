/* SPDX-License-Identifier: GPL-2.0 */
/* What every tool has: the switch that begins and ends a run, and the counters of what was missed. */
#ifndef TRACEBELT_MAPS_H
#define TRACEBELT_MAPS_H

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

/* Programs are attached one after the other: one that sees the end of something may be there before the
 * one that sees its start. So they all do nothing until user space has attached the last one and sets
 * this, and again after it has read the clock at the end (common/src/object.rs). In a section of its own:
 * user space writes it whole. */
u32 running SEC(".data.run"); /* enum run */

enum run {
	RUN_ENDED,
	RUN_ON,
	RUN_BEGINS, /* what was there before is being looked at */
	RUN_ENDS, /* what is under way is being looked at: nothing new begins */
};

/* What was missed, per CPU and per reason. A tool counts every way to lose or drop an event here and
 * common/src/coverage.rs reads it by the same names. */
enum loss {
	LOST_RING, /* the ring buffer was full */
	LOST_MAP_FULL, /* a map refused an entry */
	LOST_UNMATCHED, /* an end without its start, or a start without its end */
	LOST_UNREADABLE, /* user memory that could not be read */
	LOST_TRUNCATED, /* a path or stack longer than its buffer */
	RECOVERED, /* an end that was not seen, its time taken from the kernel's account */
	BEGAN_BEFORE, /* began before the tracer was attached: outside the run, no loss */
	LOSSES,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, u32);
	__type(value, u64);
} losses SEC(".maps");

static __always_inline void count_losses(enum loss why, u64 number)
{
	u32 key = why;
	u64 *n = bpf_map_lookup_elem(&losses, &key);

	if (n) /* atomic: where programs can be preempted, another may count on this CPU in between */
		__sync_fetch_and_add(n, number);
}

static __always_inline void count_loss(enum loss why)
{
	count_losses(why, 1);
}

#endif
