// SPDX-License-Identifier: GPL-2.0
/* biolatency: how long block I/O takes, and where: in a queue of the kernel or in the device.
 *
 * A request is queued when it is inserted into a scheduler or a software queue; one that bypasses them, when
 * it is submitted. It is with the device from its first issue to the completion of its last byte. Parts do
 * not end it, and being requeued does not start it again.
 *
 * Cost: a reading of the clock and a cache line at each end, and a histogram update. The programs at
 * insertion and merging are loaded only if the queue is asked for.
 */
#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "blk_bio.bpf.h"
#include "blk_request.bpf.h"

/* Either the tp_btf or the raw_tp ones are loaded: see HOOKS in tools/biolatency. */

/* What the tracepoint is about is its first or its second argument: a constant of the run. */
static __always_inline void *subject(unsigned long long *ctx, u8 arg)
{
	void *found;

	if (arg) {
		found = (void *)ctx[1];
		barrier_var(found);
	} else {
		found = (void *)ctx[0];
		barrier_var(found);
	}
	return found;
}

#define BOTH_WAYS(name, tracepoint, body)                                                                    \
	SEC("tp_btf/" #tracepoint)                                                                           \
	int name##_btf(unsigned long long *ctx)                                                              \
	{                                                                                                    \
		const bool direct = true;                                                                    \
		return body;                                                                                 \
	}                                                                                                    \
	SEC("raw_tp/" #tracepoint)                                                                           \
	int name##_raw(unsigned long long *ctx)                                                              \
	{                                                                                                    \
		const bool direct = false;                                                                   \
		return body;                                                                                 \
	}

BOTH_WAYS(insert, block_rq_insert, on_insert(direct, subject(ctx, cfg.insert_arg)))
BOTH_WAYS(issue, block_rq_issue, on_issue(direct, subject(ctx, cfg.issue_arg)))
BOTH_WAYS(requeue, block_rq_requeue, on_requeue(direct, subject(ctx, cfg.requeue_arg)))
BOTH_WAYS(merge, block_rq_merge, on_merge(direct, subject(ctx, cfg.merge_arg)))
BOTH_WAYS(complete, block_rq_complete, on_complete(direct, (void *)ctx[0], ctx[1], ctx[2]))
BOTH_WAYS(getrq, block_getrq, on_getrq(direct, subject(ctx, cfg.getrq_arg)))
BOTH_WAYS(bio_queue, block_bio_queue, on_bio_queue(direct, subject(ctx, cfg.queue_arg)))
BOTH_WAYS(bios_complete, block_rq_complete, on_bios_complete(direct, (void *)ctx[0], ctx[1], ctx[2]))
BOTH_WAYS(bio_complete, block_bio_complete, on_bio_complete(direct, (void *)ctx[1]))

/* Only bios of groups that have limits come here; before 5.16, a7b36ee6ba29 ("block: move blk-throtl fast
 * path inline"), all do, to a function of another name. */
SEC("fentry/__blk_throtl_bio")
int throttle_limited(unsigned long long *ctx)
{
	return on_throttle((void *)ctx[0]);
}

SEC("fentry/blk_throtl_bio")
int throttle_all(unsigned long long *ctx)
{
	return on_throttle((void *)ctx[0]);
}

char LICENSE[] SEC("license") = "GPL";
