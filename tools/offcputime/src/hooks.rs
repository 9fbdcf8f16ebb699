//! What offcputime attaches to.

use common::filter;
use common::hook::{Hook, Need, Via, Way};

pub const HOOKS: &[Hook] = &[WAITS, SWEEP, WAKER, filter::CHILDREN];

pub const WAITS: Hook = Hook {
    what: "waits",
    optional: false,
    ways: &[
        Way {
            via: Via::TpBtf("sched_switch"),
            progs: &["switch_btf"],
            needs: &[REGISTERS, Need::Cmpxchg, Need::RingAnywhere],
            blind: "",
        },
        Way {
            via: Via::RawTp("sched_switch"),
            progs: &["switch_raw"],
            needs: &[REGISTERS, Need::RingAnywhere],
            blind: "",
        },
        // The kernel walks user stacks, by frame pointers alone. On x86 the registers are always found.
        #[cfg(not(target_arch = "x86_64"))]
        Way {
            via: Via::RawTp("sched_switch"),
            progs: &["switch_raw"],
            needs: &[Need::RingAnywhere],
            blind: "functions that call into a library without frame pointers, as the C library mostly is",
        },
    ],
};

/// A user stack is walked from there. On x86 they are found without the helper.
const REGISTERS: Need = match cfg!(target_arch = "x86_64") {
    true => Need::Helper("get_task_stack"),
    false => Need::Helper("task_pt_regs"),
};

/// Threads that wait when the run begins or ends.
pub const SWEEP: Hook = Hook {
    what: "waits under way",
    optional: false,
    ways: &[
        Way {
            via: Via::SleepableIter("task"),
            progs: &["sweep_sleeping"],
            needs: &[Need::Helper("copy_from_user_task"), Need::Helper("task_pt_regs")],
            blind: "",
        },
        Way { via: Via::Iter("task"), progs: &["sweep"], needs: &[REGISTERS, Need::Cmpxchg], blind: "" },
        Way {
            via: Via::Iter("task"),
            progs: &["sweep_plain"],
            needs: &[Need::Helper("get_task_stack")],
            blind: "whether a wait ended in the very nanosecond in which it was looked at: it counts twice then",
        },
        Way {
            via: Via::Proc,
            progs: &[],
            needs: &[],
            blind: "waits under way at the end of an interval (they count where they end); threads that could have gone \
                    on when the run began; user stacks beyond what unwind tables tell; K, which is D there",
        },
    ],
};

/// For --waker.
pub const WAKER: Hook = Hook {
    what: "wakers",
    optional: false,
    ways: &[
        Way {
            via: Via::TpBtf("sched_waking"),
            progs: &["waking_btf"],
            needs: &[Need::Helper("get_current_task_btf")],
            blind: "",
        },
        Way { via: Via::RawTp("sched_waking"), progs: &["waking_raw"], needs: &[], blind: "" },
    ],
};
