//! `--slower`: a row for each slow I/O.

use common::table::{Cell, Column};
use common::text::until_nul;

use crate::bpf::types::blk_event;
use crate::disks;
use crate::names::{self, Flags};

// SAFETY: integers and bytes without padding; every bit pattern is valid.
unsafe impl plain::Plain for blk_event {}

pub struct Slow {
    pub at: u64,
    time: String,
    disk: String,
    op: String,
    flags: String,
    sector: u64,
    bytes: u32,
    queue_ns: u64,
    device_ns: u64,
    error: i32,
    error_name: String,
    /// 0: not known.
    pid: u32,
    comm: Vec<u8>,
}

impl Slow {
    pub fn new(event: &blk_event, time: String, disks: &disks::Names, flags: &Flags) -> Slow {
        Slow {
            at: event.at,
            time,
            disk: disks.show(event.dev),
            op: flags.op(event.flags),
            flags: flags.all(event.flags),
            sector: event.sector,
            bytes: event.bytes,
            queue_ns: event.queue_ns,
            device_ns: event.device_ns,
            error: event.error,
            error_name: names::error(event.error),
            pid: event.tgid,
            comm: until_nul(&event.comm),
        }
    }
}

fn micros(nanos: u64) -> Cell<'static> {
    Cell::Float(nanos as f64 / 1000.0, 1)
}

/// Of bios, which have no queue apart, only the total.
pub fn columns(bio: bool) -> Vec<&'static Column<Slow>> {
    COLUMNS.iter().filter(|column| !bio || !matches!(column.key, "queue_usecs" | "device_usecs")).collect()
}

const COLUMNS: &[Column<Slow>] = &[
    Column { key: "", head: "TIME", width: -8, get: |s| Cell::word(&s.time) },
    Column { key: "disk", head: "DISK", width: -8, get: |s| Cell::bytes(s.disk.as_bytes()) },
    Column { key: "op", head: "OP", width: -7, get: |s| Cell::word(&s.op) },
    Column { key: "flags", head: "", width: 0, get: |s| Cell::word(&s.flags) },
    Column { key: "sector", head: "SECTOR", width: 10, get: |s| Cell::Uint(s.sector) },
    Column { key: "", head: "KB", width: 7, get: |s| Cell::Float(f64::from(s.bytes) / 1024.0, 1) },
    Column { key: "bytes", head: "", width: 0, get: |s| Cell::Uint(s.bytes.into()) },
    Column { key: "queue_usecs", head: "QUEUE", width: 10, get: |s| micros(s.queue_ns) },
    Column { key: "device_usecs", head: "DEVICE", width: 10, get: |s| micros(s.device_ns) },
    Column { key: "total_usecs", head: "TOTAL", width: 10, get: |s| micros(s.queue_ns + s.device_ns) },
    Column {
        key: "pid",
        head: "PID",
        width: -7,
        get: |s| if s.pid == 0 { Cell::Nothing } else { Cell::Uint(s.pid.into()) },
    },
    Column {
        key: "comm",
        head: "COMM",
        width: -15,
        get: |s| if s.pid == 0 { Cell::Nothing } else { Cell::bytes(&s.comm) },
    },
    Column {
        key: "error",
        head: "ERR",
        width: 0,
        get: |s| if s.error == 0 { Cell::Nothing } else { Cell::word(&s.error_name) },
    },
];
