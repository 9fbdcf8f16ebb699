//! From the hashes of stacks to the names of their functions, all of a part at once.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use stack::{Early, Frame, Named, Space, Symbols, Top, trim};

use crate::calls::{self, Function};
use crate::stacks::{self, NONE, Stack, Stacks, UNSEEN};
use crate::waits::Key;

pub type Frames = Rc<[Named]>;

/// One of our own lines among the frames.
pub fn marker(text: &str) -> Named {
    Rc::new(Frame::marker(text))
}

/// The named stacks of a part.
#[derive(Default)]
pub struct Names {
    user: HashMap<(u32, u64), Frames>,
    kernel: HashMap<u64, Frames>,
}

impl Names {
    /// Names every stack of `keys`. `early`: counts the user stacks for which frame pointers were missing.
    pub fn find<'k>(
        symbols: &mut Symbols,
        stacks: &Stacks,
        keys: impl Iterator<Item = &'k Key>,
        early: &mut Early,
    ) -> Names {
        let mut users: HashMap<u32, HashSet<u64>> = HashMap::new();
        let mut kernels = HashSet::new();
        for key in keys {
            users.entry(key.tgid).or_default().insert(key.user);
            kernels.insert(key.kernel);
            if let Some(waker) = stacks.waker(key.waker) {
                users.entry(waker.tgid).or_default().insert(waker.user);
                kernels.insert(waker.kernel);
            }
        }
        let mut names = Names::default();
        names.find_kernel(symbols, stacks, kernels);
        symbols.announce("offcputime", users.keys().copied());
        for (tgid, hashes) in users {
            names.find_user(symbols, stacks, tgid, hashes, early);
        }
        symbols.done();
        names
    }

    fn find_user(
        &mut self,
        symbols: &mut Symbols,
        stacks: &Stacks,
        tgid: u32,
        hashes: HashSet<u64>,
        early: &mut Early,
    ) {
        let known: Vec<u64> = hashes.iter().copied().filter(|hash| stacks.get(*hash).is_some()).collect();
        let found: Vec<_> = known.iter().filter_map(|hash| stacks.get(*hash)).collect();
        let ips = with_callers(symbols, stacks, tgid, &known);
        let ips: Vec<&[u64]> = ips.iter().map(Vec::as_slice).collect();
        let named = if ips.is_empty() { Vec::new() } else { symbols.user(tgid, &ips) };
        for ((hash, stack), mut frames) in known.iter().zip(found).zip(named) {
            if stack.cut {
                frames.push(marker("[truncated]"));
            } else {
                early.add(&frames);
                cut_off(&mut frames);
            }
            self.user.insert((tgid, *hash), frames.into());
        }
        for hash in hashes {
            let text = match hash {
                NONE => continue,
                UNSEEN => "[user stack not seen]",
                hash if stacks.is_unread(hash) => "[user stack not seen]",
                _ => "[stack not kept]",
            };
            self.user.entry((tgid, hash)).or_insert_with(|| [marker(text)].into());
        }
    }

    fn find_kernel(&mut self, symbols: &mut Symbols, stacks: &Stacks, hashes: HashSet<u64>) {
        let known: Vec<u64> = hashes.iter().copied().filter(|hash| stacks.get(*hash).is_some()).collect();
        let ips: Vec<&[u64]> = known.iter().filter_map(|hash| stacks.get(*hash)).map(|s| &*s.ips).collect();
        let functions = functions(symbols, stacks, &known);
        let function = |address: u64| functions.get(&address).map(|(function, _)| function.clone());
        let named = symbols.kernel(&ips);
        for ((hash, ips), frames) in known.iter().zip(&ips).zip(named) {
            let outer = ips.first().copied().unwrap_or_default();
            let inner = calls::chain(stacks.calls(*hash), outer, function);
            let inner = inner.iter().filter_map(|address| functions.get(address)).map(|(_, frame)| frame);
            let mut all: Vec<Named> = inner.cloned().collect();
            all.extend_from_slice(trim(&frames));
            if stacks.get(*hash).is_some_and(|stack| stack.cut) {
                all.push(marker("[truncated]"));
            }
            self.kernel.insert(*hash, all.into());
        }
        for hash in hashes {
            if let Some(named) = stacks.named(hash) {
                let cut = named.cut.then(|| marker("[truncated]"));
                let frames = named.places.iter().map(|(name, offset)| {
                    let name = Some(name.clone());
                    Rc::new(Frame { name, offset: *offset, ..Frame::unknown(Space::Kernel) })
                });
                self.kernel.insert(hash, frames.chain(cut).collect());
            }
            let text = match hash {
                NONE => continue,
                UNSEEN => "[kernel stack not seen]",
                _ => "[stack not kept]",
            };
            self.kernel.entry(hash).or_insert_with(|| [marker(text)].into());
        }
    }

    pub fn user(&self, tgid: u32, hash: u64) -> Frames {
        self.user.get(&(tgid, hash)).cloned().unwrap_or_default()
    }

    pub fn kernel(&self, hash: u64) -> Frames {
        self.kernel.get(&hash).cloned().unwrap_or_default()
    }
}

/// User stacks with the functions that frame pointers skip: between the innermost one and the first that keeps
/// a frame pointer. Where none does, the stacks of several callers would be one beyond the first that is not
/// in the same library (`hash_top()` of `bpf/lib/unwind.bpf.h`): so none beyond it is believed.
fn with_callers(symbols: &mut Symbols, stacks: &Stacks, tgid: u32, hashes: &[u64]) -> Vec<Vec<u64>> {
    let found = |hash: &u64| Some((stacks.get(*hash)?, stacks.top(*hash)));
    let stacks: Vec<_> = hashes.iter().filter_map(found).collect();
    let tops: Vec<Top<'_>> = stacks.iter().map(|(stack, top)| top_of(&stack.ips, *top)).collect();
    let callers = symbols.callers(tgid, &tops);
    let join = |((stack, _), (mut callers, whole)): (&(&Stack, _), (Vec<u64>, bool))| {
        let ip = stack.ips.first().copied().unwrap_or_default();
        if !whole && let Some(far) = callers.iter().position(|caller| caller.abs_diff(ip) >= NEAR) {
            callers.truncate(far + 1);
        }
        let outer = stack.ips.get(1..).unwrap_or_default();
        [&[ip], callers.as_slice(), outer].concat()
    };
    stacks.iter().zip(callers).map(join).collect()
}

/// `NEAR` of `bpf/lib/unwind.bpf.h`.
const NEAR: u64 = 2 << 20;

fn top_of<'s>(ips: &[u64], top: Option<&'s stacks::Top>) -> Top<'s> {
    let ip = ips.first().copied().unwrap_or_default();
    match top {
        Some(stacks::Top { sp, fp, words }) => Top { ip, sp: *sp, fp: *fp, words },
        None => Top { ip, sp: 0, fp: 0, words: &[] },
    }
}

/// The functions at all addresses that the calls on top of these stacks name.
fn functions(symbols: &mut Symbols, stacks: &Stacks, hashes: &[u64]) -> HashMap<u64, (Function, Named)> {
    let pairs = hashes.iter().flat_map(|hash| stacks.calls(*hash));
    let unique: HashSet<u64> = pairs.flat_map(|(ret, called)| [*ret, *called]).collect();
    let unique: Vec<[u64; 1]> = unique.into_iter().map(|address| [address]).collect();
    let slices: Vec<&[u64]> = unique.iter().map(<[u64; 1]>::as_slice).collect();
    let named = symbols.kernel(&slices);
    let found = unique.iter().zip(named).filter_map(|([address], frames)| {
        let frame = frames.into_iter().next()?;
        let function = Function { start: address - frame.offset, name: frame.name.clone()? };
        Some((*address, (function, frame)))
    });
    found.collect()
}

/// Behind the last frame that is code there is only what a register held that was no frame pointer.
fn cut_off(frames: &mut Vec<Named>) {
    let code = |frame: &Named| match &frame.module {
        _ if frame.name.is_some() || frame.space == Space::Jit => true,
        Some(module) => !module.starts_with('[') || module.starts_with("[vdso"),
        None => false,
    };
    let end = frames.iter().skip(1).position(|frame| !code(frame));
    frames.truncate(end.map_or(frames.len(), |end| end + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_ends_where_there_is_no_code() {
        let frame = |name: Option<&str>, module: Option<&str>| {
            let name = name.map(str::to_owned);
            Rc::new(Frame { name, module: module.map(Into::into), ..Frame::unknown(Space::User) })
        };
        let mut frames = vec![
            frame(Some("read"), Some("/lib/libc.so.6")),
            frame(None, Some("/opt/app")),
            frame(None, Some("[heap]")),
            frame(Some("main"), Some("/opt/app")),
        ];
        cut_off(&mut frames);
        assert_eq!(frames.len(), 2);
        let mut unknown = vec![frame(None, None), frame(None, None)];
        cut_off(&mut unknown);
        assert_eq!(unknown.len(), 1, "of a process that was never looked at one is left");
    }
}
