/* SPDX-License-Identifier: GPL-2.0 */
/* What requests and bios have in common: the section that an I/O belongs to, its values, its event. */
#ifndef TRACEBELT_BLK_IO_H
#define TRACEBELT_BLK_IO_H

#include "blk_start.bpf.h"
#include "ring.bpf.h"

struct blk_event {
	u64 at; /* CLOCK_MONOTONIC, its end */
	u64 queue_ns;
	u64 device_ns;
	u64 sector;
	u32 bytes;
	u32 dev;
	u32 flags;
	s32 error; /* as in add_error() */
	u32 tgid;
	u32 unused;
	char comm[16];
};

struct blk_event *_event __attribute__((unused));

static __always_inline void set_key(struct blk_key *key, u32 dev, u32 part, u32 flags, u32 bytes,
				    struct bio *bio)
{
	struct cgroup *cgroup;

	if (cfg.by & BY_PARTITION)
		key->dev = part;
	else if (cfg.by & BY_DISK)
		key->dev = dev;
	if (cfg.by & BY_FLAGS)
		key->flags = flags;
	else if (cfg.by & BY_OP)
		key->flags = flags & OP_MASK;
	if (cfg.by & BY_SIZE)
		key->size = bytes ? 1 + log2_u64(bytes) : 0;
	if (cfg.by & BY_CGROUP) {
		cgroup = bio ? bio_cgroup(bio) : NULL;
		key->cgroup = cgroup ? BPF_CORE_READ(cgroup, kn, id) : 0;
	}
}

static __always_inline void add_io(bool direct, struct blk_key *key, u64 queue, u64 device, u32 bytes)
{
	switch (cfg.span) {
	case SPAN_DEVICE:
		add_value(direct, key, 0, device);
		break;
	case SPAN_TOTAL:
		add_value(direct, key, 0, queue + device);
		break;
	case SPAN_SPLIT:
		add_value(direct, key, 0, device);
		add_value(direct, key, 1, queue);
		break;
	default:
		add_value(direct, key, 0, bytes);
	}
}

static __always_inline void send_event(const struct blk_start *start, u64 now, u32 dev, u32 flags, int error)
{
	struct blk_event event = {
		.at = now,
		.queue_ns = start->issued - start->queued,
		.device_ns = now - start->issued,
		.sector = start->sector,
		.bytes = start->bytes,
		.dev = dev,
		.flags = flags,
		.error = error,
		.tgid = start->tgid,
	};

	__builtin_memcpy(event.comm, start->comm, sizeof(event.comm));
	ring_send(&event, sizeof(event), cfg.wake_bytes);
}

/* A start whose end, or whose issue, was not seen. */
static __always_inline void lose(bool direct, struct blk_start *start, u64 key)
{
	count_loss(LOST_UNMATCHED);
	drop_start(direct, start, key);
}

/* A start for what begins now. What stands there already is of an earlier life of the struct: if it was
 * issued, its end was not seen. */
static __always_inline struct blk_start *begin(bool direct, u64 key, struct blk_start *stale)
{
	if (stale && stale->issued)
		lose(direct, stale, key);
	else if (stale)
		drop_start(direct, stale, key);
	return make_start(direct, key);
}

#endif
