/* SPDX-License-Identifier: GPL-2.0 */
/* Whole stacks, each sent to user space once.
 *
 * A stack is known by a 64-bit hash of its addresses, which is all that counting needs. Its frames go
 * through the ring the first time it is met; `seen_stacks` says which have gone. That map forgets the
 * least recently used when it is full: the stack is then sent again, which does no harm. So no number of
 * stacks is too large here, and user space alone decides how many it keeps. (bpf_get_stackid has room for
 * one stack in each slot: it loses those that collide, the hottest among them.)
 */
#ifndef TRACEBELT_STACK_H
#define TRACEBELT_STACK_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "ring.bpf.h"

/* kernel.perf_event_max_stack is 127 unless raised. */
#define MAX_FRAMES 127

/* In place of a hash. */
enum stack_id {
	STACK_NONE, /* there is none: a kernel thread has no user stack */
	STACK_UNSEEN, /* there was nobody to look at it */
	STACK_NOT_KEPT, /* no room on the way to user space */
	STACK_IDS = 8,
};

/* What comes through the ring. */
enum record {
	RECORD_USER, /* a user stack */
	RECORD_KERNEL, /* a kernel stack */
	RECORD_CALLS, /* of a kernel stack: pairs of return address and the function called before it */
	RECORD_WAKER,
	RECORD_PROCESS, /* a process is met for the first time, or has another program now */
	RECORD_FULL, /* the counters have to be collected */
	RECORD_REGS, /* in place of a user stack: ip, sp and fp, for user space to walk it from */
	RECORD_TOP, /* of a user stack: its words from the stack pointer on, for what frame pointers skip */
};

/* Why a walk ended. */
enum stack_end {
	END_WHOLE, /* at the outermost frame */
	END_DEEP, /* at the limit of frames */
	END_FAULT, /* at memory that cannot be read just now */
	END_BROKEN, /* at what is no frame: the program does not keep frame pointers */
};

/* Also the header of every other record: those have their words in place of addresses. */
struct stack {
	u64 hash;
	u32 record; /* enum record */
	u32 frames;
	u32 tgid;
	u32 image; /* how many programs the process has executed: addresses mean something else after each */
	u32 end; /* enum stack_end */
	u32 tid;
	u64 ip[MAX_FRAMES];
};

#define STACK_HEADER __builtin_offsetof(struct stack, ip)

/* Two registers and the words. */
#define TOP_WORDS 64

struct stack_top {
	u64 hash;
	u32 record;
	u32 frames; /* words, registers included */
	u32 tgid;
	u32 image;
	u32 end;
	u32 tid;
	u64 sp;
	u64 fp;
	u64 word[TOP_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, u32);
} seen_stacks SEC(".maps");

struct scratch {
	u64 chunk[128]; /* of a stack, from its pointer on */
	u64 sp;
	u64 fp;
	u32 top; /* words of the chunk that belong to functions which keep no frame pointer */
	u32 reads; /* counted in memory: the verifier goes through each value of a register */
	struct stack user;
	struct stack kernel;
	struct stack_top top_of; /* where it is made to be sent at once */
};

/* For programs that no other of ours can interrupt: sched_switch runs with interrupts off. */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratch_percpu SEC(".maps");

/* For the iterator, of which one at a time runs: it can be interrupted, by sched_switch for one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratch_sweep SEC(".maps");

static __always_inline struct scratch *scratch_of(bool sweep)
{
	u32 zero = 0;

	if (sweep)
		return bpf_map_lookup_elem(&scratch_sweep, &zero);
	return bpf_map_lookup_elem(&scratch_percpu, &zero);
}

/* One step of the hash: a bijection for every address, and the high half is folded down. */
static __always_inline u64 stack_mix(u64 hash, u64 ip)
{
	hash = (hash ^ ip) * 0x9fb21c651e98df25ULL;
	return hash ^ hash >> 32;
}

static __always_inline u64 stack_hashed(u64 hash)
{
	return hash < STACK_IDS ? hash + STACK_IDS : hash;
}

/* Sends a record of `words` words. False: no room. */
static __always_inline bool stack_send(struct stack *stack, u32 words, u64 wake_bytes)
{
	barrier_var(words);
	if (words > MAX_FRAMES)
		return false;
	stack->frames = words;
	return ring_try(stack, STACK_HEADER + words * 8, wake_bytes);
}

enum kept {
	KEPT_BEFORE,
	KEPT_NOW,
	KEPT_NOT,
};

/* Has user space got this stack? If not, sends it. */
static __always_inline enum kept stack_keep(struct stack *stack, u64 wake_bytes)
{
	u64 hash = stack->hash;
	u32 yes = 1;

	if (bpf_map_lookup_elem(&seen_stacks, &hash))
		return KEPT_BEFORE;
	if (!stack_send(stack, stack->frames, wake_bytes))
		return KEPT_NOT;
	bpf_map_update_elem(&seen_stacks, &hash, &yes, BPF_ANY);
	return KEPT_NOW;
}

static __always_inline void fill_top(struct stack_top *to, const struct scratch *from,
				     const struct stack *stack)
{
	u32 words = from->top;

	to->frames = 0;
	if (!words)
		return;
	barrier_var(words); /* as in send_top() */
	if (words > TOP_WORDS || bpf_probe_read_kernel(to->word, words * 8, from->chunk))
		return;
	to->record = RECORD_TOP;
	to->frames = words + 2;
	to->hash = stack->hash;
	to->tgid = stack->tgid;
	to->image = stack->image;
	to->sp = from->sp;
	to->fp = from->fp;
}

static __always_inline void send_top(struct stack_top *top, u64 wake_bytes)
{
	u32 words = top->frames;

	if (!words)
		return;
	/* Else both limits become one of words - 1, which older verifiers do not follow. */
	barrier_var(words);
	if (words <= TOP_WORDS + 2)
		ring_try(top, STACK_HEADER + words * 8, wake_bytes);
}

#endif
