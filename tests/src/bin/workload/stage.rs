//! What surrounds the work: who does it, where, and when.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;

/// Called by each command when it has everything ready for its work, and when that is done.
pub struct Stage {
    gate: bool,
    hold: bool,
}

impl Stage {
    /// Carries out the options in front of the command, in their order; the command.
    pub fn set(args: &[OsString]) -> Result<(Stage, &[OsString]), String> {
        let mut stage = Stage { gate: false, hold: false };
        let mut rest = args;
        while let [option, tail @ ..] = rest {
            match option.to_str() {
                Some("--gate") => stage.gate = true,
                Some("--hold") => stage.hold = true,
                Some(name) if name.starts_with("--") => {
                    let [value, more @ ..] = tail else { return Err(format!("{name} lacks its value")) };
                    apply(name, value).map_err(|e| format!("{name} {}: {e}", value.display()))?;
                    rest = more;
                    continue;
                }
                _ => break,
            }
            rest = tail;
        }
        Ok((stage, rest))
    }

    pub fn ready(&self) -> Result<(), String> {
        say(&std::process::id().to_string())?;
        if self.gate { wait_line() } else { Ok(()) }
    }

    pub fn done(&self) -> Result<(), String> {
        if !self.hold {
            return Ok(());
        }
        say("done")?;
        wait_line()
    }
}

fn apply(option: &str, value: &OsStr) -> Result<(), String> {
    let text = value.to_str().unwrap_or_default();
    match option {
        "--comm" => {
            let name = c_string(value)?;
            // SAFETY: a NUL-terminated name; the kernel copies what fits.
            check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) })
        }
        "--round-robin" => {
            let priority = text.parse().map_err(|_| "not a number")?;
            let param = libc::sched_param { sched_priority: priority };
            // SAFETY: the parameters outlive the call.
            check(unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const param) })
        }
        "--uid" => {
            let uid: u32 = text.parse().map_err(|_| "not a number")?;
            // SAFETY: numbers only.
            check(unsafe { libc::setresuid(uid, uid, uid) })
        }
        "--cwd" => std::env::set_current_dir(value).map_err(|e| e.to_string()),
        "--chroot" => std::os::unix::fs::chroot(value).map_err(|e| e.to_string()),
        "--bind" => {
            let (source, dir) = text.split_once(':').ok_or("not SOURCE:DIR")?;
            bind(OsStr::new(source), OsStr::new(dir))
        }
        _ => Err("no such option".to_owned()),
    }
}

/// In a mount namespace of its own: nobody else sees it, and it ends with this process.
fn bind(source: &OsStr, dir: &OsStr) -> Result<(), String> {
    let (source, dir) = (c_string(source)?, c_string(dir)?);
    let none = std::ptr::null();
    // SAFETY: a flag only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: NUL-terminated paths; the other arguments are not looked at.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
    // SAFETY: likewise.
    check(unsafe { libc::mount(source.as_ptr(), dir.as_ptr(), none, libc::MS_BIND, none.cast()) })
}

fn check(result: i32) -> Result<(), String> {
    if result < 0 { Err(io::Error::last_os_error().to_string()) } else { Ok(()) }
}

fn c_string(text: &OsStr) -> Result<CString, String> {
    CString::new(text.as_bytes()).map_err(|e| e.to_string())
}

/// One line to stdout, at once.
pub fn say(line: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| format!("stdout: {e}"))
}

/// A line on stdin, or its end.
fn wait_line() -> Result<(), String> {
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line).map_err(|e| format!("stdin: {e}"))?;
    Ok(())
}
