//! What this kernel calls operations and flags, and the words for a failed I/O.

use anyhow::Result;
use common::cli::usage;
use common::kernel::Kernel;
use nix::errno::Errno;

const OP_MASK: u32 = 0xff;

/// From the kernel's own enums: numbers have changed their meaning more than once.
pub struct Flags {
    ops: Vec<(String, u32)>,
    /// The highest bit first, as the peers print them.
    bits: Vec<(String, u32)>,
}

impl Flags {
    pub fn of(kernel: &Kernel) -> Flags {
        // 6.0, ff07a02e9e8e ("treewide: Rename enum req_opf into enum req_op").
        let ops = kernel.enum_values("req_op").into_iter().chain(kernel.enum_values("req_opf"));
        Flags::from(ops, kernel.enum_values("req_flag_bits"))
    }

    fn from(
        ops: impl IntoIterator<Item = (String, i64)>,
        bits: impl IntoIterator<Item = (String, i64)>,
    ) -> Flags {
        let ops = ops.into_iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("REQ_OP_")?.to_owned(), u32::try_from(value).ok()?))
        });
        let bits = bits.into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("__REQ_")?;
            let value = u32::try_from(value).ok().filter(|bit| (8..32).contains(bit))?;
            (name != "NR_BITS").then(|| (name.to_owned(), value))
        });
        let mut bits: Vec<(String, u32)> = bits.collect();
        bits.sort_by_key(|(_, bit)| std::cmp::Reverse(*bit));
        Flags { ops: ops.filter(|(name, _)| name != "LAST").collect(), bits }
    }

    /// "Write", "ZoneAppend"; a number for one that has no name.
    pub fn op(&self, flags: u32) -> String {
        let op = flags & OP_MASK;
        let found = self.ops.iter().find(|(_, value)| *value == op);
        found.map_or_else(|| format!("Op{op}"), |(name, _)| camel(name))
    }

    /// "Sync-Write": flags, the highest first, then the operation. What has no name is a number.
    pub fn all(&self, flags: u32) -> String {
        let mut words = Vec::new();
        let mut unknown = flags & !OP_MASK;
        for (name, bit) in self.bits.iter().filter(|(_, bit)| flags >> bit & 1 == 1) {
            words.push(camel(name));
            unknown &= !(1 << bit);
        }
        if unknown != 0 {
            words.insert(0, format!("{unknown:#x}"));
        }
        words.push(self.op(flags));
        words.join("-")
    }

    /// The kernel's number, if it has such an operation.
    pub fn op_number(&self, wanted: &str) -> Option<u32> {
        let same = |name: &str| name.eq_ignore_ascii_case(&wanted.replace('-', "_"));
        self.ops.iter().find(|(name, _)| same(name)).map(|(_, value)| *value)
    }

    /// Does the kernel count such requests among those in flight? It leaves out flushes, and what is passed through to
    /// the device.
    pub fn is_accounted(&self, flags: u32) -> bool {
        let found = self.ops.iter().find(|(_, value)| *value == flags & OP_MASK);
        found.is_some_and(|(name, _)| {
            name != "FLUSH" && !name.starts_with("DRV_") && !name.starts_with("SCSI_")
        })
    }

    /// The mask of a flag; 0 if this kernel has none of that name.
    pub fn flag(&self, wanted: &str) -> u32 {
        self.bits.iter().find(|(name, _)| name == wanted).map_or(0, |(_, bit)| 1 << bit)
    }

    /// A bit for each of the operations of `--op`.
    ///
    /// # Errors
    /// Usage: one that this kernel does not have.
    pub fn mask(&self, wanted: &[String]) -> Result<u64> {
        wanted.iter().try_fold(0, |mask, name| match self.op_number(name) {
            Some(op) => Ok(mask | 1 << (op & 63)),
            None => {
                let known: Vec<String> =
                    self.ops.iter().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-")).collect();
                Err(usage(format!("--op: no operation '{name}' here, but {}", known.join(", "))))
            }
        })
    }
}

/// Words that the peers write in their own way.
const WORDS: &[(&str, &str)] = &[
    ("RAHEAD", "ReadAhead"),
    ("PREFLUSH", "PreFlush"),
    ("FUA", "FUA"),
    ("NOMERGE", "NoMerge"),
    ("PRIO", "Priority"),
    ("META", "Metadata"),
    ("NOWAIT", "NoWait"),
];

/// `WRITE_ZEROES` is WriteZeroes.
fn camel(name: &str) -> String {
    if let Some((_, word)) = WORDS.iter().find(|(kernels, _)| *kernels == name) {
        return (*word).to_owned();
    }
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_owned() + &rest.to_ascii_lowercase()
    };
    name.split('_').map(word).collect()
}

/// `blk_status_t` 1 to 13 as errno; the numbers beyond have changed (6.11) and stay numbers.
const STATUS: [Errno; 13] = [
    Errno::EOPNOTSUPP,
    Errno::ETIMEDOUT,
    Errno::ENOSPC,
    Errno::ENOLINK,
    Errno::EREMOTEIO,
    Errno::EBADE,
    Errno::ENODATA,
    Errno::EILSEQ,
    Errno::ENOMEM,
    Errno::EIO,
    Errno::EREMCHG,
    Errno::EAGAIN,
    Errno::EBUSY,
];

/// As the tracepoint has it: a negative errno, or since 5.16 a `blk_status_t`.
pub fn error(error: i32) -> String {
    let errno = match error {
        ..0 => Some(Errno::from_raw(-error)),
        _ => usize::try_from(error).ok().and_then(|n| STATUS.get(n.checked_sub(1)?).copied()),
    };
    match errno {
        Some(Errno::UnknownErrno) => format!("errno{}", -error),
        Some(errno) => format!("{errno:?}"),
        None => format!("status{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        let own = |list: &[(&str, i64)]| list.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<Vec<_>>();
        Flags::from(
            own(&[("REQ_OP_READ", 0), ("REQ_OP_WRITE", 1), ("REQ_OP_WRITE_ZEROES", 9), ("REQ_OP_LAST", 36)]),
            own(&[("__REQ_SYNC", 11), ("__REQ_IDLE", 15), ("__REQ_FUA", 17), ("__REQ_NR_BITS", 30)]),
        )
    }

    #[test]
    fn flags_are_named_as_the_peers_do_and_the_rest_is_numbers() {
        assert_eq!(flags().all(1 << 11 | 1), "Sync-Write");
        assert_eq!(flags().all(1 << 11 | 1 << 15 | 1 << 17 | 9), "FUA-Idle-Sync-WriteZeroes");
        assert_eq!(flags().all(1 << 30 | 36), "0x40000000-Op36");
        assert_eq!((flags().flag("FUA"), flags().flag("PREFLUSH")), (1 << 17, 0));
    }

    #[test]
    fn operations_are_found_by_name() {
        assert_eq!(flags().mask(&["read".into(), "write-zeroes".into()]).unwrap(), 1 | 1 << 9);
        assert_eq!(flags().mask(&["WRITE_ZEROES".into()]).unwrap(), 1 << 9);
        let error = flags().mask(&["trim".into()]).unwrap_err().to_string();
        assert!(
            error.contains("'trim'") && error.contains("write-zeroes") && !error.contains("last"),
            "{error}"
        );
    }

    #[test]
    fn what_the_kernel_does_not_account_is_known() {
        let ops = [("REQ_OP_READ", 0), ("REQ_OP_FLUSH", 2), ("REQ_OP_SCSI_IN", 32), ("REQ_OP_DRV_OUT", 35)];
        let flags = Flags::from(ops.map(|(name, value)| (name.to_owned(), value)), []);
        assert_eq!([0, 2, 32, 35, 99].map(|op| flags.is_accounted(op)), [true, false, false, false, false]);
    }

    #[test]
    fn errors_have_one_name_on_every_kernel() {
        assert_eq!((error(-5), error(10), error(2)), ("EIO".into(), "EIO".into(), "ETIMEDOUT".into()));
        assert_eq!((error(17), error(-4095)), ("status17".into(), "errno4095".into()));
    }
}
