//! Names in the kernel, from /proc/kallsyms, and why there may be none.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::rc::Rc;

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{Input, Symbolizer};

use crate::elf::{self, symbolizer};
use crate::frame::{Frame, Named, Space};

/// An address, and whether it is that of an instruction; else one to return to, which is after it.
pub type Address = (u64, bool);

pub struct Kernel {
    lines: bool,
    symbolizer: Symbolizer,
    names: HashMap<Address, Named>,
    /// Does the symbolizer hold what kallsyms said in an earlier call?
    old: bool,
}

impl Kernel {
    pub fn new(lines: bool) -> Kernel {
        Kernel { lines, symbolizer: symbolizer(lines), names: HashMap::new(), old: false }
    }

    pub fn frames(&mut self, stacks: &[&[u64]]) -> Vec<Vec<Named>> {
        let mut fresh: Vec<Address> = addresses(stacks).filter(|one| !self.names.contains_key(one)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        if !fresh.is_empty() {
            let missing = self.ask(&fresh);
            // A module or a BPF program may have been loaded since.
            if missing && self.old {
                self.symbolizer = symbolizer(self.lines);
                self.ask(&fresh);
            }
            self.old = true;
        }
        let frame = |one: Address| Rc::clone(&self.names[&one]);
        stacks.iter().map(|stack| addresses(&[stack]).map(frame).collect()).collect()
    }

    /// Was a name missing?
    fn ask(&mut self, addresses: &[Address]) -> bool {
        let lookups: Vec<u64> = addresses.iter().map(|one| lookup(*one)).collect();
        let ask = |vmlinux| {
            let kernel = source::Kernel { vmlinux, debug_syms: self.lines, ..source::Kernel::default() };
            self.symbolizer.symbolize(&Source::Kernel(kernel), Input::AbsAddr(&lookups))
        };
        // vmlinux has the lines; for names alone it would be read for nothing. One that cannot be used must
        // not cost the names.
        let answer = if self.lines { ask(MaybeDefault::Default) } else { ask(MaybeDefault::None) };
        let answer = answer.or_else(|_| ask(MaybeDefault::None));
        let mut answer = answer.unwrap_or_default().into_iter();
        let mut missing = false;
        for (address, lookup) in addresses.iter().zip(&lookups) {
            let frame = match answer.next().and_then(elf::found) {
                Some(found) => found.frame(Space::Kernel, None, address.0 - lookup),
                None => {
                    missing = true;
                    Frame::unknown(Space::Kernel)
                }
            };
            self.names.insert(*address, Rc::new(frame));
        }
        missing
    }
}

/// The addresses of stacks: the first of each is that of an instruction.
pub fn addresses(stacks: &[&[u64]]) -> impl Iterator<Item = Address> {
    stacks.iter().flat_map(|stack| stack.iter().enumerate().map(|(depth, address)| (*address, depth == 0)))
}

/// Where to look: a call may be the last instruction of a function that never returns, and the address to
/// return to is then in the function behind it.
pub fn lookup((address, exact): Address) -> u64 {
    if exact { address } else { address.saturating_sub(1) }
}

/// Why kernel frames will have no names, and what to do about it; none if they will.
#[must_use]
pub fn hidden() -> Option<String> {
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    let facts = Facts {
        addresses: File::open("/proc/kallsyms").ok().map(|file| {
            let lines = BufReader::new(file).lines().map_while(Result::ok);
            // The first ones may be 0 in truth: per-CPU variables, on x86_64 before 6.15.
            let mut lines = lines.filter(|line| !line.contains(" A ")).take(LOOKED_AT);
            lines.any(|line| line.split(' ').next().is_some_and(|hex| hex.bytes().any(|b| b != b'0')))
        }),
        kptr_restrict: number("/proc/sys/kernel/kptr_restrict").unwrap_or(0),
        perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid").unwrap_or(0),
        syslog: capability(CAP_SYSLOG),
    };
    why(&facts)
}

/// Lines of kallsyms to look at for one that has an address.
const LOOKED_AT: usize = 4096;
const CAP_SYSLOG: u32 = 34;

fn capability(bit: u32) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> bit & 1 == 1)
}

struct Facts {
    /// Does kallsyms show addresses? None: it cannot be read.
    addresses: Option<bool>,
    kptr_restrict: i32,
    perf_event_paranoid: i32,
    syslog: bool,
}

/// As `kallsyms_show_value` of the kernel decides.
fn why(facts: &Facts) -> Option<String> {
    let cure = match facts {
        Facts { addresses: Some(true), .. } => return None,
        Facts { addresses: None, .. } => {
            return Some("kernel frames have no names: /proc/kallsyms cannot be read".to_owned());
        }
        Facts { kptr_restrict: 2.., .. } => {
            "kernel.kptr_restrict is 2: sysctl kernel.kptr_restrict=1".to_owned()
        }
        Facts { syslog: false, kptr_restrict: 0, perf_event_paranoid, .. } => format!(
            "CAP_SYSLOG is missing and kernel.perf_event_paranoid is {perf_event_paranoid}: give CAP_SYSLOG, or \
             sysctl kernel.perf_event_paranoid=1"
        ),
        Facts { syslog: false, kptr_restrict, .. } => {
            format!("CAP_SYSLOG is missing and kernel.kptr_restrict is {kptr_restrict}: give CAP_SYSLOG")
        }
        Facts { .. } => "a security module forbids it, though kernel.kptr_restrict would not".to_owned(),
    };
    Some(format!("kernel frames have no names: /proc/kallsyms shows no addresses, for {cure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sysctl_is_named() {
        let facts = |kptr_restrict, syslog, perf_event_paranoid| Facts {
            addresses: Some(false),
            kptr_restrict,
            perf_event_paranoid,
            syslog,
        };
        assert!(why(&facts(2, true, 2)).unwrap().ends_with("sysctl kernel.kptr_restrict=1"));
        assert!(why(&facts(1, false, 2)).unwrap().ends_with("kernel.kptr_restrict is 1: give CAP_SYSLOG"));
        assert!(why(&facts(0, false, 2)).unwrap().ends_with("sysctl kernel.perf_event_paranoid=1"));
        assert!(why(&facts(0, true, 2)).unwrap().contains("security module"));
        assert!(why(&Facts { addresses: None, ..facts(0, true, 2) }).unwrap().contains("cannot be read"));
        assert_eq!(why(&Facts { addresses: Some(true), ..facts(2, false, 2) }), None);
    }

    #[test]
    fn an_address_to_return_to_is_looked_up_before_itself() {
        let stack = [0x1000, 0x2000, 0x3000];
        let lookups: Vec<_> = addresses(&[&stack]).map(lookup).collect();
        assert_eq!(lookups, [0x1000, 0x1fff, 0x2fff]);
    }
}
