//! `--slower`: a row for each long wait.

use common::table::{Cell, Column};
use common::text::until_nul;

use crate::bpf::types::runq_event;
use crate::waits::WHYS;

// SAFETY: integers and bytes without padding; every bit pattern is valid.
unsafe impl plain::Plain for runq_event {}

pub struct Slow {
    pub at: u64,
    time: String,
    wait_ns: u64,
    pid: u32,
    tid: u32,
    cpu: u32,
    why: u32,
    prev_pid: u32,
    comm: Vec<u8>,
    prev_comm: Vec<u8>,
}

impl Slow {
    pub fn new(event: &runq_event, time: String) -> Slow {
        Slow {
            at: event.at,
            time,
            wait_ns: event.wait_ns,
            pid: event.tgid,
            tid: event.tid,
            cpu: event.cpu,
            why: event.why,
            prev_pid: event.prev_tgid,
            comm: until_nul(&event.comm),
            prev_comm: until_nul(&event.prev_comm),
        }
    }
}

pub const COLUMNS: &[Column<Slow>] = &[
    Column { key: "", head: "TIME", width: -8, get: |s| Cell::word(&s.time) },
    Column { key: "comm", head: "COMM", width: -16, get: |s| Cell::bytes(&s.comm) },
    Column { key: "pid", head: "PID", width: -7, get: |s| Cell::Uint(s.pid.into()) },
    Column { key: "tid", head: "TID", width: -7, get: |s| Cell::Uint(s.tid.into()) },
    Column { key: "cpu", head: "CPU", width: 3, get: |s| Cell::Uint(s.cpu.into()) },
    Column { key: "usecs", head: "USECS", width: 10, get: |s| Cell::Float(s.wait_ns as f64 / 1000.0, 1) },
    Column { key: "why", head: "WHY", width: -9, get: |s| Cell::word(why(s.why)) },
    Column { key: "prev_comm", head: "PREV-COMM", width: -16, get: |s| Cell::bytes(&s.prev_comm) },
    Column { key: "prev_pid", head: "PREV-PID", width: 0, get: |s| Cell::Uint(s.prev_pid.into()) },
];

fn why(number: u32) -> &'static str {
    WHYS.get(number as usize).copied().unwrap_or("?")
}
