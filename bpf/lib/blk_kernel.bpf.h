/* SPDX-License-Identifier: GPL-2.0 */
/* What biolatency reads of requests and bios, and where kernels differ in it. `direct`: see compat.bpf.h. */
#ifndef TRACEBELT_BLK_KERNEL_H
#define TRACEBELT_BLK_KERNEL_H

#include <vmlinux.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "compat.bpf.h"

/* include/linux/blk_types.h: the lower byte of the flags is the operation. Both have been renumbered: what
 * they are called is for user space to find out. */
#define OP_MASK 0xff

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct request_queue___since_v5_17 {
	struct gendisk *disk;
};
struct hd_struct {
	struct device __dev;
};
struct request___pre_v5_17 {
	struct gendisk *rq_disk;
};
struct request___pre_v5_11 {
	struct hd_struct *part;
};
struct bio___since_v5_12 {
	struct block_device *bi_bdev;
};
struct bio___pre_v5_12 {
	struct gendisk *bi_disk;
};
#pragma clang attribute pop

/* A dev_t of the kernel's own: MAJOR in the upper 12 bits. */
static __always_inline u32 disk_dev(bool direct, struct gendisk *disk)
{
	if (!disk)
		return 0;
	return (u32)GET(direct, disk, major) << 20 | (u32)GET(direct, disk, first_minor);
}

/* 5.17, f3fa33acca9f ("block: remove the ->rq_disk field in struct request"): the disk is the queue's. */
static __always_inline u32 request_dev(bool direct, struct request *rq)
{
	struct request___pre_v5_17 *pre = (void *)rq;
	struct request_queue___since_v5_17 *q;

	if (bpf_core_field_exists(pre->rq_disk))
		return disk_dev(direct, GET(direct, pre, rq_disk));
	q = (void *)GET(direct, rq, q);
	return disk_dev(direct, GET(direct, q, disk));
}

/* 5.12, 309dca309fc3 ("block: store a block_device pointer in struct bio"): the partition stays known when
 * the bio is sent on to its disk. */
static __always_inline bool bio_has_bdev(void)
{
	return bpf_core_field_exists(struct bio___since_v5_12, bi_bdev);
}

static __always_inline u32 bio_dev(bool direct, struct bio *bio)
{
	struct bio___since_v5_12 *since = (void *)bio;
	struct bio___pre_v5_12 *pre = (void *)bio;

	struct block_device *bdev;

	if (!bio_has_bdev())
		return disk_dev(direct, GET(direct, pre, bi_disk));
	bdev = GET(direct, since, bi_bdev);
	return bdev ? disk_dev(direct, GET(direct, bdev, bd_disk)) : 0;
}

/* The partition, or the disk where the I/O was not sent to one. 0: not known here. */
static __always_inline u32 bio_partition(bool direct, struct bio *bio)
{
	struct bio___since_v5_12 *since = (void *)bio;

	if (!bio_has_bdev())
		return 0;
	return BPF_CORE_READ(since, bi_bdev, bd_dev);
}

/* Before 5.12 what the request was accounted to, if it was (iostats). */
static __always_inline u32 request_partition(bool direct, struct request *rq)
{
	struct request___pre_v5_11 *pre = (void *)rq;
	struct bio *bio = GET(direct, rq, bio);

	if (bio_has_bdev())
		return bio ? bio_partition(direct, bio) : 0;
	if (bpf_core_type_exists(struct hd_struct))
		return BPF_CORE_READ(pre, part, __dev.devt);
	return 0;
}

/* Whose I/O it is: the group that the bio was charged to when it was submitted. */
static __always_inline struct cgroup *bio_cgroup(struct bio *bio)
{
	if (!bpf_core_field_exists(bio->bi_blkg))
		return NULL;
	return BPF_CORE_READ(bio, bi_blkg, blkcg, css.cgroup);
}

/* The submission, by the clock of bpf_ktime_get_ns(); on a plug list the kernel reads that once for several.
 * 0: not noted, as the request is not accounted (iostats, and flushes and passthrough never are). What stands
 * there then is of an earlier life of the request. */
static __always_inline u64 request_submitted(bool direct, struct request *rq)
{
	return GET(direct, rq, part) ? GET(direct, rq, start_time_ns) : 0;
}

#endif
