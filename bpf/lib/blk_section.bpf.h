/* SPDX-License-Identifier: GPL-2.0 */
/* Histograms of the first SECTIONS disks, operations, ... that come: whole, in an array, found by a small
 * table. That is half the cost of a hash of slots, which takes what finds no place, and all of it on kernels
 * without compare-and-exchange.
 */
#ifndef TRACEBELT_BLK_SECTION_H
#define TRACEBELT_BLK_SECTION_H

#include "blk_hist.bpf.h"

#define SECTION_BITS 7
#define SECTIONS (1 << SECTION_BITS)
#define SECTION_TRIES 4

enum section_state {
	SECTION_FREE,
	SECTION_TAKEN, /* its key is being written */
	SECTION_READY,
};

struct blk_section {
	u64 cgroup;
	u32 dev;
	u32 flags;
	u32 size;
	u32 state; /* enum section_state */
	u64 unused;
};

/* Never freed during a run. User space reads what each is of. */
struct blk_section sections[SECTIONS] SEC(".bss.sections");

/* Two for each section: as in dense. Written by all CPUs: count is not kept, and min is kept as its
 * complement, so that both ends only rise. */
struct shared {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * SECTIONS);
	__type(key, u32);
	__type(value, struct hist);
} shared_a SEC(".maps"), shared_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct shared);
} shared_active SEC(".maps");

static __always_inline bool same_section(const struct blk_section *section, const struct blk_key *key)
{
	return section->dev == key->dev && section->flags == key->flags && section->cgroup == key->cgroup &&
	       section->size == key->size;
}

/* Its place, or SECTIONS: there is none for it. */
static __always_inline u32 find_section(const struct blk_key *key)
{
	u64 mixed = key->cgroup ^ (u64)key->flags << 32 ^ key->dev ^ (u64)key->size << 58;
	u32 place = (mixed * 0x9e3779b97f4a7c15ULL) >> (64 - SECTION_BITS);
	struct blk_section *section;
	u32 i;

	for (i = 0; i < SECTION_TRIES; i++) {
		place &= SECTIONS - 1;
		barrier_var(place);
		section = &sections[place & (SECTIONS - 1)];
		if (section->state == SECTION_READY) {
			if (same_section(section, key))
				return place;
			place++;
			continue;
		}
		/* Perhaps another CPU is making room for the very same. */
		if (__sync_val_compare_and_swap(&section->state, SECTION_FREE, SECTION_TAKEN) != SECTION_FREE)
			return SECTIONS;
		section->cgroup = key->cgroup;
		section->dev = key->dev;
		section->flags = key->flags;
		section->size = key->size;
		__sync_val_compare_and_swap(&section->state, SECTION_TAKEN, SECTION_READY);
		return place;
	}
	return SECTIONS;
}

static __always_inline void raise_to(u64 *top, u64 value)
{
	u64 old;
	int i;

	for (i = 0; i < 8; i++) { /* another CPU in between means that it rose */
		old = *top;
		if (value <= old || __sync_val_compare_and_swap(top, old, value) == old)
			return;
	}
}

/* False: not here. */
static __always_inline bool add_shared(const struct blk_key *key, u32 which, u64 value)
{
	u32 zero = 0, slot, place = find_section(key);
	struct hist *hist;
	void *set;

	if (place >= SECTIONS)
		return false;
	set = bpf_map_lookup_elem(&shared_active, &zero);
	if (!set)
		return false;
	place = 2 * place + which;
	hist = bpf_map_lookup_elem(set, &place);
	if (!hist)
		return false;
	slot = hist_slot(hist_scale(value, cfg.unit_ns));
	barrier_var(slot);
	if (slot < HIST_SLOTS)
		__sync_fetch_and_add(&hist->slots[slot], 1);
	__sync_fetch_and_add(&hist->sum, value);
	if (value > hist->max)
		raise_to(&hist->max, value);
	if (~value > hist->min)
		raise_to(&hist->min, ~value);
	return true;
}

static __always_inline void add_value(bool direct, struct blk_key *key, u32 which, u64 value)
{
	if (!cfg.by) {
		add_dense(which, value);
		return;
	}
	if (direct && add_shared(key, which, value))
		return;
	key->which = which;
	add_cell(key, hist_slot(hist_scale(value, cfg.unit_ns)), value);
	key->which = 0;
}

#endif
