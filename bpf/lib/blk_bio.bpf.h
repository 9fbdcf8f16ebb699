/* SPDX-License-Identifier: GPL-2.0 */
/* A bio's life, from its submission to the end of all of its parts. */
#ifndef TRACEBELT_BLK_BIO_H
#define TRACEBELT_BLK_BIO_H

#include "blk_io.bpf.h"

/* In one request. Ends beyond are counted as unmatched when the bio is used again. */
#define MAX_BIOS 256
/* Chained to each other, that end at once. */
#define MAX_CHAIN 256
#define EEXIST 17

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

/* Bios that came to the limits of their group, by address: since when, and whose. They are there until their
 * submission is traced, at once or when it is their turn, or until their end if it never is. */
struct held {
	u64 since;
	u32 tgid;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u64);
	__type(value, struct held);
} held_back SEC(".maps");

/* Was there any? While there was none, nobody looks for one. */
bool any_held;

/* What was traced already is sent on to another disk: it is the same bio. What has been here before comes
 * back from its wait: the first time stands. Where there is no room for it, its wait will be missing: it
 * counts as lost, too. */
static __always_inline int on_throttle(struct bio *bio)
{
	struct held fresh = {};
	u64 key = (u64)bio;
	int error; /* its upper half is not the kernel's */

	if (!running || bio->bi_flags & cfg.bio_traced || !bio_wanted(true, bio))
		return 0;
	fresh.since = bpf_ktime_get_ns();
	fresh.tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(&fresh.comm, sizeof(fresh.comm));
	error = bpf_map_update_elem(&held_back, &key, &fresh,
				    bio->bi_flags & cfg.bio_throttled ? BPF_NOEXIST : BPF_ANY);
	if (error && error != -EEXIST)
		count_loss(LOST_MAP_FULL);
	any_held = true;
	return 0;
}

static __always_inline void take_held(struct blk_start *start, struct bio *bio)
{
	u64 key = (u64)bio;
	struct held *held;

	held = bpf_map_lookup_elem(&held_back, &key);
	if (!held)
		return;
	start->queued = held->since;
	if (cfg.slower_ns) {
		start->tgid = held->tgid;
		__builtin_memcpy(start->comm, held->comm, sizeof(start->comm));
	}
	bpf_map_delete_elem(&held_back, &key);
}

/* It has ended, and its submission was not traced. */
static __always_inline void lose_held(struct bio *bio)
{
	u64 key = (u64)bio;

	if (!bpf_map_delete_elem(&held_back, &key))
		count_loss(LOST_UNMATCHED);
}

static __always_inline int on_bio_queue(bool direct, struct bio *bio)
{
	struct blk_start *start;
	u64 key;

	if (!running || !bio_wanted(direct, bio))
		return 0;
	key = key_of(direct, bio);
	start = begin(direct, key, find_start(direct, key));
	if (!start)
		return 0;
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
	if (any_held)
		take_held(start, bio);
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

	if (!start) {
		if (any_held)
			lose_held(bio);
		return 0;
	}
	now = bpf_ktime_get_ns();
	bytes = start->bytes;
	flags = cfg.by || cfg.slower_ns ? bio_flags(BPF_CORE_READ(bio, bi_opf), bytes) : 0;
	error = error ?: BPF_CORE_READ(bio, bi_status); /* of a part that ended before */
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

/* Of drivers that take bios: all of it has ended. NVMe multipath traces here that one of its requests will
 * end, before its status is known (35fe0d12c8a3, "nvme: trace bio completion"): that request's own end
 * counts. */
static __always_inline int on_bio_complete(bool direct, struct bio *bio)
{
	if (!running)
		return 0;
	if (GET(direct, bio, bi_opf) & cfg.driver_flag && !GET(direct, bio, bi_status))
		return 0;
	end_one(direct, bio, key_of(direct, bio), 0);
	return 0;
}

/* Global functions, these and those below: the verifier looks at each once, and not in every round of the
 * loops. */
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

/* A bio ends with the last of what was chained to it, the parts that were split off it, or more that its
 * submitter had to do; and then its own end may be the last that another waits for. Returns the bio that has
 * to wait for more; 0: none. `ends` of the bio `due` are already in hand: the kernel takes them off only
 * after the trace. */
static __always_inline u64 end_chain(bool direct, u64 io, u64 to_key, int error, u64 due, u32 ends)
{
	struct bio *bio = (struct bio *)io;
	u32 i;

	for (i = 0; i < MAX_CHAIN; i++) {
		int left = BPF_CORE_READ(bio, __bi_remaining.counter);

		if ((u64)bio == due)
			left -= ends;
		if (left > 1)
			return (u64)bio;
		end_bio(direct, (u64)bio, (u64)bio + to_key, error);
		if (!cfg.chain_endio || (u64)BPF_CORE_READ(bio, bi_end_io) != cfg.chain_endio)
			return 0;
		bio = BPF_CORE_READ(bio, bi_private);
	}
	count_loss(LOST_UNMATCHED); /* how many more there are is not known */
	return 0;
}

__attribute__((noinline)) u64 end_chain_btf(u64 bio, u64 to_key, int error, u64 due, u32 ends)
{
	return end_chain(true, bio, to_key, error, due, ends);
}

__attribute__((noinline)) u64 end_chain_raw(u64 bio, u64 to_key, int error, u64 due, u32 ends)
{
	return end_chain(false, bio, to_key, error, due, ends);
}

/* How many ends are in hand, of the bio that waits. Global, too: or older verifiers follow each number by
 * itself. */
__attribute__((noinline)) u32 ends_in_hand(u64 waits, u64 due, u32 ends)
{
	return waits == due ? ends + 1 : 1;
}

/* Drivers that take requests: their bios' ends are not traced, but those of the request's bytes. */
static __always_inline int on_bios_complete(bool direct, struct request *rq, int error, u32 bytes)
{
	struct bio *bio = NULL, *next;
	u64 to_key = 0, due = 0, waits;
	u32 ends = 0, size, i;

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
		waits = direct ? end_chain_btf((u64)bio, to_key, error, due, ends)
			       : end_chain_raw((u64)bio, to_key, error, due, ends);
		if (waits) {
			ends = ends_in_hand(waits, due, ends);
			due = waits;
		}
		if (!next || !bytes)
			return 0;
		bio = next;
	}
	return 0;
}

#endif
