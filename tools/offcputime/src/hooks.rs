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
            needs: &[Need::Helper("task_pt_regs"), Need::Cmpxchg, Need::RingAnywhere],
            blind: "",
        },
        Way {
            via: Via::RawTp("sched_switch"),
            progs: &["switch_raw"],
            needs: &[Need::Helper("task_pt_regs"), Need::RingAnywhere],
            blind: "",
        },
        // Without the registers it is the kernel that walks user stacks, by frame pointers alone.
        Way {
            via: Via::TpBtf("sched_switch"),
            progs: &["switch_btf"],
            needs: &[Need::Helper("get_task_stack"), Need::Cmpxchg, Need::RingAnywhere],
            blind: SKIPPED,
        },
        Way {
            via: Via::RawTp("sched_switch"),
            progs: &["switch_raw"],
            needs: &[Need::RingAnywhere],
            blind: SKIPPED,
        },
    ],
};

const SKIPPED: &str = "functions that call into a library without frame pointers, as the C library mostly is";

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
        Way {
            via: Via::Iter("task"),
            progs: &["sweep"],
            needs: &[Need::Helper("get_task_stack"), Need::Cmpxchg],
            blind: BLIND,
        },
        Way {
            via: Via::Iter("task"),
            progs: &["sweep_plain"],
            needs: &[Need::Helper("get_task_stack")],
            blind: BLIND_PLAIN,
        },
    ],
};

/// Between two instructions.
const BLIND_PLAIN: &str = "the user stacks of threads that are blocked from before the start; nor whether a wait ended in \
                           the very nanosecond in which it was looked at: it counts twice";

const BLIND: &str = "the user stacks of threads that are blocked from before the start";

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
