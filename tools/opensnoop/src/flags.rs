//! The flags of open(2): names for the filter and for JSON.

use std::fmt::Write as _;

/// `libc::O_LARGEFILE` is 0 where every program is 64-bit; calls of 32-bit ones carry the kernel's.
#[cfg(target_arch = "aarch64")]
const O_LARGEFILE: i32 = 0o400_000;
#[cfg(not(target_arch = "aarch64"))]
const O_LARGEFILE: i32 = 0o100_000;

/// What holds another one's bits comes first.
const NAMES: &[(&str, i32)] = &[
    ("O_CREAT", libc::O_CREAT),
    ("O_EXCL", libc::O_EXCL),
    ("O_NOCTTY", libc::O_NOCTTY),
    ("O_TRUNC", libc::O_TRUNC),
    ("O_APPEND", libc::O_APPEND),
    ("O_NONBLOCK", libc::O_NONBLOCK),
    ("O_SYNC", libc::O_SYNC),
    ("O_DSYNC", libc::O_DSYNC),
    ("O_ASYNC", libc::O_ASYNC),
    ("O_DIRECT", libc::O_DIRECT),
    ("O_LARGEFILE", O_LARGEFILE),
    ("O_TMPFILE", libc::O_TMPFILE),
    ("O_DIRECTORY", libc::O_DIRECTORY),
    ("O_NOFOLLOW", libc::O_NOFOLLOW),
    ("O_NOATIME", libc::O_NOATIME),
    ("O_CLOEXEC", libc::O_CLOEXEC),
    ("O_PATH", libc::O_PATH),
];

const ACCESS: [&str; 3] = ["O_RDONLY", "O_WRONLY", "O_RDWR"];

/// What `-f` asks for: any of these bits, or one of these access modes (bit 1 << O_RDONLY, ...).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub bits: u64,
    pub access: u32,
}

impl Flags {
    /// Any of them.
    pub fn any(all: &[Flags]) -> Flags {
        all.iter().fold(Flags::default(), |sum, one| Flags {
            bits: sum.bits | one.bits,
            access: sum.access | one.access,
        })
    }
}

/// A name, in capitals or not, with or without `O_`. For clap's `value_parser`.
pub fn parse(text: &str) -> Result<Flags, String> {
    let upper = text.to_ascii_uppercase();
    let name = match upper.strip_prefix("O_").unwrap_or(&upper) {
        "NDELAY" => "NONBLOCK",
        "FASYNC" => "ASYNC",
        name => name,
    };
    let is = |full: &str| full.strip_prefix("O_") == Some(name);
    if let Some(mode) = ACCESS.iter().position(|full| is(full)) {
        return Ok(Flags { bits: 0, access: 1 << mode });
    }
    match NAMES.iter().find(|(full, _)| is(full)) {
        Some((_, bits)) => Ok(Flags { bits: u64::from(own(*bits).cast_unsigned()), access: 0 }),
        None => {
            let known = ACCESS.iter().chain(NAMES.iter().map(|(name, _)| name));
            Err(format!("no such flag; there are {}", known.copied().collect::<Vec<_>>().join(" ")))
        }
    }
}

/// O_SYNC holds O_DSYNC and O_TMPFILE holds O_DIRECTORY: the bit that tells them apart.
fn own(bits: i32) -> i32 {
    match bits {
        libc::O_SYNC => libc::O_SYNC & !libc::O_DSYNC,
        libc::O_TMPFILE => libc::O_TMPFILE & !libc::O_DIRECTORY,
        bits => bits,
    }
}

/// Does the call take a mode?
pub fn creates(flags: u64) -> bool {
    let bits = (libc::O_CREAT | own(libc::O_TMPFILE)).cast_unsigned();
    flags & u64::from(bits) != 0
}

/// `O_WRONLY|O_CREAT|O_TRUNC`; bits without a name in hexadecimal.
pub fn names(flags: u64) -> String {
    let access = flags & libc::O_ACCMODE as u64;
    let mut text = ACCESS.get(access as usize).copied().unwrap_or("3").to_owned();
    let mut left = flags & !(libc::O_ACCMODE as u64);
    for (name, bits) in NAMES {
        let bits = u64::from(bits.cast_unsigned());
        if left & bits == bits {
            left &= !bits;
            text.push('|');
            text.push_str(name);
        }
    }
    if left != 0 {
        let _ = write!(text, "|{left:#x}"); // a String takes any write
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_modes_are_no_bits() {
        assert_eq!(parse("O_RDONLY"), Ok(Flags { bits: 0, access: 1 }));
        assert_eq!(parse("rdwr"), Ok(Flags { bits: 0, access: 4 }));
        let both = Flags::any(&[parse("O_WRONLY").unwrap(), parse("O_RDWR").unwrap()]);
        assert_eq!(both, Flags { bits: 0, access: 6 });
    }

    #[test]
    fn a_flag_that_holds_another_is_known_by_its_own_bit() {
        let bits = |text| parse(text).unwrap().bits;
        assert_eq!(bits("O_TMPFILE") & bits("O_DIRECTORY"), 0);
        assert_eq!(bits("O_SYNC") & bits("O_DSYNC"), 0);
        assert_eq!(bits("O_NDELAY"), bits("O_NONBLOCK"));
        assert_ne!(bits("O_LARGEFILE"), 0);
        for text in ["", "O_", "O_FOO", "64", "O_ACCMODE"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_have_names() {
        assert_eq!(names(0), "O_RDONLY");
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        assert_eq!(names(flags as u64), "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC");
        assert_eq!(names((libc::O_RDWR | libc::O_TMPFILE) as u64), "O_RDWR|O_TMPFILE");
        assert_eq!(names((libc::O_SYNC | libc::O_DIRECTORY) as u64), "O_RDONLY|O_SYNC|O_DIRECTORY");
        assert_eq!(names(3 | 1 << 40), "3|0x10000000000");
        assert!(creates(libc::O_TMPFILE as u64) && !creates(libc::O_DIRECTORY as u64));
    }
}
