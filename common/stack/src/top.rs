//! The top of a user stack: functions between the innermost address and the first that keeps a frame pointer.
//! The C library's keep none, so a walk by frame pointers leaves out the function that called into it.

use crate::cfi::{Base, Rule};

/// What is known of the top of a stack.
#[derive(Clone, Copy, Debug)]
pub struct Top<'a> {
    /// The innermost address.
    pub ip: u64,
    pub sp: u64,
    /// rbp: the frame of the innermost function that keeps one, if any does.
    pub fp: u64,
    /// Memory from `sp` on.
    pub words: &'a [u64],
}

/// More functions than there are between a system call and a program's own code.
const MOST: usize = 32;

/// The addresses returned to between `ip` and the frame at `fp`, innermost first, and whether they reach it.
pub fn callers(top: Top<'_>, mut rule: impl FnMut(u64) -> Option<Rule>) -> (Vec<u64>, bool) {
    let word = |at: u64| {
        let index = at.checked_sub(top.sp).filter(|distance| distance % 8 == 0)? / 8;
        top.words.get(usize::try_from(index).ok()?).copied()
    };
    let (mut at, mut sp, mut bp) = (top.ip, top.sp, top.fp);
    let mut found = Vec::new();
    while found.len() < MOST {
        let Some(rule) = rule(at) else { break };
        let base = match rule.base {
            Base::Sp => sp,
            Base::Bp => bp,
        };
        let frame = base.wrapping_add_signed(rule.offset);
        let slot = frame.wrapping_sub(8);
        if slot == top.fp.wrapping_add(8) {
            return (found, true);
        }
        // Outwards only: whatever else the rules say is not so.
        let Some(ret) = word(slot).filter(|_| slot >= sp) else { break };
        if let Some(saved) = rule.bp {
            let Some(saved) = word(frame.wrapping_add_signed(saved)) else { break };
            bp = saved;
        }
        found.push(ret);
        (at, sp) = (ret - 1, frame); // inside of the call
    }
    (found, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SP: u64 = 0x7000;

    fn by_sp(offset: i64) -> Option<Rule> {
        Some(Rule { base: Base::Sp, offset, bp: None, into: 0 })
    }

    #[test]
    fn the_caller_of_a_library_is_found() {
        // wrapper: nothing on the stack; library: 16 bytes; then the frame of the caller, at 0x7030.
        let words = [0x1000, 1, 2, 0x2000, 3, 4, 0x7050, 0x3000];
        let top = Top { ip: 0x500, sp: SP, fp: SP + 0x30, words: &words };
        let rule = |at: u64| match at {
            0x500 => by_sp(8),
            0xfff => by_sp(24),
            0x1fff => Some(Rule { base: Base::Bp, offset: 16, bp: Some(-16), into: 0 }),
            _ => None,
        };
        assert_eq!(callers(top, rule), (vec![0x1000, 0x2000], true));
    }

    #[test]
    fn a_function_whose_own_frame_it_is_has_nobody_before_it() {
        let top = Top { ip: 0x500, sp: SP, fp: SP + 8, words: &[0, 0x7050, 0x3000] };
        let rule = |_| Some(Rule { base: Base::Bp, offset: 16, bp: Some(-16), into: 0 });
        assert_eq!(callers(top, rule), (vec![], true));
    }

    #[test]
    fn without_frame_pointers_it_goes_as_far_as_the_words_do() {
        let words = [0x1000, 0x2000, 9];
        let top = Top { ip: 0x500, sp: SP, fp: 77, words: &words };
        assert_eq!(callers(top, |_| by_sp(8)), (vec![0x1000, 0x2000, 9], false));
        assert_eq!(callers(top, |at| if at == 0x500 { by_sp(8) } else { None }), (vec![0x1000], false));
        assert_eq!(callers(top, |_| by_sp(-64)), (vec![], false));
    }
}
