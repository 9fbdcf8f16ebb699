/* SPDX-License-Identifier: GPL-2.0 */
/* The absolute path of an open file or a directory, from the mount namespace's root on: what chroot,
 * bind mounts, symbolic links, the working directory and a directory descriptor have made of a name.
 *
 * Names are stored leaf first, each with its NUL, as they are met on the way up; user space turns them
 * round (tools/opensnoop). bpf_d_path() would do it all, but not in a tracepoint.
 */
#ifndef TRACEBELT_PATH_H
#define TRACEBELT_PATH_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* One name, 255 bytes, and its NUL. */
#define PATH_PART 256
/* No part is begun beyond this. */
#define PATH_BYTES 4096
/* Steps up, names and mounts together: as many as fit into PATH_BYTES. Where bpf_loop() is missing, the
 * verifier goes through each step by itself, so there fewer have to do. */
#define PATH_STEPS 2048
#define PATH_STEPS_UNROLLED 48
/* include/uapi/linux/fcntl.h */
#define AT_FDCWD -100

enum path_end {
	PATH_CUT, /* more steps or bytes than there is room for: the upper part is missing */
	PATH_WHOLE,
	PATH_PSEUDO, /* below no mount (pipe, memfd): its name and its file system's type were stored */
};

struct path_walk {
	struct vfsmount *mnt;
	struct dentry *dentry;
	struct dentry *root; /* of mnt */
	char *buf; /* PATH_BYTES and one part of room, */
	u16 *used; /* of which this much is in use; in a map, where it is any number to the verifier */
	u64 ino; /* of a pseudo file */
	u32 end; /* enum path_end */
	u8 above; /* has left the dentry where it started */
	u8 unlinked;
};

static __always_inline struct file *file_of_fd(struct task_struct *task, u32 fd)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);
	struct file *file = NULL;

	if (fd < BPF_CORE_READ(table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

/* From where a walk starts. False: no such file. */
static __always_inline bool path_of_fd(struct path_walk *walk, struct task_struct *task, u32 fd)
{
	struct file *file = file_of_fd(task, fd);

	walk->mnt = BPF_CORE_READ(file, f_path.mnt);
	walk->dentry = BPF_CORE_READ(file, f_path.dentry);
	return walk->dentry != NULL;
}

static __always_inline bool path_of_cwd(struct path_walk *walk, struct task_struct *task)
{
	walk->mnt = BPF_CORE_READ(task, fs, pwd.mnt);
	walk->dentry = BPF_CORE_READ(task, fs, pwd.dentry);
	return walk->dentry != NULL;
}

static __always_inline bool path_of_root(struct path_walk *walk, struct task_struct *task)
{
	walk->mnt = BPF_CORE_READ(task, fs, root.mnt);
	walk->dentry = BPF_CORE_READ(task, fs, root.dentry);
	return walk->dentry != NULL;
}

/* The kernel's d_unlinked(): not in the name cache although something is above it. */
static __always_inline bool dentry_unlinked(struct dentry *dentry)
{
	return !BPF_CORE_READ(dentry, d_hash.pprev) && BPF_CORE_READ(dentry, d_parent) != dentry;
}

/* Appends a string. False: no room, or it cannot be read. */
static __always_inline bool path_part(struct path_walk *walk, const void *from)
{
	u32 at = *walk->used;
	long n;

	barrier_var(at);
	if (at > PATH_BYTES)
		return false;
	n = bpf_probe_read_kernel_str(walk->buf + at, PATH_PART, from);
	if (n <= 0)
		return false;
	*walk->used = at + n;
	return true;
}

/* One step up: from the root of a mount to where it is mounted, else to the directory above. 1: done. */
static __always_inline long path_step(struct path_walk *walk)
{
	struct dentry *dentry = walk->dentry, *above;
	struct vfsmount *mnt = walk->mnt;

	if (dentry == walk->root) {
		struct mount *mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
		struct mount *parent = BPF_CORE_READ(mount, mnt_parent);

		if (parent == mount) {
			walk->end = PATH_WHOLE;
			return 1;
		}
		mnt = (void *)parent + bpf_core_field_offset(struct mount, mnt);
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->root = BPF_CORE_READ(mnt, mnt_root);
		walk->mnt = mnt;
		walk->above = true;
		return 0;
	}
	above = BPF_CORE_READ(dentry, d_parent);
	if (!path_part(walk, BPF_CORE_READ(dentry, d_name.name)))
		return 1;
	if (above == dentry) {
		/* Below no mount. Met on the way up, it is a directory cut off from its root. */
		if (!walk->above && path_part(walk, BPF_CORE_READ(dentry, d_sb, s_type, name))) {
			walk->ino = BPF_CORE_READ(dentry, d_inode, i_ino);
			walk->end = PATH_PSEUDO;
		}
		return 1;
	}
	walk->dentry = above;
	walk->above = true;
	return 0;
}

static long path_callback(u32 i, void *walk)
{
	return path_step(walk);
}

/* `direct` programs are loaded only where the verifier knows callbacks at least (5.13). */
static __always_inline void path_walk(bool direct, struct path_walk *walk)
{
	struct vfsmount *mnt = walk->mnt;
	int i;

	walk->root = BPF_CORE_READ(mnt, mnt_root);
	walk->unlinked = dentry_unlinked(walk->dentry);
	if (direct && has_loop()) {
		bpf_loop(PATH_STEPS, path_callback, walk, 0);
		return;
	}
	for (i = 0; i < PATH_STEPS_UNROLLED; i++)
		if (path_step(walk))
			return;
}

#endif
