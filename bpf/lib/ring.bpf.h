/* SPDX-License-Identifier: GPL-2.0 */
/* Events to user space. Waking a reader costs the traced task over 1,000 ns, a silent record some 50: so
 * the reader looks in by itself every 50 ms (common/src/events.rs), and is woken only when it would
 * otherwise be too late, each time another `wake_bytes` have gathered. */
#ifndef TRACEBELT_RING_H
#define TRACEBELT_RING_H

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2 << 20);
} ring SEC(".maps");

/* kernel/bpf/ringbuf.c: a header stands before each record, and its end is rounded up. */
#define RING_HEADER 8

/* wake_bytes: a power of two; 0 wakes in any case. False: the ring is full. */
static __always_inline bool ring_try(void *data, u64 size, u64 wake_bytes)
{
	u64 before = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
	u64 after = before + ((RING_HEADER + size + 7) & ~7ULL);
	u64 flags = (before ^ after) >= wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;

	return !bpf_ringbuf_output(&ring, data, size, flags);
}

static __always_inline void ring_send(void *data, u64 size, u64 wake_bytes)
{
	if (!ring_try(data, size, wake_bytes))
		count_loss(LOST_RING);
}

#endif
