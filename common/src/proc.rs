//! /proc: mounts, tasks, users. Parsers are pure, readers thin.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::{Pid, User};

use crate::exit::{Kind, fault};
use crate::text::escape;

/// A line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is mounted, `/` unless it is a part of it.
    pub root: PathBuf,
    pub point: PathBuf,
    pub fs_type: String,
    /// The options of the file system, which name the controllers of a v1 cgroup hierarchy.
    pub options: String,
}

/// The mounts that the calling thread sees, in the order they were made.
///
/// # Errors
/// /proc is not mounted, say.
pub fn mounts() -> io::Result<Vec<Mount>> {
    fs::read("/proc/thread-self/mountinfo").map(|bytes| parse_mountinfo(&bytes))
}

/// Lines that are not understood are left out.
#[must_use]
pub fn parse_mountinfo(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|b| *b == b'\n').filter_map(parse_mount).collect()
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda rw`: any number of fields stand before
/// the dash. Fields are parted by one space, for the source may be empty.
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = tail.next()?;
    let options = tail.nth(1)?;
    let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
    let text = |field| String::from_utf8_lossy(field).into_owned();
    Some(Mount { root: path(root), point: path(point), fs_type: text(fs_type), options: text(options) })
}

/// Undoes the kernel's `\040`, `\011`, `\012` and `\134`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(from_octal);
        out.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    out
}

fn from_octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// The name of a process or thread; none if it has gone.
#[must_use]
pub fn comm(pid: u32) -> Option<Vec<u8>> {
    let mut name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    name.pop_if(|last| *last == b'\n'); // the kernel's own, after whatever the name holds
    Some(name)
}

/// The process that a thread belongs to; none if it has gone.
#[must_use]
pub fn tgid_of(tid: u32) -> Option<u32> {
    // Bytes: a thread's name need not be UTF-8.
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// # Errors
/// The process has gone.
pub fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let mut tids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        tids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(tids)
}

/// For `--pid`.
///
/// # Errors
/// The first that is no process.
pub fn require_pids(pids: &[u32]) -> Result<()> {
    for &pid in pids {
        match tgid_of(pid) {
            Some(tgid) if tgid == pid => {}
            Some(tgid) => {
                let text = format!("{pid} is a thread of process {tgid}: use -t {pid} or -p {tgid}");
                return Err(fault(Kind::Failed, text));
            }
            None => return Err(absent("process", pid)),
        }
    }
    Ok(())
}

/// For `--tid`; the main thread of a process is one, too.
///
/// # Errors
/// The first that is no thread.
pub fn require_tids(tids: &[u32]) -> Result<()> {
    match tids.iter().find(|tid| tgid_of(**tid).is_none()) {
        Some(tid) => Err(absent("thread", *tid)),
        None => Ok(()),
    }
}

fn absent(what: &str, id: impl Display) -> anyhow::Error {
    let why = "it has ended, or its number is of another PID namespace";
    fault(Kind::Failed, format!("no {what} {id}: {why} (see ps -eL)"))
}

/// Has this thread ended? One system call, for maps with many thousands of dead threads. One that was
/// not yet waited for counts as there.
#[must_use]
pub fn is_gone(tid: u32) -> bool {
    // kill(2) takes thread ids as well; 0 (the idle task, never gone) and negative ones mean groups.
    match i32::try_from(tid) {
        Ok(0) => false,
        Ok(tid) => signal::kill(Pid::from_raw(tid), None) == Err(Errno::ESRCH),
        Err(_) => true,
    }
}

/// The number of a namespace of this process, such as `pid`; none where the kernel has no such kind.
#[must_use]
pub fn ns_inode(kind: &str) -> Option<u64> {
    fs::metadata(format!("/proc/self/ns/{kind}")).ok().map(|found| found.ino())
}

/// A thread's times as the scheduler keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedstat {
    pub run_ns: u64,
    /// Spent runnable, waiting for a CPU.
    pub wait_ns: u64,
    pub slices: u64,
}

/// None if the thread has gone or the kernel keeps no such figures.
#[must_use]
pub fn schedstat(pid: u32, tid: u32) -> Option<Schedstat> {
    parse_schedstat(&fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?)
}

fn parse_schedstat(text: &str) -> Option<Schedstat> {
    let mut fields = text.split_whitespace().map(str::parse);
    let mut next = || fields.next()?.ok();
    Some(Schedstat { run_ns: next()?, wait_ns: next()?, slices: next()? })
}

/// A user's id from its number or its name.
///
/// # Errors
/// [`Kind::Usage`]: no such user.
pub fn user_id(name_or_number: &str) -> Result<u32> {
    let unknown =
        || fault(Kind::Usage, format!("no user {}: see getent passwd", escape(name_or_number.as_bytes())));
    if !name_or_number.is_empty() && name_or_number.bytes().all(|b| b.is_ascii_digit()) {
        // The highest means "no user" to the kernel.
        return name_or_number.parse().ok().filter(|id| *id != u32::MAX).ok_or_else(unknown);
    }
    // The file first: a static glibc reaches LDAP and the like only by loading what it may not fit.
    let file = fs::read("/etc/passwd").unwrap_or_default();
    let elsewhere = || User::from_name(name_or_number).ok().flatten().map(|user| user.uid.as_raw());
    passwd_id(&file, name_or_number).or_else(elsewhere).ok_or_else(unknown)
}

/// `name:password:uid:…`
fn passwd_id(file: &[u8], name: &str) -> Option<u32> {
    let line = file
        .split(|b| *b == b'\n')
        .find(|line| line.split(|b| *b == b':').next() == Some(name.as_bytes()))?;
    std::str::from_utf8(line.split(|b| *b == b':').nth(2)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, id};
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::exit::{Verdict, verdict};

    #[test]
    fn mountinfo_is_read_with_its_escapes_and_optional_fields() {
        let text = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            40 31 0:37 /a\\040b /mnt/x\\134y\\012z rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
            41 31 0:38 / /empty rw - tmpfs  rw,size=4k\n\
            torn line\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[1].root, PathBuf::from("/a b"));
        assert_eq!(mounts[1].point, PathBuf::from("/mnt/x\\y\nz"));
        assert_eq!((mounts[1].fs_type.as_str(), mounts[1].options.as_str()), ("cgroup", "rw,cpu,cpuacct"));
        assert_eq!((mounts[2].fs_type.as_str(), mounts[2].options.as_str()), ("tmpfs", "rw,size=4k"));
        assert_eq!(unescape(b"\\04 \\999 \\"), b"\\04 \\999 \\", "what is no escape stays");
    }

    #[test]
    fn the_live_mounts_hold_proc() {
        let proc = mounts().unwrap().into_iter().find(|m| m.point == Path::new("/proc")).unwrap();
        assert_eq!((proc.fs_type.as_str(), proc.root), ("proc", PathBuf::from("/")));
    }

    /// Runs `check` with the id of a thread of this process that is not its main thread.
    fn beside_a_thread(check: impl FnOnce(u32)) -> u32 {
        let (tell_tid, tid) = mpsc::channel();
        let (end, wait_for_end) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            tell_tid.send(nix::unistd::gettid().as_raw().cast_unsigned()).unwrap();
            let _ = wait_for_end.recv();
        });
        let tid = tid.recv().unwrap();
        check(tid);
        drop(end);
        thread.join().unwrap();
        tid
    }

    #[test]
    fn a_thread_is_told_from_a_process() {
        let pid = id();
        beside_a_thread(|tid| {
            assert_eq!((tgid_of(pid), tgid_of(tid)), (Some(pid), Some(pid)));
            assert!(threads(pid).unwrap().contains(&tid));
            assert!(require_pids(&[pid]).is_ok() && require_tids(&[pid, tid]).is_ok());
            let error = require_pids(&[pid, tid]).unwrap_err();
            assert_eq!(verdict(&error), Verdict::Report(Kind::Failed));
            let expected = format!("{tid} is a thread of process {pid}: use -t {tid} or -p {pid}");
            assert_eq!(error.to_string(), expected);
        });
    }

    #[test]
    fn what_has_ended_is_gone() {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        assert!(is_gone(dead));
        assert_eq!((comm(dead), tgid_of(dead), schedstat(dead, dead)), (None, None, None));
        for error in [require_pids(&[id(), dead]).unwrap_err(), require_tids(&[dead]).unwrap_err()] {
            assert_eq!(verdict(&error), Verdict::Report(Kind::Failed));
            assert!(error.to_string().contains(&format!(" {dead}: it has ended")), "{error}");
        }
        beside_a_thread(|tid| assert!(!is_gone(tid)));
        // A thread's number may stay for a moment after join: the kernel frees it last.
        let tid = beside_a_thread(|_| {});
        while !is_gone(tid) {
            thread::yield_now();
        }
        assert!(!is_gone(id()) && !is_gone(1) && !is_gone(0) && is_gone(u32::MAX));
    }

    #[test]
    fn a_name_keeps_every_byte_but_the_kernels_newline() {
        let named = thread::spawn(|| {
            fs::write("/proc/thread-self/comm", b"a\n\xff\n").unwrap();
            comm(nix::unistd::gettid().as_raw().cast_unsigned())
        });
        assert_eq!(named.join().unwrap().as_deref(), Some(&b"a\n\xff\n"[..]));
    }

    #[test]
    fn scheduler_times_are_read() {
        let expected = Schedstat { run_ns: 12, wait_ns: 34, slices: 5 };
        assert_eq!(parse_schedstat("12 34 5\n"), Some(expected));
        assert_eq!(parse_schedstat("12 x\n"), None);
        assert!(schedstat(id(), id()).is_some());
    }

    #[test]
    fn namespaces_have_numbers() {
        let link = fs::read_link("/proc/self/ns/pid").unwrap();
        assert_eq!(link, PathBuf::from(format!("pid:[{}]", ns_inode("pid").unwrap())));
        assert_eq!(ns_inode("nonsense"), None);
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let file = b"# comment\nroot:x:0:0:root:/root:/bin/bash\nme:x:1000:1000::/:/bin/sh\nbroken:x\n";
        assert_eq!(passwd_id(file, "me"), Some(1000));
        assert_eq!(
            (passwd_id(file, "m"), passwd_id(file, "broken"), passwd_id(file, "")),
            (None, None, None)
        );
        assert_eq!((user_id("root").unwrap(), user_id("4711").unwrap()), (0, 4711));
        for text in ["", "-1", "+5", "4294967295", "99999999999", "no\x1bsuch"] {
            let error = user_id(text).unwrap_err();
            assert_eq!(verdict(&error), Verdict::Report(Kind::Usage), "{text:?}");
        }
        assert!(user_id("no\x1bsuch").unwrap_err().to_string().starts_with("no user no\\033such:"));
    }
}
