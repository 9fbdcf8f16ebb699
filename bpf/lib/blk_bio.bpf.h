/* SPDX-License-Identifier: GPL-2.0 */
/* A bio's life, from its submission to the end of all of its parts. */
#ifndef TRACEBELT_BLK_BIO_H
#define TRACEBELT_BLK_BIO_H

#include "blk_io.bpf.h"

/* In one request. Ends beyond are counted as unmatched when the bio is used again. */
#define MAX_BIOS 256

/* A bio that only flushes is a write of nothing; the request made of it has an operation of its own. */
static __always_inline u32 bio_flags(u32 flags, u32 bytes)
{
	return !bytes && flags & cfg.preflush ? (flags & ~OP_MASK) | cfg.op_flush : flags;
}

static __always_inline bool bio_wanted(bool direct, struct bio *bio)
{
	if (!op_wanted(bio_flags(GET(direct, bio, bi_opf), GET(direct, bio, bi_iter.bi_size))))
		return false;
	if (cfg.ranges && !sector_wanted(bio_dev(direct, bio), GET(direct, bio, bi_iter.bi_sector)))
		return false;
	return !cfg.by_cgroup || group_wanted(bio);
}

/* NULL: not wanted, or no room, which has been counted. Its issue is left open. */
static __always_inline struct blk_start *begin_bio(bool direct, struct bio *bio, u64 key,
						   struct blk_start *stale)
{
	struct blk_start *start;

	if (!bio_wanted(direct, bio))
		return NULL;
	start = begin(direct, key, stale);
	if (!start)
		return NULL;
	start->bytes = GET(direct, bio, bi_iter.bi_size);
	start->dev = bio_dev(direct, bio);
	if (cfg.slower_ns)
		start->sector = GET(direct, bio, bi_iter.bi_sector);
	else
		start->part = cfg.by & BY_PARTITION ? bio_partition(direct, bio) : 0;
	if (cfg.slower_ns) {
		start->tgid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(&start->comm, sizeof(start->comm));
	}
	start->queued = bpf_ktime_get_ns();
	return start;
}

/* It may have to wait for its group's turn (io.max) before the kernel traces its submission, or has come
 * back from that. What was traced already is sent on to another disk, and is the same bio. */
static __always_inline int on_throttle(bool direct, struct bio *bio)
{
	u64 key;

	if (!running || GET(direct, bio, bi_flags) & cfg.bio_traced)
		return 0;
	key = key_of(direct, bio);
	if (!find_start(direct, key))
		begin_bio(direct, bio, key, NULL);
	return 0;
}

static __always_inline int on_bio_queue(bool direct, struct bio *bio)
{
	struct blk_start *start;
	u64 key;

	if (!running)
		return 0;
	key = key_of(direct, bio);
	start = find_start(direct, key);
	if (!start || start->issued) /* nobody has asked whether it may */
		start = begin_bio(direct, bio, key, start);
	if (start)
		start->issued = start->queued;
	return 0;
}

/* key: see key_of(). A bio without a start is a part of one that was split, or began before the run. */
static __always_inline int end_one(bool direct, struct bio *bio, u64 key, int error)
{
	struct blk_start *start = find_start(direct, key);
	struct blk_key section = {};
	u64 now, total;
	u32 bytes, flags;

	if (!start)
		return 0;
	now = bpf_ktime_get_ns();
	bytes = start->bytes;
	flags = cfg.by || cfg.slower_ns ? bio_flags(BPF_CORE_READ(bio, bi_opf), bytes) : 0;
	if (cfg.by)
		set_key(&section, start->dev, start->part ? start->part : start->dev, flags, bytes, bio);
	if (error)
		add_error(&section, error);
	if (cfg.slower_ns && now - start->queued >= cfg.slower_ns)
		send_event(start, now, start->dev, flags, error);
	total = now - start->queued;
	drop_start(direct, start, key);
	if (!cfg.slower_ns)
		add_io(direct, &section, 0, total, bytes);
	return 0;
}

/* Global functions: the verifier looks at each once, and not in every round of the loop below. */
__attribute__((noinline)) int end_bio_btf(u64 bio, u64 key, int error)
{
	return end_one(true, (struct bio *)bio, key, error);
}

__attribute__((noinline)) int end_bio_raw(u64 bio, u64 key, int error)
{
	return end_one(false, (struct bio *)bio, key, error);
}

static __always_inline void end_bio(bool direct, u64 bio, u64 key, int error)
{
	if (direct)
		end_bio_btf(bio, key, error);
	else
		end_bio_raw(bio, key, error);
}

/* Of drivers that take bios: all of it has ended. */
static __always_inline int on_bio_complete(bool direct, struct bio *bio)
{
	if (running)
		end_one(direct, bio, key_of(direct, bio), GET(direct, bio, bi_status));
	return 0;
}

/* Drivers that take requests: their bios' ends are not traced, but those of the request's bytes. */
static __always_inline int on_bios_complete(bool direct, struct request *rq, int error, u32 bytes)
{
	struct bio *bio = NULL, *next;
	u64 to_key = 0;
	u32 size, i;

	if (!running)
		return 0;
	bpf_core_read(&bio, sizeof(bio), &rq->bio); /* a number, to go on from */
	/* The data of a request that needs a flush: it ends once more after that. */
	if (!bio || GET(direct, rq, rq_flags) & cfg.flush_seq)
		return 0;
	if (direct)
		to_key = key_of(direct, rq->bio) - (u64)bio;
	for (i = 0; i < MAX_BIOS; i++) {
		size = BPF_CORE_READ(bio, bi_iter.bi_size);
		if (size > bytes)
			return 0;
		bytes -= size;
		next = BPF_CORE_READ(bio, bi_next);
		/* Split: the last of its parts ends it. */
		if (BPF_CORE_READ(bio, __bi_remaining.counter) <= 1) {
			if (cfg.chain_endio && (u64)BPF_CORE_READ(bio, bi_end_io) == cfg.chain_endio) {
				bio = BPF_CORE_READ(bio, bi_private);
				if (BPF_CORE_READ(bio, __bi_remaining.counter) <= 1)
					end_bio(direct, (u64)bio, (u64)bio + to_key, error);
			} else {
				end_bio(direct, (u64)bio, (u64)bio + to_key, error);
			}
		}
		if (!next || !bytes)
			return 0;
		bio = next;
	}
	return 0;
}

#endif
