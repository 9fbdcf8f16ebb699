/* SPDX-License-Identifier: GPL-2.0 */
/* Walks stacks: the user's by frame pointers, the kernel's by the kernel.
 *
 * The loops are in functions of their own, with numbers as arguments and without `static`: the verifier looks
 * at such a function once, and not for each state that a caller can be in. That is the difference between
 * 800,000 steps and some thousands. They find their data in the scratch maps.
 *
 * The user's stack is read in one piece, a kilobyte from its pointer on: most walks end inside. What lies
 * beyond is read frame by frame. A frame is {the caller's frame, the return address} on x86 and arm64.
 */
#ifndef TRACEBELT_UNWIND_H
#define TRACEBELT_UNWIND_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "compat.bpf.h"
#include "stack.bpf.h"

/* include/linux/sched.h */
#define PF_KTHREAD 0x00200000

#define CHUNK sizeof(((struct scratch *)0)->chunk)

struct user_regs {
	u64 ip;
	u64 sp;
	u64 fp;
	bool is_64bit;
};

/* Before 5.15 there is no helper. On x86 the registers lie at the top of the task's kernel stack of 16 KiB;
 * where it has another size (KASAN), what is read is not of user code. */
#define KERNEL_STACK (16 << 10)
#define USER_CS 0x33

static __always_inline void user_regs_by_place(struct task_struct *task, struct user_regs *to)
{
#if defined(__TARGET_ARCH_x86)
	u64 top = (u64)BPF_CORE_READ(task, stack) + KERNEL_STACK;
	struct pt_regs *regs = (struct pt_regs *)(top - bpf_core_type_size(struct pt_regs));

	to->is_64bit = (u16)BPF_CORE_READ(regs, cs) == USER_CS;
	if (!to->is_64bit)
		return;
	to->ip = BPF_CORE_READ(regs, ip);
	to->sp = BPF_CORE_READ(regs, sp);
	to->fp = BPF_CORE_READ(regs, bp);
#else
	to->is_64bit = false;
#endif
}

/* Helpers are called with a typed task, whatever the kind of program. */
static __always_inline void user_regs(struct task_struct *task, struct user_regs *to)
{
	struct pt_regs *regs;

	if (!has_task_pt_regs()) {
		user_regs_by_place(task, to);
		return;
	}
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
#if defined(__TARGET_ARCH_x86)
	to->ip = regs->ip;
	to->sp = regs->sp;
	to->fp = regs->bp;
	to->is_64bit = regs->cs == USER_CS; /* 32-bit code runs in another */
#elif defined(__TARGET_ARCH_arm64)
	to->ip = regs->pc;
	to->sp = regs->sp;
	to->fp = regs->regs[29];
	to->is_64bit = !(regs->pstate & 0x10); /* PSR_MODE32_BIT */
#else
	to->is_64bit = false;
#endif
}

/* `remote`: of another task, which only sleepable programs can read. */
static __always_inline long read_user(struct task_struct *remote, void *to, u32 size, u64 from)
{
	if (remote)
		return bpf_copy_from_user_task(to, size, (void *)from, remote, 0);
	return bpf_probe_read_user(to, size, (void *)from);
}

/* Below the first page nothing can be mapped: a number that is no address. */
#define LOWEST_IP 4096

#if defined(__TARGET_ARCH_x86)

/* Is this an address to return to: does a call stand before it? */
static __always_inline bool after_call(struct task_struct *remote, u64 word)
{
	u8 code[8];

	if (read_user(remote, code, sizeof(code), word - sizeof(code)))
		return false;
	return code[3] == 0xe8 || /* call to an address; the others are by register or memory */
	       (code[2] == 0xff && (code[3] & 0x38) == 0x10) ||
	       (code[5] == 0xff && (code[6] & 0x38) == 0x10) || (code[6] == 0xff && (code[7] & 0x38) == 0x10);
}

/* Reads of code for one stack. One that meets no memory costs a fault. */
#define MAX_READS 2
/* More than the C library has, less than lies between it and anything else. */
#define NEAR (2ULL << 20)
/* Stacks are not larger as a rule, and nobody's code is on them. */
#define STACK_SIZE (8ULL << 20)

/* The frame pointer is that of the innermost function that keeps one, and the C library's mostly do not. So
 * the walk leaves out the function that called into the library: the one that a user wants to see. It is in
 * the words below that frame, and so user space gets those; here they only have to tell one such stack
 * from another. Those that look like addresses in the library itself are taken as they are; the first other
 * one that stands behind a call is the caller. For a system call's wrapper it is the first word of all. */
static __always_inline u64 hash_top(struct task_struct *remote, const struct user_regs *regs,
				    struct scratch *scratch, u64 hash)
{
	u64 room = regs->fp - regs->sp;
	u32 i;

	scratch->reads = 0;
	scratch->sp = regs->sp;
	scratch->fp = regs->fp;
	scratch->top = TOP_WORDS;
	if (room <= (TOP_WORDS - 2) * 8)
		scratch->top = (u32)room / 8 + 2; /* with the frame itself, to know it by */
	for (i = 0; i < TOP_WORDS; i++) {
		u64 word = scratch->chunk[i];

		if (i >= scratch->top)
			break;
		if (word < 0x10000 || word >> 47 || word - regs->sp + STACK_SIZE < 2 * STACK_SIZE)
			continue;
		if (word - regs->ip + NEAR < 2 * NEAR) {
			hash = stack_mix(hash, word);
			continue;
		}
		if (scratch->reads >= MAX_READS)
			break;
		scratch->reads++;
		if (after_call(remote, word))
			return stack_mix(hash, word);
	}
	return hash;
}

#else /* elsewhere the C library has frame pointers */

static __always_inline u64 hash_top(struct task_struct *remote, const struct user_regs *regs,
				    struct scratch *scratch, u64 hash)
{
	return hash;
}

#endif

/* By frame pointers, from `regs` on, into the user stack of the scratch memory. */
static __always_inline void walk_frames(struct task_struct *remote, const struct user_regs *regs, u32 depth,
					struct scratch *scratch)
{
	u64 sp = regs->sp, fp = regs->fp, hash = stack_mix(0, regs->ip);
	u64 *chunk = scratch->chunk;
	struct stack *to = &scratch->user;
	bool have = !read_user(remote, chunk, CHUNK, sp);
	struct {
		u64 fp;
		u64 ret;
	} frame;
	u32 end = END_DEEP;
	u32 i;

	to->ip[0] = regs->ip;
	for (i = 1; i < MAX_FRAMES && i < depth; i++) {
		u64 off = fp - sp;

		if (!fp) {
			end = END_WHOLE;
			break;
		}
		if (have && off <= CHUNK - sizeof(frame) && !(off & 7)) {
			u32 word = off >> 3;

			barrier_var(word);
			if (word > CHUNK / 8 - 2) /* never; said for the verifier */
				break;
			frame.fp = chunk[word];
			frame.ret = chunk[word + 1];
		} else if (off & 7) {
			end = END_BROKEN;
			break;
		} else if (read_user(remote, &frame, sizeof(frame), fp)) {
			end = END_FAULT;
			break;
		}
		if (frame.ret < LOWEST_IP) {
			end = frame.ret || frame.fp ? END_BROKEN : END_WHOLE;
			break;
		}
		to->ip[i] = frame.ret;
		hash = stack_mix(hash, frame.ret);
		if (frame.fp && frame.fp <= fp) { /* callers are further up */
			end = END_BROKEN;
			i++;
			break;
		}
		fp = frame.fp;
	}
	to->frames = i;
	to->end = end;
	scratch->top = 0;
	if (have)
		hash = hash_top(remote, regs, scratch, hash);
	to->hash = stack_hashed(hash);
}

/* The user stack of current, which is 64-bit code. */
__noinline int walk_user_frames(u32 depth)
{
	struct scratch *scratch = scratch_of(false);
	struct user_regs regs = {};

	if (!scratch)
		return 0;
	user_regs(current_task(has_task_pt_regs()), &regs);
	walk_frames(NULL, &regs, depth, scratch);
	return 0;
}

/* Hashes the user or the kernel stack in a scratch map. */
__noinline int hash_frames(u32 user, u32 sweep)
{
	struct scratch *scratch = scratch_of(sweep);
	struct stack *stack;
	u64 hash = 0;
	u32 i;

	if (!scratch)
		return 0;
	stack = user ? &scratch->user : &scratch->kernel;
	for (i = 0; i < MAX_FRAMES; i++) {
		if (i >= stack->frames)
			break;
		hash = stack_mix(hash, stack->ip[i]);
	}
	stack->hash = stack->frames ? stack_hashed(hash) : STACK_NONE;
	return 0;
}

static __always_inline void take_frames(struct stack *to, long size, u32 depth, bool user, bool sweep)
{
	to->frames = size > 0 ? (u32)size / 8 : 0;
	to->end = to->frames < depth ? END_WHOLE : END_DEEP;
	hash_frames(user, sweep);
}

/* The user stack of `current` into the scratch map. Its hash is STACK_NONE if there is none. By the kernel
 * for 32-bit programs and where the registers are not found. */
static __always_inline void walk_user(void *ctx, u32 depth, struct scratch *scratch)
{
	struct stack *to = &scratch->user;
	struct user_regs regs = {};

	scratch->top = 0;
	user_regs(current_task(has_task_pt_regs()), &regs);
	if (regs.is_64bit && regs.ip)
		walk_user_frames(depth);
	else if (has_task_pt_regs() && !regs.ip) /* an io_uring worker: it has no user code */
		take_frames(to, 0, depth, true, false);
	else
		take_frames(to, bpf_get_stack(ctx, to->ip, depth * 8, BPF_F_USER_STACK), depth, true, false);
}

/* The kernel stack of a task that does not run; the kernel leaves out what it calls scheduler functions:
 * see calls.bpf.h. */
static __always_inline void walk_kernel(struct task_struct *task, u32 depth, struct scratch *scratch,
					bool sweep)
{
	struct stack *to = &scratch->kernel;

	to->record = RECORD_KERNEL;
	take_frames(to, bpf_get_task_stack(task, to->ip, depth * 8, 0), depth, false, sweep);
}

/* That of current, with our program on top of it: user space cuts that off by name. */
static __always_inline void walk_own_kernel(void *ctx, u32 depth, struct scratch *scratch)
{
	struct stack *to = &scratch->kernel;

	to->record = RECORD_KERNEL;
	take_frames(to, bpf_get_stack(ctx, to->ip, depth * 8, 0), depth, false, false);
}

#endif
