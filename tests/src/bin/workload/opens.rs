//! Opens by every route, by the bare system call: what the C library makes of `open` does not matter.

use std::ffi::{CString, OsStr, c_long};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use crate::stage::{Stage, say};
use crate::{Done, Outcome, compat, uring};

/// Why a route cannot be taken.
pub enum NotHere {
    Unsupported(String),
    Failed(String),
}

/// Makes one call; the result as the kernel gives it: a descriptor or a negated errno.
pub type Opener = Box<dyn FnMut() -> i64>;

/// How a file is to be opened.
#[derive(Clone, Copy)]
pub struct How {
    pub flags: i32,
    pub mode: u32,
}

/// What to open, how often and by whom.
struct Job<'a> {
    route: &'a str,
    count: u64,
    paths: Vec<&'a OsStr>,
    how: How,
    threads: u64,
}

impl<'a> Job<'a> {
    fn from(route: &'a str, count: u64, rest: &[&'a OsStr]) -> Result<Job<'a>, String> {
        let how = How { flags: 0, mode: 0o644 };
        let mut job = Job { route, count, paths: Vec::new(), how, threads: 1 };
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--flags") => job.how.flags = octal(words.next())? as i32,
                Some("--mode") => job.how.mode = octal(words.next())?,
                Some("--threads") => job.threads = whole(words.next())?,
                _ => job.paths.push(word),
            }
        }
        Ok(job)
    }

    fn openers(&self) -> Result<Vec<Opener>, NotHere> {
        self.paths.iter().map(|path| opener(self.route, Path::new(path), self.how)).collect()
    }

    /// How many were opened and how many failed; no call at all where the kernel does not have it.
    fn work(&self, openers: &mut [Opener]) -> Result<(u64, u64), NotHere> {
        let (mut opened, mut failed) = (0, 0);
        for open in openers {
            for _ in 0..self.count {
                let result = open();
                if result == -i64::from(libc::ENOSYS) {
                    return Err(NotHere::Unsupported(format!("{}: no such system call", self.route)));
                }
                if result < 0 {
                    failed += 1;
                    continue;
                }
                opened += 1;
                // A direct io_uring open gives no descriptor.
                if self.route != "uring-direct" {
                    // SAFETY: the descriptor is new and nobody else knows it.
                    unsafe { libc::close(result as i32) };
                }
            }
        }
        Ok((opened, failed))
    }
}

/// `rest`: paths and options. Everything that opens files on its own account is done before the gate.
pub fn run(route: &str, count: u64, rest: &[&OsStr], stage: &Stage) -> Outcome {
    let job = Job::from(route, count, rest)?;
    let done = match (job.openers(), job.threads) {
        (Ok(mut openers), 1) => {
            stage.ready()?;
            job.work(&mut openers)
        }
        (Ok(_), _) => in_threads(&job, stage),
        (Err(why), _) => Err(why),
    };
    match done {
        Ok((opened, failed)) => say(&format!("opened {opened} failed {failed}"))?,
        Err(NotHere::Unsupported(why)) => return Ok(Done::Unsupported(why)),
        Err(NotHere::Failed(why)) => return Err(why),
    }
    stage.done()?;
    Ok(Done::Ok)
}

/// The main thread only waits: the threads are there before the gate opens, and until all have done.
fn in_threads(job: &Job<'_>, stage: &Stage) -> Result<(u64, u64), NotHere> {
    let meet = Barrier::new(job.threads as usize + 1);
    let worker = || {
        let mut openers = job.openers();
        meet.wait();
        meet.wait();
        let done = openers.as_mut().map(|openers| job.work(openers));
        meet.wait();
        done.unwrap_or_else(|_| Err(NotHere::Failed("a thread could not get ready".to_owned())))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..job.threads).map(|_| scope.spawn(worker)).collect();
        meet.wait();
        let ready = stage.ready().map_err(NotHere::Failed);
        meet.wait();
        meet.wait();
        let mut total = (0, 0);
        for thread in threads {
            let (opened, failed) =
                thread.join().map_err(|_| NotHere::Failed("a thread panicked".to_owned()))??;
            total = (total.0 + opened, total.1 + failed);
        }
        ready.map(|()| total)
    })
}

fn text<'a>(value: Option<&&'a OsStr>) -> Result<&'a str, String> {
    value.and_then(|value| value.to_str()).ok_or_else(|| "an option lacks its value".to_owned())
}

fn whole(value: Option<&&OsStr>) -> Result<u64, String> {
    let value = text(value)?;
    value.parse().map_err(|_| format!("not a whole number: {value}"))
}

fn octal(value: Option<&&OsStr>) -> Result<u32, String> {
    let value = text(value)?;
    u32::from_str_radix(value, 8).map_err(|_| format!("not an octal number: {value}"))
}

fn opener(route: &str, path: &Path, how: How) -> Result<Opener, NotHere> {
    let name = c_string(path)?;
    match route {
        "openat" => Ok(openat(libc::AT_FDCWD, name, how)),
        "openat-dirfd" => {
            let (Some(dir), Some(leaf)) = (path.parent(), path.file_name()) else {
                return Err(NotHere::Failed(format!("{} has no directory part", path.display())));
            };
            Ok(openat(open_dir(dir)?, c_string(Path::new(leaf))?, how))
        }
        "openat2" => Ok(openat2(name, how)),
        "by-handle" => by_handle(path, how),
        "bad-pointer" => {
            Ok(Box::new(move || call(libc::SYS_openat, [libc::AT_FDCWD.into(), 1, how.flags.into(), 0, 0])))
        }
        "open" | "creat" => old(route, name, how),
        _ if route.starts_with("uring-") => uring::opener(route, name, how),
        _ if route.starts_with("compat-") => compat::opener(route, &name, how),
        _ => Err(NotHere::Failed(format!("no such route: {route}"))),
    }
}

/// The calls that newer architectures never had.
#[cfg(target_arch = "x86_64")]
fn old(route: &str, name: CString, how: How) -> Result<Opener, NotHere> {
    Ok(if route == "open" {
        Box::new(move || call(libc::SYS_open, [address(&name), how.flags.into(), how.mode.into(), 0, 0]))
    } else {
        Box::new(move || call(libc::SYS_creat, [address(&name), how.mode.into(), 0, 0, 0]))
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn old(route: &str, _: CString, _: How) -> Result<Opener, NotHere> {
    Err(NotHere::Unsupported(format!("{route}: no such system call on this architecture")))
}

fn openat(dir: i32, name: CString, how: How) -> Opener {
    Box::new(move || {
        call(libc::SYS_openat, [dir.into(), address(&name), how.flags.into(), how.mode.into(), 0])
    })
}

fn openat2(name: CString, how: How) -> Opener {
    // struct open_how; a mode without O_CREAT is refused.
    let mode = if how.flags & libc::O_CREAT == 0 { 0 } else { u64::from(how.mode) };
    let how = [how.flags as u64, mode, 0];
    Box::new(move || {
        let size = size_of_val(&how) as i64;
        call(libc::SYS_openat2, [libc::AT_FDCWD.into(), address(&name), how.as_ptr() as i64, size, 0])
    })
}

/// A missing file has no handle: then that of its directory, spoilt.
fn by_handle(path: &Path, how: How) -> Result<Opener, NotHere> {
    /// `struct file_handle` with room for any.
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let exists = path.exists();
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = c_string(if exists { path } else { dir })?;
    let mut handle = Box::new(Handle { bytes: 128, kind: 0, data: [0; 128] });
    let mut mount = 0i32;
    let args = [libc::AT_FDCWD.into(), address(&name), &raw mut *handle as i64, &raw mut mount as i64, 0];
    match call(libc::SYS_name_to_handle_at, args) {
        0 => {}
        error if error == -i64::from(libc::EOPNOTSUPP) => {
            return Err(NotHere::Unsupported(format!("{}: its file system has no handles", path.display())));
        }
        error => return Err(NotHere::Failed(format!("name_to_handle_at {}: {error}", path.display()))),
    }
    if !exists {
        handle.data.fill(0xa5);
    }
    let dir = open_dir(dir)?;
    Ok(Box::new(move || {
        call(libc::SYS_open_by_handle_at, [dir.into(), &raw const *handle as i64, how.flags.into(), 0, 0])
    }))
}

/// Left open to the end.
fn open_dir(dir: &Path) -> Result<i32, NotHere> {
    let name = c_string(dir)?;
    let fd = call(libc::SYS_openat, [libc::AT_FDCWD.into(), address(&name), libc::O_DIRECTORY.into(), 0, 0]);
    if fd < 0 {
        return Err(NotHere::Failed(format!(
            "{}: {}",
            dir.display(),
            io::Error::from_raw_os_error(-fd as i32)
        )));
    }
    Ok(fd as i32)
}

fn c_string(path: &Path) -> Result<CString, NotHere> {
    CString::new(path.as_os_str().as_bytes()).map_err(|e| NotHere::Failed(e.to_string()))
}

fn address(name: &CString) -> i64 {
    name.as_ptr() as i64
}

fn call(nr: c_long, args: [i64; 5]) -> i64 {
    // SAFETY: every caller passes what the call of that number takes, and keeps what the arguments point
    // to alive until it returns. A bad pointer only makes the call fail.
    let result = unsafe { libc::syscall(nr, args[0], args[1], args[2], args[3], args[4]) };
    if result >= 0 {
        return result;
    }
    -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
