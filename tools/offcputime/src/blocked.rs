//! User stacks of threads that are blocked when the run begins, where no program can read their memory (before 5.18):
//! the programs send the registers, and the stack is read here, the same way as there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::asleep::Entered;
use crate::stacks::Top;

/// Of a thread, when it entered the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regs {
    pub tgid: u32,
    pub tid: u32,
    pub ip: u64,
    pub sp: u64,
    pub fp: u64,
}

/// Return addresses, innermost first, and the words on top of the stack.
#[derive(Debug, PartialEq, Eq)]
pub struct Walked {
    pub ips: Vec<u64>,
    pub top: Top,
}

/// `TOP_WORDS` of `bpf/lib/stack.bpf.h`.
const TOP_WORDS: u64 = 64;
/// `LOWEST_IP` of `bpf/lib/unwind.bpf.h`.
const LOWEST_IP: u64 = 4096;

/// None: it has gone on since, or its memory cannot be read.
pub fn walk(regs: &Regs, depth: usize) -> Option<Walked> {
    let before = waits_there(regs);
    let memory = memory(regs.tgid);
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory(at, &mut bytes).then(|| u64::from_ne_bytes(bytes))
    };
    let walked = frames(regs, depth, word);
    (before && waits_there(regs)).then_some(walked)
}

/// Is it in the kernel still, or again, with the same registers?
fn waits_there(regs: &Regs) -> bool {
    Entered::read(regs.tgid, regs.tid) == Entered::At(regs.ip, regs.sp)
}

/// Reads memory of a process; false: it cannot be read.
pub fn memory(tgid: u32) -> impl Fn(u64, &mut [u8]) -> bool {
    let file = File::open(format!("/proc/{tgid}/mem"));
    move |at, to| file.as_ref().is_ok_and(|file| file.read_exact_at(to, at).is_ok())
}

fn frames(regs: &Regs, depth: usize, word: impl Fn(u64) -> Option<u64>) -> Walked {
    let mut ips = vec![regs.ip];
    let mut fp = regs.fp;
    while ips.len() < depth && fp != 0 && fp.is_multiple_of(8) {
        let (Some(next), Some(ret)) = (word(fp), word(fp.wrapping_add(8))) else { break };
        if ret < LOWEST_IP {
            break;
        }
        ips.push(ret);
        if next <= fp {
            break;
        }
        fp = next;
    }
    let room = regs.fp.wrapping_sub(regs.sp) / 8;
    let count = if room <= TOP_WORDS - 2 { room + 2 } else { TOP_WORDS };
    let words = (0..count).map_while(|i| word(regs.sp.wrapping_add(8 * i))).collect();
    Walked { ips, top: Top { sp: regs.sp, fp: regs.fp, words } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_process_is_read() {
        let word = 0x1234_5678_9abc_def0_u64;
        let mut bytes = [0; 8];
        assert!(memory(std::process::id())(&raw const word as u64, &mut bytes));
        assert_eq!(u64::from_ne_bytes(bytes), word);
        assert!(!memory(std::process::id())(0, &mut bytes));
    }

    #[test]
    fn frames_run_outwards_and_end_at_zero() {
        // Two frames at 0x1020 and 0x1040; on top of them a word that the first one's function pushed.
        let stack = [(0x1018, 0x4444), (0x1020, 0x1040), (0x1028, 0x5555), (0x1040, 0), (0x1048, 0x6666)];
        let word = |at: u64| {
            (0x1000..0x1100)
                .contains(&at)
                .then(|| stack.iter().find(|(place, _)| *place == at).map_or(0, |(_, word)| *word))
        };
        let regs = Regs { tgid: 1, tid: 1, ip: 0x3333, sp: 0x1018, fp: 0x1020 };
        let walked = frames(&regs, 127, word);
        assert_eq!(walked.ips, [0x3333, 0x5555, 0x6666]);
        assert_eq!(*walked.top.words, [0x4444, 0x1040, 0x5555]);
        assert_eq!(frames(&regs, 2, word).ips, [0x3333, 0x5555]);
        assert_eq!(frames(&Regs { fp: 0x9000, ..regs }, 127, word).ips, [0x3333], "no memory");
    }
}
