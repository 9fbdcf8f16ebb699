//! Loading a BPF object, and what the kernel says when it will not.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::{MapCore as _, MapFlags, Object, OpenObject, PrintLevel};

use crate::exit::{Kind, fault};
use crate::maps;

/// libbpf's last messages. A verifier's log comes as one message of many lines.
static LOG: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
const KEPT: usize = 64;

/// For `libbpf_rs::set_print`: libbpf writes to stderr what means nothing to most users.
pub fn keep_log(_: PrintLevel, message: String) {
    let Ok(mut log) = LOG.lock() else { return };
    if log.len() == KEPT {
        log.pop_front();
    }
    log.push_back(message);
}

/// Which of the maps `start_storage` and `start_hash` exists: a kernel may not know the other's type.
///
/// # Errors
/// libbpf refuses.
pub fn choose_starts(open: &mut OpenObject, storage: bool) -> Result<()> {
    for mut map in open.maps_mut() {
        match map.name().to_str() {
            Some("start_storage") => map.set_autocreate(storage)?,
            Some("start_hash") => map.set_autocreate(!storage)?,
            _ => {}
        }
    }
    Ok(())
}

/// # Errors
/// The kernel refused a program or a map; the message has the verifier's last words, `verbose` all of them.
pub fn load<'obj, O: OpenSkel<'obj>>(open: O, verbose: bool) -> Result<O::Output> {
    if let Ok(mut log) = LOG.lock() {
        log.clear();
    }
    open.load().map_err(|error| {
        let log: Vec<String> = LOG.lock().map(|log| log.iter().cloned().collect()).unwrap_or_default();
        if verbose {
            eprint!("{}", log.concat());
        }
        let more = if verbose { "" } else { " (all of it: -v)" };
        match last_words(&log) {
            Some(words) => {
                fault(Kind::Unsupported, format!("the kernel refused a BPF program: {words}{more}"))
            }
            None => anyhow!(error).context("the kernel refused the BPF object"),
        }
    })
}

/// Begins the run: the programs, all attached by now, do nothing before. `bpf/lib/maps.bpf.h` says why.
///
/// # Errors
/// The kernel refuses.
pub fn begin(object: &Object) -> Result<()> {
    set_running(object, RUN_ON)
}

/// The same for a tool that first looks at what is there already, by `look`: meanwhile an end without its
/// start began before the run, and is no loss.
///
/// # Errors
/// The kernel refuses, or `look` fails.
pub fn begin_after(object: &Object, look: impl FnOnce() -> Result<()>) -> Result<()> {
    set_running(object, RUN_BEGINS)?;
    look()?;
    set_running(object, RUN_ON)
}

/// The run ends, but what is under way has to be looked at first: nothing new begins.
///
/// # Errors
/// The kernel refuses.
pub fn ending(object: &Object) -> Result<()> {
    set_running(object, RUN_ENDS)
}

/// `enum run` of `bpf/lib/maps.bpf.h`.
const RUN_ENDED: u32 = 0;
const RUN_ON: u32 = 1;
const RUN_BEGINS: u32 = 2;
const RUN_ENDS: u32 = 3;

/// Ends it. When this returns no program is at work any more: what is in the maps is the result.
///
/// # Errors
/// The kernel refuses.
pub fn end(object: &Object) -> Result<()> {
    set_running(object, RUN_ENDED)?;
    // MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, and programs run inside RCU read sections.
    // SAFETY: the call takes three integers.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited != 0 {
        std::thread::sleep(Duration::from_millis(20)); // nohz_full kernels refuse it
    }
    Ok(())
}

fn set_running(object: &Object, running: u32) -> Result<()> {
    let map = maps::find(object, ".data.run")?;
    map.update(&0_u32.to_ne_bytes(), &running.to_ne_bytes(), MapFlags::ANY)
        .context("cannot begin or end the run")
}

/// The program that failed, and the verifier's last line before it counts its work.
fn last_words(log: &[String]) -> Option<String> {
    let lines = || log.iter().flat_map(|message| message.lines());
    let failed = lines().find(|line| line.contains("BPF program load failed"))?;
    let failed = failed.strip_prefix("libbpf: ").unwrap_or(failed);
    let verdict =
        lines().take_while(|line| !line.starts_with("processed ")).filter(|line| !line.trim().is_empty());
    let verdict = verdict.filter(|line| !line.starts_with("libbpf: ")).last();
    Some(match verdict {
        Some(verdict) => format!("{failed}: {}", verdict.trim()),
        None => failed.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_program_and_the_reason_are_found() {
        let log = [
            "libbpf: prog 'switch_btf': BPF program load failed: Permission denied\n".to_owned(),
            "libbpf: prog 'switch_btf': -- BEGIN PROG LOAD LOG --\n0: R1=ctx()\n12: (79) r1 = *(u64 *)(r1 +8)\n\
             R1 invalid mem access 'scalar'\nprocessed 12 insns (limit 1000000)\n-- END PROG LOAD LOG --\n"
                .to_owned(),
        ];
        let words = last_words(&log).unwrap();
        assert!(words.starts_with("prog 'switch_btf': BPF program load failed"), "{words}");
        assert!(words.ends_with("R1 invalid mem access 'scalar'"), "{words}");
    }
}
