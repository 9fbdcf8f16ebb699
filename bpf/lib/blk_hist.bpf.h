/* SPDX-License-Identifier: GPL-2.0 */
/* Where biolatency counts: its settings, and two sets of histograms. */
#ifndef TRACEBELT_BLK_HIST_H
#define TRACEBELT_BLK_HIST_H

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "blk_kernel.bpf.h"
#include "filter.bpf.h"
#include "hist.bpf.h"
#include "maps.bpf.h"

/* What is measured. */
enum span {
	SPAN_DEVICE, /* first issue to last completion */
	SPAN_TOTAL, /* queued (bios: submitted) to last completion */
	SPAN_SPLIT, /* device, and beside it queued to first issue */
	SPAN_SIZE, /* no time, but bytes */
};

/* What histograms are kept apart by; any of them together. */
enum by {
	BY_DISK = 1,
	BY_PARTITION = 2,
	BY_OP = 4,
	BY_FLAGS = 8,
	BY_SIZE = 16,
	BY_CGROUP = 32,
};

/* Sectors of a disk: a partition, or all of it. */
struct blk_range {
	u64 first;
	u64 last;
	u32 dev;
	u32 unused;
};

#define RANGES 32

const volatile struct blk_cfg {
	u64 unit_ns;
	u64 slower_ns; /* not 0: an event for each I/O of at least this, and no histogram */
	u64 wake_bytes;
	u64 chain_endio; /* the kernel's bio_chain_endio(): what ends a bio that was split off; 0: not known
			  */
	u64 ops; /* a bit for each operation wanted; 0: all */
	u32 span; /* enum span */
	u32 by; /* enum by */
	u32 ranges; /* that many are in use; 0: all disks */
	u32 op_flush;
	u32 preflush; /* REQ_PREFLUSH */
	u32 flush_seq; /* RQF_FLUSH_SEQ */
	u32 bio_traced; /* of BIO_TRACE_COMPLETION */
	u32 bio_throttled; /* BIO_THROTTLED, BIO_BPS_THROTTLED */
	u32 driver_flag; /* REQ_DRV */
	u8 by_cgroup; /* look into filter_cgroups */
	u8 depth; /* the number of requests in flight at each issue */
	/* Until 5.10 a queue went before what the tracepoint is about, here and there: its place in ctx. */
	u8 insert_arg, issue_arg, merge_arg, requeue_arg, queue_arg, getrq_arg;
	struct blk_range range[RANGES];
} cfg = { .unit_ns = NSEC_PER_USEC, .wake_bytes = 512 << 10 }; /* a quarter of the ring */

/* Two sets, exchanged: see common/src/maps.rs. [0] is the span, or the device part of a split, [1] the queue.
 */
struct dense {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct hist);
} dense_a SEC(".maps"), dense_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct dense);
} dense_active SEC(".maps");

/* One slot of one histogram, or what else is counted for a section: errors, requeues. */
struct blk_key {
	u64 cgroup;
	u32 dev;
	u32 flags;
	u32 slot;
	u8 which; /* as in dense */
	u8 size; /* log2 of the bytes */
	u16 unused;
};

/* Beyond the slots of a histogram. */
#define SLOT_DEPTH 2000
#define SLOT_REQUEUED 2001
#define SLOT_UNISSUED 2002 /* ended without having been issued */
#define SLOT_ERRORS 0x10000 /* + blk_status_t */
#define SLOT_ERRNO 0x20000 /* + errno, where the tracepoint has that instead (before 5.16) */

struct blk_cell {
	u64 count;
	u64 sum;
	u64 min;
	u64 max;
};

struct sparse {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct blk_key);
	__type(value, struct blk_cell);
} sparse_a SEC(".maps"), sparse_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct sparse);
} sparse_active SEC(".maps");

struct blk_key *_key __attribute__((unused));
struct blk_cell *_cell __attribute__((unused));

/* min and max may lose to another CPU that writes the very same cell in the same instant; the loss is bounded
 * by the cell's width, 6.25%. */
static __attribute__((noinline)) int add_cell(struct blk_key *key, u32 slot, u64 value)
{
	struct blk_cell fresh = { .count = 1, .sum = value, .min = value, .max = value };
	struct blk_cell *cell;
	u32 zero = 0;
	void *set = bpf_map_lookup_elem(&sparse_active, &zero);

	if (!set)
		return 0;
	key->slot = slot;
	cell = bpf_map_lookup_elem(set, key);
	if (!cell) {
		if (!bpf_map_update_elem(set, key, &fresh, BPF_NOEXIST))
			return 0;
		cell = bpf_map_lookup_elem(set, key); /* another CPU was first, or the map is full */
		if (!cell) {
			count_loss(LOST_MAP_FULL);
			return 0;
		}
	}
	__sync_fetch_and_add(&cell->count, 1);
	__sync_fetch_and_add(&cell->sum, value);
	if (value < cell->min)
		cell->min = value;
	if (value > cell->max)
		cell->max = value;
	return 0;
}

static __always_inline void add_dense(u32 which, u64 value)
{
	u32 zero = 0;
	void *set = bpf_map_lookup_elem(&dense_active, &zero);
	struct hist *hist;

	if (!set)
		return;
	hist = bpf_map_lookup_elem(set, &which);
	if (hist)
		hist_add(hist, value, cfg.unit_ns);
}

/* error: a blk_status_t, or before 5.16 a negative errno: the sign tells. */
static __always_inline void add_error(struct blk_key *key, int error)
{
	add_cell(key, error < 0 ? SLOT_ERRNO + (u16)-error : SLOT_ERRORS + (u8)error, 0);
}

static __always_inline bool op_wanted(u32 flags)
{
	return !cfg.ops || cfg.ops >> (flags & 63) & 1;
}

static __always_inline bool sector_wanted(u32 dev, u64 sector)
{
	u32 i;

	for (i = 0; i < RANGES; i++) {
		if (i >= cfg.ranges)
			break;
		if (cfg.range[i].dev == dev && sector >= cfg.range[i].first && sector <= cfg.range[i].last)
			return true;
	}
	return false;
}

/* The bio's group or one above it. */
static __always_inline bool group_wanted(struct bio *bio)
{
	struct cgroup *cgroup = bio ? bio_cgroup(bio) : NULL;

	return cgroup && cgroup_under(cgroup);
}

#endif
