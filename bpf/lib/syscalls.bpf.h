/* SPDX-License-Identifier: GPL-2.0 */
/* The one place that knows an architecture: system call numbers, where their arguments are, and how to
 * tell a 32-bit caller. A new architecture adds one more branch here and its pt_regs in vmlinux.h.
 *
 * All of it holds at sys_exit too: there only the register of the result has changed, and the kernel
 * keeps a copy of what was in it (orig_ax, orig_x0).
 */
#ifndef TRACEBELT_SYSCALLS_H
#define TRACEBELT_SYSCALLS_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "compat.bpf.h"

#define NO_SUCH_CALL 0xffffffff

#if defined(__TARGET_ARCH_x86)

#define NR_open 2
#define NR_creat 85
#define NR_openat 257
#define NR_openat2 437
#define NR_open_by_handle_at 304

/* i386 */
#define NR_compat_open 5
#define NR_compat_creat 8
#define NR_compat_openat 295
#define NR_compat_openat2 437
#define NR_compat_open_by_handle_at 342

#define O_LARGEFILE 00100000

/* arch/x86/include/asm/thread_info.h: this call came through a 32-bit entry. It belongs to the call and
 * not to the program: a 64-bit one can make such calls too. */
#define TS_COMPAT 2
/* arch/x86/include/uapi/asm/unistd.h: x32 calls are the 64-bit ones with this bit; no other knows it. */
#define X32_SYSCALL_BIT 0x40000000

static __always_inline u32 syscall_nr(bool direct, struct pt_regs *regs)
{
	return (u32)GET(direct, regs, orig_ax) & ~X32_SYSCALL_BIT;
}

static __always_inline bool syscall_compat(bool direct, struct pt_regs *regs, struct task_struct *task)
{
	return GET(direct, task, thread_info.status) & TS_COMPAT;
}

/* n: a constant, 0 to 3. A 32-bit caller's registers may carry rubbish in their upper halves. */
static __always_inline u64 syscall_arg(bool direct, struct pt_regs *regs, bool compat, int n)
{
	if (compat) {
		switch (n) {
		case 0:
			return (u32)GET(direct, regs, bx);
		case 1:
			return (u32)GET(direct, regs, cx);
		case 2:
			return (u32)GET(direct, regs, dx);
		default:
			return (u32)GET(direct, regs, si);
		}
	}
	switch (n) {
	case 0:
		return GET(direct, regs, di);
	case 1:
		return GET(direct, regs, si);
	case 2:
		return GET(direct, regs, dx);
	default:
		return GET(direct, regs, r10);
	}
}

#elif defined(__TARGET_ARCH_arm64)

#define NR_open NO_SUCH_CALL
#define NR_creat (NO_SUCH_CALL - 1)
#define NR_openat 56
#define NR_openat2 437
#define NR_open_by_handle_at 265

/* arm */
#define NR_compat_open 5
#define NR_compat_creat 8
#define NR_compat_openat 322
#define NR_compat_openat2 437
#define NR_compat_open_by_handle_at 371

#define O_LARGEFILE 00400000

/* arch/arm64/include/uapi/asm/ptrace.h: the caller runs 32-bit code. */
#define PSR_MODE32_BIT 0x10

static __always_inline u32 syscall_nr(bool direct, struct pt_regs *regs)
{
	return GET(direct, regs, syscallno);
}

static __always_inline bool syscall_compat(bool direct, struct pt_regs *regs, struct task_struct *task)
{
	return GET(direct, regs, pstate) & PSR_MODE32_BIT;
}

static __always_inline u64 syscall_arg(bool direct, struct pt_regs *regs, bool compat, int n)
{
	u64 value = n ? GET(direct, regs, regs[n]) : GET(direct, regs, orig_x0);

	return compat ? (u32)value : value;
}

#else
#error "this architecture's system calls are not described here yet"
#endif

#endif
