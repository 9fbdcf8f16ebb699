/* SPDX-License-Identifier: GPL-2.0 */
/* A request's life: inserted, issued, handed back, merged away, completed. */
#ifndef TRACEBELT_BLK_REQUEST_H
#define TRACEBELT_BLK_REQUEST_H

#include "blk_io.bpf.h"

/* --slower: who submitted what became a request, by the bio. The oldest go: a bio that was merged away never
 * comes back for its entry. */
struct submitter {
	u64 sector; /* the request's, unless another bio has been merged at its front */
	u32 tgid;
	u32 unused;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct submitter);
} submitters SEC(".maps");

/* --inflight: requests now in flight, by disk. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, s64);
} depths SEC(".maps");

/* When the run began; 0 until user space has said so. */
u64 begun_at SEC(".data.begun");

/* Was it submitted during the run? No, if the kernel has not noted when. */
static __always_inline bool is_new(u64 submitted)
{
	return begun_at && submitted > begun_at;
}

static __always_inline bool request_wanted(bool direct, struct request *rq)
{
	if (!op_wanted(GET(direct, rq, cmd_flags)))
		return false;
	if (cfg.ranges && !sector_wanted(request_dev(direct, rq), GET(direct, rq, __sector)))
		return false;
	return !cfg.by_cgroup || group_wanted(GET(direct, rq, bio));
}

static __always_inline void set_request_key(struct blk_key *key, bool direct, struct request *rq, u32 bytes)
{
	u32 part = cfg.by & BY_PARTITION ? request_partition(direct, rq) : 0;
	u32 dev = 0;

	if (!cfg.by)
		return;
	if (cfg.by & BY_DISK || (cfg.by & BY_PARTITION && !part))
		dev = request_dev(direct, rq);
	set_key(key, dev, part ? part : dev, GET(direct, rq, cmd_flags), bytes, GET(direct, rq, bio));
}

static __always_inline void note_submitter(bool direct, struct blk_start *start, struct request *rq)
{
	u64 bio = (u64)GET(direct, rq, bio);
	struct submitter *who = bpf_map_lookup_elem(&submitters, &bio);

	if (!who)
		return;
	if (who->sector == GET(direct, rq, __sector)) {
		start->tgid = who->tgid;
		__builtin_memcpy(start->comm, who->comm, sizeof(start->comm));
	}
	bpf_map_delete_elem(&submitters, &bio);
}

/* The bio gets a request: whoever runs is its submitter. */
static __always_inline int on_getrq(bool direct, struct bio *bio)
{
	struct submitter who = {};
	u64 key = (u64)bio;

	if (!running)
		return 0;
	who.sector = GET(direct, bio, bi_iter.bi_sector);
	who.tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(&who.comm, sizeof(who.comm));
	bpf_map_update_elem(&submitters, &key, &who, BPF_ANY);
	return 0;
}

static __always_inline void leave_depth(bool direct, struct request *rq)
{
	u32 dev = request_dev(direct, rq);
	s64 *depth = bpf_map_lookup_elem(&depths, &dev);

	if (depth)
		__sync_fetch_and_add(depth, -1);
}

static __always_inline struct blk_start *begin_request(bool direct, u64 key, struct blk_start *stale,
						       struct request *rq)
{
	if (cfg.depth && stale && stale->issued && !stale->requeued)
		leave_depth(direct, rq);
	return begin(direct, key, stale);
}

static __always_inline int on_insert(bool direct, struct request *rq)
{
	struct blk_start *start;
	u64 key;

	if (!running || !request_wanted(direct, rq))
		return 0;
	key = key_of(direct, rq);
	start = find_start(direct, key);
	if (start && start->requeued) /* the first time stands */
		return 0;
	start = begin_request(direct, key, start, rq);
	if (!start)
		return 0;
	start->queued = bpf_ktime_get_ns();
	if (cfg.slower_ns)
		note_submitter(direct, start, rq);
	return 0;
}

/* One more in flight; how many there are now, 0 if there is no room to count them. */
static __always_inline u64 enter_depth(bool direct, struct request *rq)
{
	u32 dev = request_dev(direct, rq);
	s64 *depth = bpf_map_lookup_elem(&depths, &dev);
	s64 zero = 0;

	if (!depth) {
		bpf_map_update_elem(&depths, &dev, &zero, BPF_NOEXIST);
		depth = bpf_map_lookup_elem(&depths, &dev);
		if (!depth)
			return 0;
	}
	__sync_fetch_and_add(depth, 1);
	return *depth;
}

static __always_inline void count_depth(bool direct, struct request *rq, u32 bytes)
{
	u64 depth = enter_depth(direct, rq);
	struct blk_key key = {};

	if (!depth)
		return;
	set_request_key(&key, direct, rq, bytes);
	add_cell(&key, SLOT_DEPTH, depth);
}

static __always_inline int on_issue(bool direct, struct request *rq)
{
	struct blk_start *start;
	u64 key, now, submitted;

	if (!running || !request_wanted(direct, rq))
		return 0;
	key = key_of(direct, rq);
	start = find_start(direct, key);
	if (start && start->requeued && start->issued) { /* the first time stands */
		start->requeued = 0;
		if (cfg.depth)
			enter_depth(direct, rq);
		return 0;
	}
	if (cfg.span == SPAN_TOTAL && !cfg.slower_ns && start && !start->issued) {
		now = start->queued; /* all that counts then */
	} else {
		now = bpf_ktime_get_ns();
	}
	if (!start || start->issued) { /* not inserted, or nobody asked */
		submitted = cfg.span == SPAN_DEVICE && !cfg.slower_ns ? 0 : request_submitted(direct, rq);
		if (submitted && !is_new(submitted)) { /* some of its queue time has not been seen */
			if (start)
				lose(direct, start, key);
			return 0;
		}
		start = begin_request(direct, key, start, rq);
		if (!start)
			return 0;
		start->queued = submitted && submitted < now ? submitted : now;
		if (cfg.slower_ns)
			note_submitter(direct, start, rq);
	}
	start->requeued = 0;
	start->issued = now;
	start->op = GET(direct, rq, cmd_flags) & OP_MASK;
	start->bytes = 0;
	if (cfg.slower_ns)
		start->sector = GET(direct, rq, __sector);
	if (cfg.slower_ns || cfg.span == SPAN_SIZE || cfg.by & BY_SIZE)
		start->bytes = GET(direct, rq, __data_len);
	if (cfg.depth)
		count_depth(direct, rq, start->bytes);
	return 0;
}

static __always_inline int on_requeue(bool direct, struct request *rq)
{
	struct blk_key key = {};
	struct blk_start *start;

	if (!running)
		return 0;
	start = find_start(direct, key_of(direct, rq));
	if (!start)
		return 0;
	if (cfg.depth && start->issued && !start->requeued)
		leave_depth(direct, rq);
	start->requeued = 1;
	if (!start->issued) /* the driver had no room for it: it was never on its way */
		return 0;
	set_request_key(&key, direct, rq, start->bytes);
	add_cell(&key, SLOT_REQUEUED, 0);
	return 0;
}

/* Another request has taken over its bios. */
static __always_inline int on_merge(bool direct, struct request *rq)
{
	u64 key = key_of(direct, rq);
	struct blk_start *start;

	if (!running)
		return 0;
	start = find_start(direct, key);
	if (start)
		drop_start(direct, start, key);
	return 0;
}

/* It began before the run, or the kernel gave it up before it was issued, or its issue was not seen. */
static __always_inline void end_startless(bool direct, struct request *rq, int error)
{
	struct blk_key section = {};

	/* The end of a request that needed a flush: its data, if any, has come to its end before. */
	if (!GET(direct, rq, __data_len) && (GET(direct, rq, cmd_flags) & OP_MASK) != cfg.op_flush)
		return;
	if (!is_new(request_submitted(direct, rq))) {
		count_loss(BEGAN_BEFORE);
	} else if (error) {
		set_request_key(&section, direct, rq, GET(direct, rq, __data_len));
		add_error(&section, error);
		add_cell(&section, SLOT_UNISSUED, 0);
	} else {
		count_loss(LOST_UNMATCHED);
	}
}

static __always_inline int on_complete(bool direct, struct request *rq, int error, u32 bytes)
{
	u32 left = GET(direct, rq, __data_len);
	struct blk_key section = {};
	u64 key, now, queue, device;
	struct blk_start *start;

	if (!running)
		return 0;
	key = key_of(direct, rq);
	start = find_start(direct, key);
	if (bytes < left) { /* a part of it; an error of no bytes is tried again */
		if (start && error && bytes)
			start->error = error;
		return 0;
	}
	if (!start) {
		if (request_wanted(direct, rq))
			end_startless(direct, rq, error);
		return 0;
	}
	now = bpf_ktime_get_ns();
	error = error ?: start->error;
	if (!start->issued && !error) { /* its issue was not seen */
		lose(direct, start, key);
		return 0;
	}
	set_request_key(&section, direct, rq, start->bytes);
	if (error)
		add_error(&section, error);
	if (!start->issued) {
		add_cell(&section, SLOT_UNISSUED, 0);
		drop_start(direct, start, key);
		return 0;
	}
	if (cfg.depth && !start->requeued)
		leave_depth(direct, rq);
	if (cfg.slower_ns && now - start->queued >= cfg.slower_ns)
		send_event(start, now, request_dev(direct, rq), GET(direct, rq, cmd_flags), error);
	queue = start->issued - start->queued;
	device = now - start->issued;
	bytes = start->bytes;
	drop_start(direct, start, key);
	if (!cfg.slower_ns)
		add_io(direct, &section, queue, device, bytes);
	return 0;
}

#endif
