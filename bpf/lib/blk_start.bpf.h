/* SPDX-License-Identifier: GPL-2.0 */
/* Which requests (or bios) are under way, and since when: found by the address of the kernel's struct, which
 * is one I/O's from its submission to its end, wherever its sectors move meanwhile.
 *
 * A table of cache lines; what finds its line in use, and kernels without compare-and-exchange in BPF
 * (before 5.12, 5ffa25502b5a), use a hash. An I/O belongs to one CPU at a time, so nobody else writes its
 * line.
 */
#ifndef TRACEBELT_BLK_START_H
#define TRACEBELT_BLK_START_H

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "blk_section.bpf.h"

struct blk_start {
	u64 key; /* 0: free */
	u64 queued; /* when its queue time began; a bio's submission */
	u64 issued; /* first issue; 0: not yet. A bio's is its submission */
	union {
		u64 sector; /* for --slower */
		u32 part; /* of bios, for histograms */
	};
	u32 bytes;
	u32 dev; /* of bios: where they were sent to, which may change on their way */
	u8 requeued; /* since the last issue: it is the same request when it comes again */
	u8 op; /* of requests that were issued */
	s16 error; /* of a part that has ended */
	u32 tgid; /* --slower: who submitted it */
	char comm[16];
};

#define PLACE_BITS 14
#define PLACES (1 << PLACE_BITS)

/* User space reads what is left in it at the end. */
struct blk_start table[PLACES] SEC(".bss.table");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct blk_start);
} start_hash SEC(".maps");

/* How many are in the hash although there is a table. */
u64 hashed;

/* A number made of the address. Typed pointers may not be calculated with, but their distance from another is
 * a mere number, and the table stays where it is. */
static __always_inline u64 key_of(bool direct, void *io)
{
	u64 key = (u64)io;

	if (direct)
		asm volatile("%0 -= %1" : "+r"(key) : "r"(&table));
	return key;
}

static __always_inline struct blk_start *line_of(u64 key)
{
	return &table[((key * 0x9e3779b97f4a7c15ULL) >> (64 - PLACE_BITS)) & (PLACES - 1)];
}

static __always_inline struct blk_start *find_start(bool direct, u64 key)
{
	if (direct) {
		struct blk_start *start = line_of(key);

		if (start->key == key)
			return start;
		if (!hashed)
			return NULL;
	}
	return bpf_map_lookup_elem(&start_hash, &key);
}

/* A function of its own, as add_cell(): what is rare is not to cost the rest anything. */
static __attribute__((noinline)) int make_hashed(u64 key)
{
	struct blk_start fresh = { .key = key };

	if (!bpf_map_update_elem(&start_hash, &key, &fresh, BPF_NOEXIST))
		return 0;
	count_loss(LOST_MAP_FULL);
	return -1;
}

/* NULL: no room, which has been counted. */
static __always_inline struct blk_start *make_start(bool direct, u64 key)
{
	struct blk_start *start;

	if (direct) {
		start = line_of(key);
		if (!start->key && !__sync_val_compare_and_swap(&start->key, 0, key)) {
			start->issued = 0;
			start->bytes = 0;
			start->dev = 0;
			start->requeued = 0;
			start->error = 0;
			start->tgid = 0;
			return start;
		}
	}
	if (make_hashed(key))
		return NULL;
	if (direct)
		__sync_fetch_and_add(&hashed, 1);
	return bpf_map_lookup_elem(&start_hash, &key);
}

/* The last access to it: from here on its place is free. */
static __always_inline void drop_start(bool direct, struct blk_start *start, u64 key)
{
	if (direct && line_of(key)->key == key) {
#if defined(__TARGET_ARCH_x86)
		start->key = 0;
#else
		/* What was read before must not be read after: another CPU may take the place at once. */
		__sync_val_compare_and_swap(&start->key, key, 0);
#endif
		return;
	}
	if (!bpf_map_delete_elem(&start_hash, &key) && direct)
		__sync_fetch_and_add(&hashed, -1);
}

#endif
