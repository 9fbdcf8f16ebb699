//! What opensnoop observes, and how.

use std::fmt::Write as _;

use common::filter;
use common::hook::{Hook, Ladder, Need, Via, Way};

/// Without these the `tp_btf` programs do not load: a typed `current` (5.11), and callbacks, which the
/// verifier knows since 5.13 and 69c087ba6225 ("bpf: Add bpf_for_each_map_elem() helper"). The walk up a
/// path is one, whether it is taken or not.
const TASK: Need = Need::Helper("get_current_task_btf");
const CALLBACK: Need = Need::Helper("for_each_map_elem");

const BLIND: &str =
    "files that the kernel opens by itself (exec, core dumps), descriptors that are passed on";

/// Where raw tracepoints lose calls to preemption, a classic one does not, at 80 ns a call instead of 25.
/// `bpf_task_pt_regs()` has the arguments.
const CLASSIC: &[Need] = &[Need::Preempted, TASK, CALLBACK, Need::Helper("task_pt_regs")];

pub const CALLS: Hook = Hook {
    what: "system calls",
    optional: false,
    ways: &[
        Way {
            via: Via::Tracepoint("raw_syscalls", "sys_exit"),
            progs: &["exit_tp"],
            needs: CLASSIC,
            blind: BLIND,
        },
        Way { via: Via::TpBtf("sys_exit"), progs: &["exit_btf"], needs: &[TASK, CALLBACK], blind: BLIND },
        Way { via: Via::RawTp("sys_exit"), progs: &["exit_raw"], needs: &[], blind: BLIND },
    ],
};

/// With the same needs as above: start and end of a call meet in one map.
const STARTS: Hook = Hook {
    what: "starts of system calls",
    optional: false,
    ways: &[
        Way {
            via: Via::Tracepoint("raw_syscalls", "sys_enter"),
            progs: &["enter_tp"],
            needs: CLASSIC,
            blind: "",
        },
        Way { via: Via::TpBtf("sys_enter"), progs: &["enter_btf"], needs: &[TASK, CALLBACK], blind: "" },
        Way { via: Via::RawTp("sys_enter"), progs: &["enter_raw"], needs: &[], blind: "" },
    ],
};

/// The request is known when it completes: since 5.18, 502c87d65564 ("io-uring: Make tracepoints
/// consistent."), with seven arguments and later with three.
const COMPLETE: Need = Need::Args("io_uring_complete", &[3, 7]);
/// Its result stands in `cqe` since 5.19, cef216fc32d7 ("io_uring: explicitly keep a CQE in io_kiocb").
const RESULT: Need = Need::Member("io_kiocb", "cqe");
const REFUSED: Need = Need::Args("io_uring_req_failed", &[3]);
/// The request is the first argument. 6.4, 2ad57931db64 ("io_uring: rename trace_io_uring_submit_sqe()
/// tracepoint").
const SUBMIT_REQ: Need = Need::Args("io_uring_submit_req", &[1]);
const SUBMIT_SQE: Need = Need::Args("io_uring_submit_sqe", &[2]);

const OVERFLOW: &str =
    "requests without a completion: IOSQE_CQE_SKIP_SUCCESS, a completion queue that is full";

const URING: Hook = Hook {
    what: "io_uring",
    optional: true,
    ways: &[
        Way {
            via: Via::TpBtf("io_uring_submit_req"),
            progs: &["complete_btf", "refused_btf", "submit_req_btf"],
            needs: &[SUBMIT_REQ, REFUSED, COMPLETE, RESULT, TASK, CALLBACK],
            blind: OVERFLOW,
        },
        Way {
            via: Via::TpBtf("io_uring_submit_sqe"),
            progs: &["complete_btf", "refused_btf", "submit_sqe_btf"],
            needs: &[SUBMIT_SQE, REFUSED, COMPLETE, RESULT, TASK, CALLBACK],
            blind: OVERFLOW,
        },
        Way {
            via: Via::RawTp("io_uring_submit_req"),
            progs: &["complete_raw", "refused_raw", "submit_req_raw"],
            needs: &[SUBMIT_REQ, REFUSED, COMPLETE, RESULT],
            blind: OVERFLOW,
        },
        Way {
            via: Via::RawTp("io_uring_submit_sqe"),
            progs: &["complete_raw", "refused_raw", "submit_sqe_raw"],
            needs: &[SUBMIT_SQE, REFUSED, COMPLETE, RESULT],
            blind: OVERFLOW,
        },
    ],
};

pub const HOOKS: &[Hook] = &[CALLS, STARTS, URING, filter::CHILDREN];

/// Does this run need the hook?
pub fn wanted(hook: &Hook, timed: bool, command: bool) -> bool {
    match hook.what {
        what if what == STARTS.what => timed,
        what if what == filter::CHILDREN.what => command,
        _ => true,
    }
}

/// For `--check`: each way that a file can be opened, and whether it is seen.
pub fn routes(ladder: &Ladder) -> String {
    let native = if cfg!(target_arch = "x86_64") { "open creat " } else { "" };
    let calls = format!("{native}openat openat2 open_by_handle_at");
    let all = [
        (calls, CALLS.what),
        ("open creat openat openat2 open_by_handle_at of 32-bit programs".to_owned(), CALLS.what),
        ("io_uring OPENAT OPENAT2".to_owned(), URING.what),
    ];
    let mut out = "routes\n".to_owned();
    for (routes, hook) in all {
        let seen = if ladder.via(hook).is_some() { "seen" } else { "not seen" };
        let _ = writeln!(out, "  {seen:<8} {routes}"); // a String takes any write
    }
    out
}
