//! Scheduler functions that the kernel leaves out of the stack of a sleeping thread: `schedule`,
//! `io_schedule`, `mutex_lock`, `schedule_timeout`. To a user they say what a thread waits for.
//!
//! The programs send what may be return addresses on top of the stack, innermost first, each with the
//! function that the call before it goes to. An address belongs to the chain if that function is the one
//! that the address inside of it lies in: what other calls have left on the stack does not fit.

/// What is known of an address: the function's start and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub start: u64,
    pub name: String,
}

/// The chain's addresses, innermost first, to be put before `outer`, the first address that the kernel gave.
/// The last may be a function's start instead: of one that `outer` called and that has gone on by a jump.
pub fn chain(pairs: &[(u64, u64)], outer: u64, function: impl Fn(u64) -> Option<Function>) -> Vec<u64> {
    let end = pairs.iter().position(|(ret, _)| *ret == outer);
    let inner = &pairs[..end.unwrap_or(pairs.len())];
    let mut chain = Vec::new();
    let mut inside = None;
    for &(ret, called) in inner {
        let Some(found) = function(ret) else { continue };
        let fits = match inside {
            None => found.name == INNERMOST,
            Some(start) => start == called,
        };
        if fits {
            chain.push(ret);
            inside = Some(found.start);
        }
    }
    // What the outer function called: it is there, whether or not a word on the stack is inside of it.
    let called = end.and_then(|index| pairs.get(index)).map(|(_, called)| *called);
    if let Some(called) = called
        && inside != Some(called)
        && function(called).is_some_and(|found| !found.name.starts_with("__x86_indirect"))
    {
        chain.push(called);
    }
    chain
}

/// Where every thread that does not run has stopped.
const INNERMOST: &str = "__schedule";

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions of 0x100 bytes each, from 0x1000 on.
    const NAMES: [&str; 7] = [
        "__switch_to_asm",
        "__schedule",
        "schedule",
        "do_nanosleep",
        "mutex_lock",
        "slowpath",
        "__x86_indirect_r",
    ];

    fn function(address: u64) -> Option<Function> {
        let index = (address.checked_sub(0x1000)? / 0x100) as usize;
        let name = (*NAMES.get(index)?).to_owned();
        Some(Function { start: 0x1000 + index as u64 * 0x100, name })
    }

    const OUTER: u64 = 0x9000;

    #[test]
    fn each_address_is_inside_of_what_the_next_one_calls() {
        let pairs = [(0x1150, 0x1000), (0x1250, 0x1100), (0x1350, 0x1200), (OUTER, 0x1300)];
        assert_eq!(chain(&pairs, OUTER, function), [0x1150, 0x1250, 0x1350]);
    }

    #[test]
    fn what_other_calls_have_left_does_not_fit() {
        let pairs = [
            (0x1440, 0x1500), // above __schedule: of an earlier call
            (0x1150, 0x1000),
            (0x1360, 0x1400),
            (0x1250, 0x1100),
            (0x1150, 0x1000),
            (0x1350, 0x1200),
            (OUTER, 0x1300),
            (0x1350, 0x1200), // beyond
        ];
        assert_eq!(chain(&pairs, OUTER, function), [0x1150, 0x1250, 0x1350]);
    }

    #[test]
    fn a_function_that_jumped_on_is_there_by_its_start() {
        let pairs = [(0x1150, 0x1000), (0x1250, 0x1100), (0x1550, 0x1200), (OUTER, 0x1400)];
        assert_eq!(chain(&pairs, OUTER, function), [0x1150, 0x1250, 0x1550, 0x1400]);
    }

    #[test]
    fn a_call_by_pointer_says_nothing() {
        let pairs = [(0x1150, 0x1000), (0x1250, 0x1100), (OUTER, 0x1600)];
        assert_eq!(chain(&pairs, OUTER, function), [0x1150, 0x1250]);
        assert_eq!(chain(&pairs[..2], OUTER, function), [0x1150, 0x1250]);
        assert!(chain(&[], OUTER, function).is_empty());
    }
}
