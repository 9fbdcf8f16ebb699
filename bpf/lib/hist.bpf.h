/* SPDX-License-Identifier: GPL-2.0 */
/* The one encoding of a latency. common/src/hist.rs decodes it.
 *
 * A time is scaled to 1/64ths of the display unit, so that the unit's powers of two are powers of two
 * here as well, and then cut log-linearly: 16 slots for each power of two, 6.25% wide. The classic
 * log2 rows are then exact sums of slots, and percentiles come from the slots themselves. The slots
 * cover all of 64 bits: there is no last bucket that means "and everything above".
 */
#ifndef TRACEBELT_HIST_H
#define TRACEBELT_HIST_H

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#define HIST_SUB_BITS 4
#define HIST_SUB (1 << HIST_SUB_BITS)
/* Values below HIST_SUB one by one, then HIST_SUB for each of the exponents 4 to 63. */
#define HIST_SLOTS ((64 - HIST_SUB_BITS + 1) * HIST_SUB)

#define NSEC_PER_USEC 1000ULL
#define NSEC_PER_MSEC 1000000ULL

struct hist {
	u64 count;
	u64 sum; /* nanoseconds, exact, as min and max are */
	u64 min; /* valid once count is not 0 */
	u64 max;
	u64 slots[HIST_SLOTS];
};

/* floor(ns * 64 / 1000). Below 2^27 ns (0.13 s) by a multiplication: 8/125 with a reciprocal rounded
 * up to 40 bits is exact for every dividend under 2^30, and no product leaves 64 bits. A 64-bit
 * division costs 20 ns on CPUs in service; waits that long can afford it. */
static __always_inline u64 usecs_64ths(u64 ns)
{
	if (ns < (1ULL << 27))
		return (ns * 8 * 8796093023ULL) >> 40;
	return ns / 125 * 8 + ns % 125 * 8 / 125;
}

/* unit_ns is a constant of the run: the verifier drops the branches not taken. */
static __always_inline u64 hist_scale(u64 ns, u64 unit_ns)
{
	if (unit_ns == NSEC_PER_USEC)
		return usecs_64ths(ns);
	if (unit_ns == NSEC_PER_MSEC)
		return ns / (NSEC_PER_MSEC / 64);
	return ns;
}

static __always_inline u32 log2_u64(u64 v)
{
	u32 r = 0;

	if (v >> 32) {
		v >>= 32;
		r += 32;
	}
	if (v >> 16) {
		v >>= 16;
		r += 16;
	}
	if (v >> 8) {
		v >>= 8;
		r += 8;
	}
	if (v >> 4) {
		v >>= 4;
		r += 4;
	}
	if (v >> 2) {
		v >>= 2;
		r += 2;
	}
	return r + (v >> 1);
}

static __always_inline u32 hist_slot(u64 value)
{
	u32 exponent;

	if (value < HIST_SUB)
		return value;
	exponent = log2_u64(value);
	return (exponent - HIST_SUB_BITS + 1) * HIST_SUB +
	       ((value >> (exponent - HIST_SUB_BITS)) & (HIST_SUB - 1));
}

/* For a histogram that no other CPU writes. */
static __always_inline void hist_add(struct hist *hist, u64 ns, u64 unit_ns)
{
	u32 slot = hist_slot(hist_scale(ns, unit_ns));

	barrier_var(slot); /* check what is used, not what it was made of */
	if (slot < HIST_SLOTS) /* always; said for the verifier */
		hist->slots[slot]++;
	if (!hist->count || ns < hist->min)
		hist->min = ns;
	if (ns > hist->max)
		hist->max = ns;
	hist->sum += ns;
	hist->count++;
}

#endif
