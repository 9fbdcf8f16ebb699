//! The stacks of a run, as the programs have sent them.

use std::collections::{HashMap, HashSet};

use common::maps::u64_at;

use crate::blocked::{Regs, Walked};
use crate::size::Budget;

mod by_name;

/// `enum stack_id` of `bpf/lib/stack.bpf.h`: what stands in place of a stack's hash.
pub const NONE: u64 = 0;
pub const UNSEEN: u64 = 1;
/// Those below stand for no stack.
const NOT_IDS: u64 = 8;

/// `enum record`.
const USER: u32 = 0;
const KERNEL: u32 = 1;
const CALLS: u32 = 2;
const WAKER: u32 = 3;
const PROCESS: u32 = 4;
const FULL: u32 = 5;
const REGS: u32 = 6;
const TOP: u32 = 7;

/// `enum stack_end`.
pub const DEEP: u32 = 1;

/// One stack, innermost address first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stack {
    pub ips: Box<[u64]>,
    /// It goes on beyond the limit of frames.
    pub cut: bool,
}

/// The memory on top of a user stack, from the stack pointer on.
#[derive(Debug, PartialEq, Eq)]
pub struct Top {
    pub sp: u64,
    pub fp: u64,
    pub words: Box<[u64]>,
}

/// Who woke a thread up.
#[derive(Debug, PartialEq, Eq)]
pub struct Waker {
    pub tgid: u32,
    pub tid: u32,
    pub comm: Vec<u8>,
    pub user: u64,
    pub kernel: u64,
}

/// What a record asks for beside keeping it.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    Nothing,
    /// A stack of this process: it is here, and may be gone soon.
    Process(u32),
    /// It runs another program now, or is new.
    Image(u32),
    /// A blocked thread: its stack is to be read from there, and to be put under this hash.
    Blocked(u64, Regs),
    /// The counters have to be collected.
    Full,
}

pub struct Stacks {
    stacks: HashMap<u64, Stack>,
    /// By kernel stack: return addresses on top of it, and the functions that were called before them.
    calls: HashMap<u64, Box<[(u64, u64)]>>,
    /// By user stack.
    tops: HashMap<u64, Top>,
    wakers: HashMap<u64, Waker>,
    /// Kernel stacks from /proc.
    named: HashMap<u64, by_name::Named>,
    /// User stacks that could not be read from outside.
    unread: HashSet<u64>,
    budget: Budget,
    bytes: u64,
    refused: u64,
}

/// A record's header: `struct stack` without its addresses.
const HEADER: usize = 32;

struct Header {
    hash: u64,
    record: u32,
    tgid: u32,
    end: u32,
    tid: u32,
}

impl Header {
    fn read(record: &[u8]) -> Option<Header> {
        let word = |at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
        Some(Header {
            hash: u64_at(record, 0)?,
            record: word(8)?,
            tgid: word(16)?,
            end: word(24)?,
            tid: word(28)?,
        })
    }
}

impl Stacks {
    pub fn new(budget: Budget) -> Stacks {
        Stacks {
            stacks: HashMap::new(),
            calls: HashMap::new(),
            tops: HashMap::new(),
            wakers: HashMap::new(),
            named: HashMap::new(),
            unread: HashSet::new(),
            budget,
            bytes: 0,
            refused: 0,
        }
    }

    /// A record from the ring; none if it has another shape.
    pub fn take(&mut self, record: &[u8]) -> Option<News> {
        let header = Header::read(record)?;
        let words: Vec<u64> = (HEADER..record.len()).step_by(8).map_while(|at| u64_at(record, at)).collect();
        Some(match header.record {
            USER => {
                self.keep(header.hash, header.end == DEEP, words);
                News::Process(header.tgid)
            }
            KERNEL => {
                self.keep(header.hash, header.end == DEEP, words);
                News::Nothing
            }
            CALLS => {
                let pairs: Box<[(u64, u64)]> =
                    words.as_chunks().0.iter().map(|[ret, to]| (*ret, *to)).collect();
                self.bytes += 16 * pairs.len() as u64;
                self.calls.insert(header.hash, pairs);
                News::Nothing
            }
            WAKER => {
                let [user, kernel, comm @ ..] = words.as_slice() else { return None };
                let comm = comm.iter().flat_map(|word| word.to_ne_bytes()).take_while(|b| *b != 0).collect();
                let waker = Waker { tgid: header.tgid, tid: header.tid, comm, user: *user, kernel: *kernel };
                self.wakers.insert(header.hash, waker);
                News::Nothing
            }
            PROCESS => News::Image(header.tgid),
            FULL => News::Full,
            REGS => {
                let [ip, sp, fp] = words.as_slice() else { return None };
                let regs = Regs { tgid: header.tgid, tid: header.tid, ip: *ip, sp: *sp, fp: *fp };
                News::Blocked(header.hash, regs)
            }
            TOP => {
                let [sp, fp, words @ ..] = words.as_slice() else { return None };
                self.keep_top(header.hash, Top { sp: *sp, fp: *fp, words: words.into() });
                News::Nothing
            }
            _ => return None,
        })
    }

    /// The stack of a blocked thread, `depth` addresses at most, or none.
    pub fn put(&mut self, hash: u64, walked: Option<Walked>, depth: usize) {
        let Some(Walked { ips, top }) = walked else {
            self.unread.insert(hash);
            return;
        };
        let cut = ips.len() >= depth;
        self.keep(hash, cut, ips);
        self.keep_top(hash, top);
    }

    fn keep_top(&mut self, hash: u64, top: Top) {
        self.bytes += bytes(top.words.len());
        self.tops.insert(hash, top);
    }

    pub fn is_unread(&self, hash: u64) -> bool {
        self.unread.contains(&hash)
    }

    fn keep(&mut self, hash: u64, cut: bool, words: Vec<u64>) {
        let bytes = self.bytes + bytes(words.len());
        if self.stacks.contains_key(&hash) {
            return;
        }
        if !self.budget.allows(self.stacks.len() as u64 + 1, bytes) {
            self.refused += 1;
            return;
        }
        self.bytes = bytes;
        self.stacks.insert(hash, Stack { ips: words.into(), cut });
    }

    pub fn get(&self, hash: u64) -> Option<&Stack> {
        self.stacks.get(&hash)
    }

    /// Is it known, or known to be unknown?
    pub fn has(&self, hash: u64) -> bool {
        hash <= UNSEEN || self.get(hash).is_some() || self.named(hash).is_some() || self.is_unread(hash)
    }

    pub fn calls(&self, hash: u64) -> &[(u64, u64)] {
        self.calls.get(&hash).map_or(&[], |pairs| pairs)
    }

    pub fn top(&self, hash: u64) -> Option<&Top> {
        self.tops.get(&hash)
    }

    pub fn waker(&self, hash: u64) -> Option<&Waker> {
        self.wakers.get(&hash)
    }

    pub fn is_half_full(&self) -> bool {
        !self.budget.allows(2 * self.stacks.len() as u64, 2 * self.bytes)
    }

    /// Forgets all stacks but `used` if half of the budget is spent; gives those it has forgotten.
    pub fn make_room(&mut self, used: &HashSet<u64>) -> Vec<u64> {
        if !self.is_half_full() {
            return Vec::new();
        }
        let gone: Vec<u64> = self.stacks.keys().copied().filter(|hash| !used.contains(hash)).collect();
        for hash in &gone {
            self.stacks.remove(hash);
            self.calls.remove(hash);
            self.tops.remove(hash);
        }
        self.bytes = self.stacks.values().map(|stack| bytes(stack.ips.len())).sum();
        self.bytes += self.calls.values().map(|pairs| 16 * pairs.len() as u64).sum::<u64>();
        self.bytes += self.tops.values().map(|top| bytes(top.words.len())).sum::<u64>();
        self.bytes += self.named.values().map(by_name::Named::bytes).sum::<u64>();
        gone
    }

    /// Stacks, their bytes, and those that were not kept.
    pub fn figures(&self) -> (u64, u64, u64) {
        (self.stacks.len() as u64, self.bytes, self.refused)
    }
}

/// Beside the addresses: the table's own entry.
fn bytes(addresses: usize) -> u64 {
    8 * addresses as u64 + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(hash: u64, record: u32, rest: [u32; 5], words: &[u64]) -> Vec<u8> {
        let mut bytes = hash.to_ne_bytes().to_vec();
        bytes.extend([record].iter().chain(&rest).flat_map(|word| word.to_ne_bytes()));
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn stacks_are_kept_by_their_hash_and_up_to_the_budget() {
        let mut stacks = Stacks::new(Budget::Stacks(2));
        assert_eq!(stacks.take(&record(10, USER, [2, 42, 0, DEEP, 0], &[1, 2])), Some(News::Process(42)));
        assert_eq!(stacks.take(&record(11, KERNEL, [1, 0, 0, 0, 0], &[3])), Some(News::Nothing));
        assert_eq!(stacks.take(&record(12, KERNEL, [1, 0, 0, 0, 0], &[4])), Some(News::Nothing));
        assert_eq!(stacks.get(10), Some(&Stack { ips: [1, 2].into(), cut: true }));
        assert_eq!(stacks.get(11), Some(&Stack { ips: [3].into(), cut: false }));
        assert_eq!((stacks.get(12), stacks.figures().2), (None, 1));
        assert_eq!(stacks.take(&[0; 12]), None);
    }

    #[test]
    fn stacks_in_use_are_not_forgotten() {
        let mut stacks = Stacks::new(Budget::Stacks(4));
        for hash in 10..13 {
            stacks.take(&record(hash, USER, [1, 42, 0, 0, 0], &[hash]));
        }
        assert_eq!(stacks.make_room(&HashSet::from([11])).len(), 2);
        assert!(stacks.get(11).is_some() && stacks.get(10).is_none());
        assert!(stacks.make_room(&HashSet::new()).is_empty(), "there is room again");
    }

    #[test]
    fn a_process_is_news_and_a_waker_has_a_name() {
        let mut stacks = Stacks::new(Budget::Stacks(9));
        assert_eq!(stacks.take(&record(0, PROCESS, [0, 7, 1, 0, 0], &[])), Some(News::Image(7)));
        let name = u64::from_ne_bytes(*b"bash\0xyz");
        stacks.take(&record(20, WAKER, [4, 7, 0, 0, 8], &[10, 11, name, 0]));
        let waker = Waker { tgid: 7, tid: 8, comm: b"bash".to_vec(), user: 10, kernel: 11 };
        assert_eq!(stacks.waker(20), Some(&waker));
        stacks.take(&record(11, CALLS, [4, 0, 0, 0, 0], &[1, 2, 3, 4]));
        assert_eq!(stacks.calls(11), [(1, 2), (3, 4)]);
    }
}
