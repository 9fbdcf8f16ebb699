//! A user stack of which only two registers are known, as /proc tells them: by unwind tables alone.
//!
//! They do where code keeps no frame pointer. The innermost function that does keep one finds its frame by rbp, which
//! nobody tells: its return address is then looked for on the stack, and is one only if the call before it is to the
//! very start of that function. From there on rbp is known.

use crate::cfi::{Base, Rule};

/// Reads memory of the process; false: it cannot be read.
pub type Read<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

/// Words searched for a return address: no more than a large function's own variables.
const SEARCHED: u64 = 512;
/// Below the first page nothing can be mapped.
const LOWEST: u64 = 4096;

/// `ip` and the addresses returned to, innermost first, `most` in all. `is_code`: may this be an address in code?
pub fn unwind(
    (ip, sp): (u64, u64),
    most: usize,
    read: Read<'_>,
    mut rule: impl FnMut(u64) -> Option<Rule>,
    is_code: impl Fn(u64) -> bool,
) -> Vec<u64> {
    let word = |at: u64| word(read, at);
    let (mut at, mut sp, mut bp) = (ip, sp, None);
    let mut found = vec![ip];
    while found.len() < most {
        let Some(rule) = rule(at) else { break };
        let frame = match (rule.base, bp) {
            (Base::Sp, _) => Some(sp.wrapping_add_signed(rule.offset)),
            (Base::Bp, Some(bp)) => Some(u64::wrapping_add_signed(bp, rule.offset)),
            (Base::Bp, None) => {
                let start = at.wrapping_sub(rule.into); // whatever the tables say
                let called =
                    |slot: &u64| word(*slot).is_some_and(|ret| is_code(ret) && calls(read, ret, start));
                (0..SEARCHED).map(|i| sp.wrapping_add(8 * i)).find(called).map(|slot| slot.wrapping_add(8))
            }
        };
        // Outwards only: whatever else the rules say is not so.
        let Some(frame) = frame.filter(|frame| *frame > sp && frame.is_multiple_of(8)) else { break };
        let Some(ret) = word(frame - 8).filter(|ret| *ret >= LOWEST) else { break };
        if let Some(saved) = rule.bp {
            let Some(saved) = word(frame.wrapping_add_signed(saved)) else { break };
            bp = Some(saved);
        }
        found.push(ret);
        (at, sp) = (ret - 1, frame); // inside of the call
    }
    found
}

fn word(read: Read<'_>, at: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    read(at, &mut bytes).then(|| u64::from_ne_bytes(bytes))
}

/// Does a call of the function at `start` stand before this address: a direct one, or one by way of the table that
/// the dynamic linker fills in?
fn calls(read: Read<'_>, ret: u64, start: u64) -> bool {
    let mut code = [0; 6];
    if !read(ret.wrapping_sub(6), &mut code) {
        return false;
    }
    let [_, 0xe8, offset @ ..] = code else {
        let [0xff, 0x15, offset @ ..] = code else { return false };
        return word(read, relative(ret, offset)) == Some(start);
    };
    let target = relative(ret, offset);
    target == start || stub(read, target) == Some(start)
}

/// Where an entry of the procedure linkage table jumps to: `[endbr64] [bnd] jmp *offset(%rip)`.
fn stub(read: Read<'_>, at: u64) -> Option<u64> {
    let mut code = [0; 11];
    if !read(at, &mut code) {
        return None;
    }
    let mut rest = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(&code);
    rest = rest.strip_prefix(&[0xf2]).unwrap_or(rest);
    let offset = *rest.strip_prefix(&[0xff, 0x25])?.first_chunk()?;
    let jump = (code.len() - rest.len()) as u64 + 6;
    word(read, relative(at + jump, offset))
}

fn relative(next: u64, offset: [u8; 4]) -> u64 {
    next.wrapping_add_signed(i32::from_le_bytes(offset).into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const SP: u64 = 0x7000;

    fn memory(words: &[(u64, u64)], code: &[(u64, &[u8])]) -> HashMap<u64, u8> {
        let words = words.iter().flat_map(|(at, word)| (*at..).zip(word.to_le_bytes()));
        let code = code.iter().flat_map(|(at, bytes)| (*at..).zip(bytes.iter().copied()));
        words.chain(code).collect()
    }

    fn walk(memory: &HashMap<u64, u8>, rule: impl FnMut(u64) -> Option<Rule>) -> Vec<u64> {
        let read = |at: u64, to: &mut [u8]| {
            to.iter_mut().zip(at..).all(|(to, at)| memory.get(&at).map(|byte| *to = *byte).is_some())
        };
        unwind((0x500, SP), 127, &read, rule, |word| word < 0x3000)
    }

    /// A library's wrapper without a frame pointer at 0x500; functions with one at 0x1000 and 0x2000.
    fn rules(at: u64) -> Option<Rule> {
        let framed = |start: u64| Some(Rule { base: Base::Bp, offset: 16, bp: Some(-16), into: at - start });
        match at {
            0x500 => Some(Rule { base: Base::Sp, offset: 16, bp: None, into: 0 }),
            0x1000..0x1100 => framed(0x1000),
            0x2000..0x2100 => framed(0x2000),
            _ => None,
        }
    }

    const STACK: [(u64, u64); 9] = [
        (SP, 1),
        (SP + 0x08, 0x1050), // into the first function; its own frame is not known
        (SP + 0x10, 0x2011), // left over: no call of it stands before that
        (SP + 0x18, 0x9999),
        (SP + 0x20, SP + 0x40), // here it is
        (SP + 0x28, 0x2050),
        (SP + 0x30, 7),
        (SP + 0x40, 0),
        (SP + 0x48, 0x9000), // to where nothing is known of
    ];

    #[test]
    fn the_frame_is_found_by_the_call_of_the_function_that_it_belongs_to() {
        // 0x2050 - 0x1050: back to 0x1000.
        let direct: &[u8] = &[0x90, 0xe8, 0xb0, 0xef, 0xff, 0xff];
        let all = memory(&STACK, &[(0x204a, direct), (0x200b, &[0x90; 6])]);
        assert_eq!(walk(&all, rules), [0x500, 0x1050, 0x2050, 0x9000]);
        let elsewhere = memory(&STACK, &[(0x204a, &[0x90, 0xe8, 0xb1, 0xef, 0xff, 0xff])]);
        assert_eq!(walk(&elsewhere, rules), [0x500, 0x1050], "a call of another one");
    }

    #[test]
    fn calls_by_way_of_the_linkage_table_count() {
        let slot = (0x4000, 0x1000);
        let words: Vec<(u64, u64)> = STACK.into_iter().chain([slot]).collect();
        // call *0x1fb0(%rip); call 0x2800, where endbr64; jmp *0x17f6(%rip).
        let by_slot: &[u8] = &[0xff, 0x15, 0xb0, 0x1f, 0, 0];
        let by_stub: &[u8] = &[0x90, 0xe8, 0xb0, 0x07, 0, 0];
        let stub: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0xf6, 0x17, 0, 0, 0x90];
        for code in [vec![(0x204a, by_slot)], vec![(0x204a, by_stub), (0x2800, stub)]] {
            assert_eq!(walk(&memory(&words, &code), rules), [0x500, 0x1050, 0x2050, 0x9000]);
        }
    }

    #[test]
    fn without_frame_pointers_it_goes_on_to_the_limit_or_the_end() {
        let stack: Vec<(u64, u64)> = (0..200).map(|i| (SP + 8 * i, 0x2000 + i)).collect();
        let by_sp = |_| Some(Rule { base: Base::Sp, offset: 8, bp: None, into: 0 });
        assert_eq!(walk(&memory(&stack, &[]), by_sp).len(), 127);
        assert_eq!(walk(&memory(&stack[..3], &[]), by_sp), [0x500, 0x2000, 0x2001, 0x2002]);
        assert_eq!(walk(&memory(&[(SP, 0)], &[]), by_sp), [0x500], "zero ends a stack");
        let inwards = |_| Some(Rule { base: Base::Sp, offset: -64, bp: None, into: 0 });
        assert_eq!(walk(&memory(&stack, &[]), inwards), [0x500]);
    }
}
