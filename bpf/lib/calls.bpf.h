/* SPDX-License-Identifier: GPL-2.0 */
/* The calls on top of a sleeping task's kernel stack that bpf_get_task_stack() leaves out. */
#ifndef TRACEBELT_CALLS_H
#define TRACEBELT_CALLS_H

#include "unwind.bpf.h"

/* The function that the instruction before a return address called; 0: none, or not by its address. */
static __always_inline u64 callee(u64 ret)
{
#if defined(__TARGET_ARCH_x86)
	struct {
		u8 pad[3];
		u8 opcode;
		s32 distance;
	} call = {};

	if (bpf_probe_read_kernel(&call.opcode, 5, (void *)(ret - 5)) || call.opcode != 0xe8)
		return 0;
	return ret + call.distance;
#elif defined(__TARGET_ARCH_arm64)
	u32 insn = 0;

	if (bpf_probe_read_kernel(&insn, 4, (void *)(ret - 4)) || insn >> 26 != 0x25)
		return 0;
	return ret - 4 + (((s64)(s32)(insn << 6)) >> 4);
#else
	return 0;
#endif
}

/* Where a task that does not run has left its kernel stack. */
static __always_inline u64 kernel_sp(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(task, thread.sp);
#elif defined(__TARGET_ARCH_arm64)
	return BPF_CORE_READ(task, thread.cpu_context.sp);
#else
	return 0;
#endif
}

/* From the stack that begins at `sp`, into the scratch map's kernel stack: its addresses are not needed any
 * more. */
__noinline int find_calls(u64 sp, u32 sweep)
{
	struct scratch *scratch = scratch_of(sweep);
	struct stack *to;
	u32 words = CHUNK / 8, i;
	u64 text;

	if (!scratch)
		return 0;
	to = &scratch->kernel;
	text = to->ip[0];
	to->frames = 0;
	if (bpf_probe_read_kernel(scratch->chunk, CHUNK, (void *)sp)) {
		words /= 2; /* it is nearly empty */
		if (bpf_probe_read_kernel(scratch->chunk, CHUNK / 2, (void *)sp))
			return 0;
	}
	for (i = 0; i < CHUNK / 8; i++) {
		u64 word = scratch->chunk[i], called;
		u32 at = to->frames; /* in memory: see struct scratch */

		if (i >= words || at > MAX_FRAMES - 2)
			break;
		if (word - text + (1ULL << 31) >= 1ULL << 32) /* kernel and modules are not further apart */
			continue;
		called = callee(word);
		if (!called)
			continue;
		to->ip[at] = word;
		to->ip[at + 1] = called;
		to->frames = at + 2;
	}
	return 0;
}

/* For a kernel stack that has just been sent. Scheduler functions (mutex_lock, io_schedule,
 * schedule_timeout) are left out of it, and they are what a user wants to read. So user space gets every
 * word on top of that stack which may be a return address, with the function that the call before it
 * goes to, and puts the chain together: tools/offcputime/src/calls.rs. Once for each stack that is new. */
static __always_inline void send_calls(struct task_struct *task, struct scratch *scratch, bool sweep,
				       u64 wake_bytes)
{
	scratch->kernel.record = RECORD_CALLS;
	find_calls(kernel_sp(task), sweep);
	stack_send(&scratch->kernel, scratch->kernel.frames, wake_bytes);
}

#endif
