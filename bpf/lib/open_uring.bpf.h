/* SPDX-License-Identifier: GPL-2.0 */
/* Opens through io_uring. What is asked for is known when the request is submitted: the kernel frees its
 * copy of the name before it completes. The result is known then, often in another thread.
 */
#ifndef TRACEBELT_OPEN_URING_H
#define TRACEBELT_OPEN_URING_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "open_event.bpf.h"
#include "syscalls.bpf.h"

/* include/uapi/linux/io_uring.h */
#define IORING_OP_OPENAT 18
#define IORING_OP_OPENAT2 28

#define IN_FLIGHT_SIZE (sizeof(struct open_head) + NAME_ROOM)

/* Requests in flight, by struct io_kiocb. The front part of an event, with the name. Memory is taken
 * only for those that are in flight. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__uint(key_size, sizeof(u64));
	__uint(value_size, IN_FLIGHT_SIZE);
} in_flight SEC(".maps");

static __always_inline bool is_open(u8 opcode)
{
	return opcode == IORING_OP_OPENAT || opcode == IORING_OP_OPENAT2;
}

/* SCRATCH_REFUSED: the name is still in the memory of the process. */
static __always_inline int begin_uring(bool direct, enum scratch which, struct io_kiocb *req,
				       const struct open_args *args, bool own_table)
{
	struct task_struct *task = current_task(direct);
	u64 key = (u64)req;
	struct open_event *event;

	if (!flags_wanted(args->flags) || !caller_wanted(direct, task))
		return 0;
	event = new_event(direct, task, which, ROUTE_URING, args);
	if (!event)
		return 0;
	if (own_table)
		event->head.bits |= OPEN_DIRECT;
	if (which == SCRATCH_REFUSED)
		set_name(event, read_user_string(event->text, NAME_ROOM, args->name));
	else
		set_name(event, bpf_probe_read_kernel_str(event->text, NAME_ROOM, args->name));
	/* An entry that is still there is of a request that never completed. */
	if (bpf_map_lookup_elem(&in_flight, &key))
		count_loss(LOST_UNMATCHED);
	if (bpf_map_update_elem(&in_flight, &key, event, BPF_ANY))
		count_loss(LOST_MAP_FULL);
	return 0;
}

/* Submitted: struct io_open lies at the front of the request, in place of its file. */
static __always_inline int on_submit(bool direct, struct io_kiocb *req)
{
	struct io_open *open = (void *)req;
	struct open_args args = {};

	if (!is_open(GET(direct, req, opcode)) || !running)
		return 0;
	args.name = BPF_CORE_READ(io_open_filename(open), name);
	/* The kernel has put O_LARGEFILE in, as it does for every 64-bit open. */
	args.flags = BPF_CORE_READ(open, how.flags) & ~(u64)O_LARGEFILE;
	args.mode = BPF_CORE_READ(open, how.mode);
	args.resolve = BPF_CORE_READ(open, how.resolve);
	args.dfd = BPF_CORE_READ(open, dfd);
	return begin_uring(direct, SCRATCH_SUBMIT, req, &args, BPF_CORE_READ(open, file_slot) != 0);
}

/* Refused before it was submitted, over its arguments: it completes all the same. */
static __always_inline int on_refused(bool direct, const struct io_uring_sqe *sqe, struct io_kiocb *req)
{
	u8 opcode = GET(direct, req, opcode);
	struct open_args args = {};

	if (!is_open(opcode) || !running)
		return 0;
	args.name = (void *)BPF_CORE_READ(sqe, addr);
	args.dfd = BPF_CORE_READ(sqe, fd);
	if (opcode == IORING_OP_OPENAT2) {
		read_how(&args, (void *)BPF_CORE_READ(sqe, addr2));
	} else {
		args.flags = BPF_CORE_READ(sqe, open_flags);
		args.mode = BPF_CORE_READ(sqe, len);
	}
	return begin_uring(direct, SCRATCH_REFUSED, req, &args, false);
}

/* `req` is a bare number to the verifier: the tracepoint declares it void *. */
static __always_inline int on_complete(bool direct, struct io_kiocb *req)
{
	struct open_event *began, *event;
	u32 which = SCRATCH_COMPLETE, size;
	struct task_struct *task;
	struct open_head *head;
	u64 key = (u64)req;

	if (!is_open(BPF_CORE_READ(req, opcode)) || !running)
		return 0;
	began = bpf_map_lookup_elem(&in_flight, &key);
	event = bpf_map_lookup_elem(&scratch, &which);
	if (!began || !event)
		return 0;
	size = began->head.name_size;
	barrier_var(size);
	if (size <= NAME_ROOM)
		bpf_probe_read_kernel(event, sizeof(*head) + size, began);
	bpf_map_delete_elem(&in_flight, &key);

	head = &event->head;
	head->ret = BPF_CORE_READ(req, cqe.res);
	if (cfg.failed && head->ret >= 0)
		return 0;
	head->latency_ns = bpf_ktime_get_ns() - head->at;
	head->at += head->latency_ns;
	if (head->latency_ns < cfg.slower_ns)
		return 0;
	if (cfg.full) {
		/* Every thread that completes requests shares the files of the process, unless it is
		 * another process that reaps them. */
		task = current_task(direct);
		if ((u32)GET(direct, task, tgid) == head->tgid)
			add_path(direct, event, task);
	}
	send_event(event);
	return 0;
}

SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(submit_req_btf, struct io_kiocb *req)
{
	return on_submit(true, req);
}

SEC("tp_btf/io_uring_submit_sqe") /* before 6.4 */
int BPF_PROG(submit_sqe_btf, struct io_kiocb *req)
{
	return on_submit(true, req);
}

SEC("tp_btf/io_uring_req_failed")
int BPF_PROG(refused_btf, const struct io_uring_sqe *sqe, struct io_kiocb *req)
{
	return on_refused(true, sqe, req);
}

SEC("tp_btf/io_uring_complete")
int BPF_PROG(complete_btf, void *ring_ctx, struct io_kiocb *req)
{
	return on_complete(true, req);
}

SEC("raw_tp/io_uring_submit_req")
int BPF_PROG(submit_req_raw, struct io_kiocb *req)
{
	return on_submit(false, req);
}

SEC("raw_tp/io_uring_submit_sqe")
int BPF_PROG(submit_sqe_raw, struct io_kiocb *req)
{
	return on_submit(false, req);
}

SEC("raw_tp/io_uring_req_failed")
int BPF_PROG(refused_raw, const struct io_uring_sqe *sqe, struct io_kiocb *req)
{
	return on_refused(false, sqe, req);
}

SEC("raw_tp/io_uring_complete")
int BPF_PROG(complete_raw, void *ring_ctx, struct io_kiocb *req)
{
	return on_complete(false, req);
}

#endif
