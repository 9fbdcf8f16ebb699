//! What /proc tells of a thread that does not run: its state, where it is in the kernel, and where its program is.

use std::fs;

use common::proc::{self, Schedstat};

/// include/linux/sched.h
const PF_KTHREAD: u32 = 0x0020_0000;
const PF_FORKNOEXEC: u32 = 0x0000_0040;

/// The line of /proc/PID/task/TID/stat.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    pub comm: Vec<u8>,
    pub state: u8,
    flags: u32,
}

impl Stat {
    /// None: it has gone.
    pub fn read(tgid: u32, tid: u32) -> Option<Stat> {
        Stat::parse(&fs::read(format!("/proc/{tgid}/task/{tid}/stat")).ok()?)
    }

    /// `42 (comm) S ppid pgrp session tty tpgid flags ...`; a name may have anything in it, parentheses too.
    fn parse(line: &[u8]) -> Option<Stat> {
        let open = line.iter().position(|b| *b == b'(')?;
        let close = line.iter().rposition(|b| *b == b')')?;
        let mut fields = std::str::from_utf8(line.get(close + 1..)?).ok()?.split_whitespace();
        let [state] = fields.next()?.as_bytes() else { return None };
        let flags: u32 = fields.nth(5)?.parse().ok()?;
        let comm = own_name(line.get(open + 1..close)?, flags & PF_KTHREAD != 0);
        Some(Stat { comm: comm.to_owned(), state: *state, flags })
    }

    pub fn is_kernel(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// It was forked, and has executed nothing yet.
    pub fn is_new(&self) -> bool {
        self.flags & PF_FORKNOEXEC != 0
    }

    /// It neither runs nor could it, and comes back.
    pub fn waits(&self) -> bool {
        !matches!(self.state, b'R' | b'Z' | b'X' | b'x')
    }
}

/// `TASK_COMM_LEN` without its NUL.
const COMM_MAX: usize = 15;

/// Programs see the 15 bytes that the kernel keeps; /proc has whole names of kernel threads, and behind that of a
/// worker what it works on: `kworker/0:1-events`. (`kworker/R-name` is a name.)
fn own_name(shown: &[u8], kernel: bool) -> &[u8] {
    if !kernel {
        return shown;
    }
    let pooled = shown.starts_with(b"kworker/") && !shown.starts_with(b"kworker/R-");
    let end = shown.iter().position(|b| pooled && matches!(b, b'-' | b'+')).unwrap_or(shown.len());
    &shown[..end.min(COMM_MAX)]
}

/// How often it has run, and how long: zeros on a kernel that keeps no such figures, as programs have them.
pub fn account(tgid: u32, tid: u32) -> Schedstat {
    proc::schedstat(tgid, tid).unwrap_or_default()
}

/// Where a thread entered the kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// It has not: it runs, or could.
    Running,
    /// At this address, with this stack pointer; zeros for what has no user code.
    At(u64, u64),
    /// Nobody says: no privilege, or none of its files.
    Unknown,
}

impl Entered {
    /// The kernel waits until the thread is off its CPU before it says so.
    pub fn read(tgid: u32, tid: u32) -> Entered {
        let line = fs::read_to_string(format!("/proc/{tgid}/task/{tid}/syscall"));
        line.map_or(Entered::Unknown, |line| Entered::parse(&line))
    }

    /// "NUMBER ARGUMENTS... SP IP", "-1 SP IP" outside of a system call, or "running".
    fn parse(line: &str) -> Entered {
        if line.starts_with("running") {
            return Entered::Running;
        }
        let mut words = line.split_whitespace().rev();
        let mut hex = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        match (hex(), hex()) {
            (Some(ip), Some(sp)) => Entered::At(ip, sp),
            _ => Entered::Unknown,
        }
    }
}

/// A function of the kernel, and how far into it.
pub type Place = (String, u64);

/// Innermost first. The kernel leaves its scheduler's functions out. Where it shows no stacks, the one it waits in.
pub fn kernel_stack(tgid: u32, tid: u32, depth: usize) -> Vec<Place> {
    let file = |name: &str| fs::read_to_string(format!("/proc/{tgid}/task/{tid}/{name}")).unwrap_or_default();
    let mut places: Vec<Place> = file("stack").lines().filter_map(place).take(depth).collect();
    if places.is_empty() {
        let wchan = file("wchan");
        places.extend((!wchan.is_empty() && wchan != "0").then_some((wchan, 0)));
    }
    places
}

/// `[<0>] name+0x1f/0x30 [module]`
fn place(line: &str) -> Option<Place> {
    let (_, rest) = line.split_once("] ")?;
    let (name, rest) = rest.split_once("+0x")?;
    let offset = rest.split('/').next()?;
    Some((name.to_owned(), u64::from_str_radix(offset, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let stat = Stat::parse(b"7 (a) R (b\xff) S 1 7 7 0 -1 4194304 107 0 0\n").unwrap();
        assert_eq!((stat.comm.as_slice(), stat.state), (&b"a) R (b\xff"[..], b'S'));
        assert!(!stat.is_kernel() && !stat.is_new() && stat.waits());
        let fork = Stat::parse(b"7 (x) R 1 7 7 0 -1 4194368 1").unwrap();
        assert!(fork.is_new() && !fork.waits());
        assert_eq!(Stat::parse(b"7 (x) S 1 7"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn kernel_threads_have_the_names_that_programs_see() {
        let name =
            |shown: &str, kernel| String::from_utf8_lossy(own_name(shown.as_bytes(), kernel)).into_owned();
        assert_eq!(name("pool_workqueue_release", true), "pool_workqueue_");
        assert_eq!(name("kworker/0:1-events", true), "kworker/0:1");
        assert_eq!(name("kworker/u8:2+flush", true), "kworker/u8:2");
        assert_eq!(name("kworker/R-slub_", true), "kworker/R-slub_");
        assert_eq!(name("kworker/0:1-mine", false), "kworker/0:1-mine");
        assert!(Stat::parse(b"3 (jbd2/sda1-8) S 2 0 0 0 -1 2129984 0").unwrap().is_kernel());
    }

    #[test]
    fn where_a_thread_entered_the_kernel_is_last() {
        let line = "35 0x1 0x0 0x2 0x3 0x4 0x5 0x7ffd10 0x7f31\n";
        assert_eq!(Entered::parse(line), Entered::At(0x7f31, 0x7f_fd10));
        assert_eq!(Entered::parse("-1 0x7ffd10 0x7f31\n"), Entered::At(0x7f31, 0x7f_fd10));
        assert_eq!(Entered::parse("0 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0"), Entered::At(0, 0), "a kernel thread");
        assert_eq!((Entered::parse("running\n"), Entered::parse("")), (Entered::Running, Entered::Unknown));
    }

    #[test]
    fn a_kernel_stack_has_names_and_offsets() {
        assert_eq!(place("[<0>] ep_poll+0x1f/0x30"), Some(("ep_poll".to_owned(), 0x1f)));
        assert_eq!(place("[<0>] read+0x2/0x3 [fuse]"), Some(("read".to_owned(), 2)));
        assert_eq!(place("[<ffffffff81000000>] a.b+0x2/0x3"), Some(("a.b".to_owned(), 2)), "before 4.20");
        assert_eq!(place("[<0>] 0xffffffff81000000"), None);
        assert_eq!(kernel_stack(std::process::id(), 0, 9), [], "no such thread");
    }
}
