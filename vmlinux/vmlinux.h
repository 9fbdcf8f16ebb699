/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel types that the programs in bpf/ touch, and no others.
 *
 * Written by hand for CO-RE: every struct names only the fields in use, their order does not matter
 * and offsets come from the running kernel's BTF at load time, so one file serves every architecture
 * and every kernel. scripts/gen-vmlinux dumps the full types of the running kernel for look-ups.
 * A field that exists on some kernels only is in bpf/lib/compat.bpf.h, behind a function.
 */
#ifndef TRACEBELT_VMLINUX_H
#define TRACEBELT_VMLINUX_H

typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u8 u8;
typedef __u16 u16;
typedef __s16 s16;
typedef __s32 s32;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef int pid_t;
typedef unsigned int uid_t;
typedef _Bool bool;
enum { false = 0, true = 1 };
#define NULL ((void *)0)

/* include/uapi/linux/bpf.h */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
};

enum {
	BPF_F_NO_PREALLOC = 1,
	BPF_F_MMAPABLE = 1024,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
	BPF_F_USER_STACK = 1 << 8,
};

enum {
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

enum {
	BPF_RB_AVAIL_DATA = 0,
};

/* Only to ask whether the kernel has it. */
enum bpf_func_id {
	BPF_FUNC_task_pt_regs = 175,
	BPF_FUNC_loop = 181,
};

/* include/uapi/linux/openat2.h: read from the memory of the process. */
struct open_how {
	__u64 flags;
	__u64 mode;
	__u64 resolve;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Only bpf/lib/syscalls.bpf.h and bpf/lib/unwind.bpf.h look inside these two: they are what differs here by
 * architecture. */
struct pt_regs {
#if defined(__TARGET_ARCH_x86)
	unsigned long r10;
	unsigned long bp;
	unsigned long ip;
	unsigned long sp;
	u16 cs;
	unsigned long bx;
	unsigned long cx;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
#elif defined(__TARGET_ARCH_arm64)
	u64 regs[31];
	u64 sp;
	u64 pc;
	u64 pstate;
	u64 orig_x0;
	s32 syscallno;
#endif
};

#if defined(__TARGET_ARCH_arm64)
struct cpu_context {
	unsigned long sp;
};
#endif

struct thread_struct {
#if defined(__TARGET_ARCH_x86)
	unsigned long sp;
#elif defined(__TARGET_ARCH_arm64)
	struct cpu_context cpu_context;
#endif
};

/* The record of a classic tracepoint. */
struct trace_event_raw_sys_exit {
	long ret;
};

struct thread_info {
	u32 status; /* x86 */
};

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct file_system_type {
	const char *name;
};

struct super_block {
	struct file_system_type *s_type;
};

struct inode {
	unsigned long i_ino;
};

struct qstr {
	const unsigned char *name;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct filename {
	const char *name;
};

struct io_uring_sqe {
	s32 fd;
	u64 addr2;
	u64 addr;
	u32 len;
	u32 open_flags;
};

struct io_open {
	int dfd;
	u32 file_slot;
	struct filename *filename;
	struct open_how how;
};

struct io_cqe {
	s32 res;
};

struct io_kiocb {
	u8 opcode;
	struct io_cqe cqe;
};

struct sched_info {
	unsigned long pcount;
	unsigned long long run_delay;
};

struct sched_entity {
	u64 sum_exec_runtime;
};

struct mm_struct;

struct task_struct {
	struct thread_info thread_info;
	void *stack;
	struct sched_entity se;
	struct thread_struct thread;
	struct mm_struct *mm;
	unsigned int flags;
	u64 self_exec_id;
	struct sched_info sched_info;
	/* Unsigned here: a load is then made as narrow as the kernel's own field, int or (7.2) u8. */
	unsigned int on_cpu;
	unsigned int on_rq;
	pid_t pid;
	pid_t tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct css_set *cgroups;
	struct fs_struct *fs;
	struct files_struct *files;
	char comm[16];
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct gendisk {
	int major;
	int first_minor;
};

struct device {
	u32 devt;
};

struct block_device {
	u32 bd_dev;
	struct gendisk *bd_disk;
};

struct bvec_iter {
	u64 bi_sector;
	unsigned int bi_size;
};

typedef struct {
	int counter;
} atomic_t;

struct bio {
	struct bio *bi_next;
	unsigned int bi_opf;
	unsigned short bi_flags;
	u8 bi_status;
	struct bvec_iter bi_iter;
	atomic_t __bi_remaining;
	void *bi_end_io;
	void *bi_private;
	struct blkcg_gq *bi_blkg;
};

struct request_queue;

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int rq_flags;
	unsigned int __data_len;
	u64 __sector;
	struct bio *bio;
	struct block_device *part;
	u64 start_time_ns;
};

struct bpf_iter__task {
	struct task_struct *task;
};

#pragma clang attribute pop

#endif
