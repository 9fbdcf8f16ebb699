//! Opens by every route, by the bare system call: what the C library makes of `open` does not matter.

use std::ffi::{CString, c_long};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::{Done, Outcome, compat, say, uring};

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

/// `rest`: paths and options. Everything that opens files on its own account is done before `ready`.
pub fn run(route: &str, count: u64, rest: &[&str], ready: &dyn Fn() -> Result<(), String>) -> Outcome {
    let (mut paths, mut how) = (Vec::new(), How { flags: 0, mode: 0o644 });
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        match *word {
            "--flags" => how.flags = octal(words.next())? as i32,
            "--mode" => how.mode = octal(words.next())?,
            path => paths.push(path),
        }
    }
    let mut openers = Vec::new();
    for path in &paths {
        match opener(route, path, how) {
            Ok(opener) => openers.push(opener),
            Err(NotHere::Unsupported(why)) => return Ok(Done::Unsupported(why)),
            Err(NotHere::Failed(why)) => return Err(why),
        }
    }
    ready()?;
    let (mut opened, mut failed) = (0u64, 0u64);
    for open in &mut openers {
        for _ in 0..count {
            let result = open();
            if result == -i64::from(libc::ENOSYS) {
                return Ok(Done::Unsupported(format!("{route}: no such system call")));
            }
            if result < 0 {
                failed += 1;
                continue;
            }
            opened += 1;
            // A direct io_uring open gives no descriptor.
            if route != "uring-direct" {
                // SAFETY: the descriptor is new and nobody else knows it.
                unsafe { libc::close(result as i32) };
            }
        }
    }
    say(&format!("opened {opened} failed {failed}"))?;
    Ok(Done::Ok)
}

fn octal(text: Option<&&str>) -> Result<u32, String> {
    let text = text.ok_or("an option lacks its value")?;
    u32::from_str_radix(text, 8).map_err(|_| format!("not an octal number: {text}"))
}

fn opener(route: &str, path: &str, how: How) -> Result<Opener, NotHere> {
    let name = c_string(Path::new(path))?;
    match route {
        "openat" => Ok(openat(libc::AT_FDCWD, name, how)),
        "openat-dirfd" => {
            let path = Path::new(path);
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
fn by_handle(path: &str, how: How) -> Result<Opener, NotHere> {
    /// `struct file_handle` with room for any.
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let exists = Path::new(path).exists();
    let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
    let name = c_string(if exists { Path::new(path) } else { dir })?;
    let mut handle = Box::new(Handle { bytes: 128, kind: 0, data: [0; 128] });
    let mut mount = 0i32;
    let args = [libc::AT_FDCWD.into(), address(&name), &raw mut *handle as i64, &raw mut mount as i64, 0];
    match call(libc::SYS_name_to_handle_at, args) {
        0 => {}
        error if error == -i64::from(libc::EOPNOTSUPP) => {
            return Err(NotHere::Unsupported(format!("{path}: its file system has no handles")));
        }
        error => return Err(NotHere::Failed(format!("name_to_handle_at {path}: {error}"))),
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
