//! States of threads: the letters of ps, and the kernel's bits.

/// A set of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u32);

/// In the order of the bits of `state_wanted()` in `bpf/lib/offcpu_task.bpf.h`.
const LETTERS: [char; 8] = ['R', 'S', 'D', 'K', 'I', 'T', 't', 'P'];

/// Which bits of the kernel's task state each letter has (include/linux/sched.h).
const KERNEL: [u32; 8] = [0, 0x1, 0x2, 0x102, 0x402, 0x4, 0x8, 0x40];

impl States {
    /// All but runnable.
    pub const BLOCKED: States = States(0xfe);

    /// For the programs.
    pub fn bits(self) -> u32 {
        self.0
    }

    pub fn has(self, letter: char) -> bool {
        LETTERS.iter().zip(0..).any(|(l, bit)| *l == letter && self.0 >> bit & 1 == 1)
    }
}

/// Letters as `SD` or `S,D`; a number means what it means to the peers: a mask over the kernel's bits, and
/// 0 is runnable.
///
/// # Errors
/// Something else.
pub fn parse(text: &str) -> Result<States, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    if number == Some(0) {
        return Ok(States(1));
    }
    if let Some(mask) = number {
        let bits = KERNEL.iter().zip(0..).filter(|(bits, _)| *bits & mask != 0);
        let states = bits.fold(0, |set, (_, bit)| set | 1 << bit);
        return if states == 0 { Err("no state has these bits".to_owned()) } else { Ok(States(states)) };
    }
    let mut states = 0;
    for letter in text.chars().filter(|c| *c != ',') {
        let bit = LETTERS.iter().position(|l| *l == letter);
        states |= 1
            << bit.ok_or_else(|| format!("'{letter}' is none of {}", LETTERS.map(String::from).join(" ")))?;
    }
    if states == 0 { Err("no state".to_owned()) } else { Ok(States(states)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(text: &str) -> String {
        let states = parse(text).unwrap();
        LETTERS.iter().filter(|l| states.has(**l)).collect()
    }

    #[test]
    fn letters_and_bit_masks_are_read() {
        assert_eq!(letters("SD"), "SD");
        assert_eq!(letters("t,T"), "Tt");
        assert_eq!(letters("1"), "S");
        assert_eq!(letters("2"), "DKI", "the kernel's bit of all three");
        assert_eq!(letters("0x100"), "K");
        assert_eq!(letters("3"), "SDKI");
        assert_eq!(letters("0"), "R");
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for text in ["", ",", "x", "SX", "-1", "0x", "4096"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
