//! How block I/O is observed, and where each tracepoint has its subject.

use common::hook::{Hook, Ladder, Need, Via, Way};
use common::kernel::Kernel;

use crate::bpf::types::blk_cfg;

/// Requests from their issue on. What ends one is attached first.
pub const REQUESTS: Hook = Hook {
    what: "block requests",
    optional: false,
    ways: &[
        Way {
            via: Via::TpBtf("block_rq_issue"),
            progs: &["complete_btf", "requeue_btf", "issue_btf"],
            needs: &[Need::Cmpxchg],
            blind: "",
        },
        Way {
            via: Via::RawTp("block_rq_issue"),
            progs: &["complete_raw", "requeue_raw", "issue_raw"],
            needs: &[],
            blind: "",
        },
    ],
};

/// Requests from their insertion on.
pub const QUEUED: Hook = Hook {
    what: "queued block requests",
    optional: false,
    ways: &[
        Way {
            via: Via::TpBtf("block_rq_insert"),
            progs: &["complete_btf", "requeue_btf", "merge_btf", "issue_btf", "insert_btf"],
            needs: &[Need::Cmpxchg],
            blind: "",
        },
        Way {
            via: Via::RawTp("block_rq_insert"),
            progs: &["complete_raw", "requeue_raw", "merge_raw", "issue_raw", "insert_raw"],
            needs: &[],
            blind: "",
        },
    ],
};

/// Who submitted what became a request.
pub const SUBMITTERS: Hook = Hook {
    what: "submitters",
    optional: true,
    ways: &[
        Way { via: Via::TpBtf("block_getrq"), progs: &["getrq_btf"], needs: &[], blind: "" },
        Way { via: Via::RawTp("block_getrq"), progs: &["getrq_raw"], needs: &[], blind: "" },
    ],
};

pub const BIOS: Hook = Hook {
    what: "bios",
    optional: false,
    ways: &[
        Way {
            via: Via::TpBtf("block_bio_queue"),
            progs: &["bio_complete_btf", "bios_complete_btf", "bio_queue_btf"],
            needs: &[Need::Cmpxchg, Need::Args("block_bio_complete", &[2])],
            blind: "",
        },
        Way {
            via: Via::RawTp("block_bio_queue"),
            progs: &["bio_complete_raw", "bios_complete_raw", "bio_queue_raw"],
            needs: &[Need::Args("block_bio_complete", &[2])],
            blind: "",
        },
    ],
};

/// Bios on their way to a limit of their group, before their submission is traced.
pub const THROTTLED: Hook = Hook {
    what: "throttled bios",
    optional: true,
    ways: &[
        Way { via: Via::Fentry("__blk_throtl_bio"), progs: &["throttle_limited"], needs: &[], blind: "" },
        Way { via: Via::Fentry("blk_throtl_bio"), progs: &["throttle_all"], needs: &[], blind: "" },
    ],
};

pub const HOOKS: &[Hook] = &[REQUESTS, QUEUED, SUBMITTERS, BIOS, THROTTLED];

/// Are the programs typed that see the I/O?
pub fn is_typed(ladder: &Ladder) -> bool {
    let via = |hook: &Hook| matches!(ladder.via(hook.what), Some(Via::TpBtf(_)));
    [REQUESTS, QUEUED, BIOS].iter().any(via)
}

/// What a tracepoint is about is its only argument. Until 5.11 the queue went before it (a54895fa057c, "block:
/// remove the request_queue to argument request based tracepoints"; stable 5.10 has that since some release).
pub fn set_places(kernel: &Kernel, cfg: &mut blk_cfg) {
    let place = |tracepoint: &str| u8::from(kernel.tracepoint_args(tracepoint).is_some_and(|args| args > 1));
    cfg.insert_arg = place("block_rq_insert");
    cfg.issue_arg = place("block_rq_issue");
    cfg.merge_arg = place("block_rq_merge");
    cfg.requeue_arg = place("block_rq_requeue");
    cfg.queue_arg = place("block_bio_queue");
    cfg.getrq_arg = place("block_getrq");
    cfg.flush_seq = flush_seq(kernel);
    let flag = |name: &str| kernel.enum_value(name).map_or(0, |bit| 1 << (bit & 31));
    cfg.bio_traced = flag("BIO_TRACE_COMPLETION");
    // It has been here before: the newer name is of limits in bytes.
    cfg.bio_throttled = flag("BIO_THROTTLED") | flag("BIO_BPS_THROTTLED");
}

/// `RQF_FLUSH_SEQ`. An enum without a name, and another number, since 6.11 (5f89154e8e9e, "block: Use enum to define RQF_x
/// bit indexes"); a macro that BTF does not know before.
fn flush_seq(kernel: &Kernel) -> u32 {
    1 << (kernel.enum_value("__RQF_FLUSH_SEQ").unwrap_or(4) & 31)
}

/// The address of the kernel's function that ends what was split off a bio; 0 if it is hidden.
pub fn chain_endio() -> u64 {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let line = symbols.lines().find(|line| line.ends_with(" bio_chain_endio"));
    line.and_then(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok()).unwrap_or(0)
}
