//! Call frame information (`.eh_frame`): where a function that keeps no frame pointer has its return address.
//! x86-64 only: elsewhere the C library has frame pointers.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Pointer, Register, RegisterRule,
    UnwindContext, UnwindSection as _,
};

/// How to get from a function's frame to its caller's: the canonical frame address, which is the caller's
/// stack pointer, and where the caller's rbp is. The return address lies right below that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub base: Base,
    pub offset: i64,
    /// From the canonical frame address; none: the function has not touched it.
    pub bp: Option<i64>,
    /// How far it is from the function's first instruction to here.
    pub into: u64,
}

/// What the canonical frame address is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Sp,
    Bp,
}

/// A part of a file that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

/// The call frame information of one file.
pub struct Cfi {
    header: Vec<u8>,
    header_at: u64,
    frames: Vec<u8>,
    frames_at: u64,
    segments: Vec<Segment>,
}

/// More than that is no table of frames: that of Chromium has 20 MiB.
const LARGEST: u64 = 64 << 20;

const RBP: Register = Register(6);
const RSP: Register = Register(7);
const RETURN: Register = Register(16);

impl Cfi {
    /// None: the file has none, or is no 64-bit ELF file.
    pub fn open(path: &Path) -> Option<Cfi> {
        let file = File::open(path).ok()?;
        let read = |offset, size: u64| {
            let mut bytes = vec![0; usize::try_from(size).ok().filter(|_| size <= LARGEST)?];
            file.read_exact_at(&mut bytes, offset).ok()?;
            Some(bytes)
        };
        let (segments, header) = program_headers(&read(0, 64)?, read)?;
        let bytes = read(header.offset, header.size)?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(header.address);
        let parsed = EhFrameHdr::new(&bytes, LittleEndian).parse(&bases, 8).ok()?;
        let Pointer::Direct(frames_at) = parsed.eh_frame_ptr() else { return None };
        let within = segments.iter().find(|s| frames_at.wrapping_sub(s.address) < s.size)?;
        let skipped = frames_at - within.address;
        // It may be cut: what is not there is not found then.
        let frames = read(within.offset + skipped, (within.size - skipped).min(LARGEST))?;
        Some(Cfi { header: bytes, header_at: header.address, frames, frames_at, segments })
    }

    /// The rule at an offset into the file; none: there is none, or it is none of the simple ones.
    pub fn rule(&self, offset: u64) -> Option<Rule> {
        let within = self.segments.iter().find(|s| offset.wrapping_sub(s.offset) < s.size)?;
        let address = offset - within.offset + within.address;
        let bases = BaseAddresses::default().set_eh_frame_hdr(self.header_at).set_eh_frame(self.frames_at);
        let header = EhFrameHdr::new(&self.header, LittleEndian).parse(&bases, 8).ok()?;
        let frames = EhFrame::new(&self.frames, LittleEndian);
        let mut context = UnwindContext::new();
        let cie = EhFrame::<EndianSlice<'_, LittleEndian>>::cie_from_offset;
        let function = header.table()?.fde_for_address(&frames, &bases, address, cie).ok()?;
        let row = function.unwind_info_for_address(&frames, &bases, &mut context, address).ok()?;
        let into = address.checked_sub(function.initial_address())?;
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { return None };
        let base = match register {
            RSP => Base::Sp,
            RBP => Base::Bp,
            _ => return None,
        };
        // A register that no rule names was not touched.
        let bp = match row.register(RBP) {
            None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => None,
            Some(RegisterRule::Offset(offset)) => Some(offset),
            _ => return None,
        };
        (row.register(RETURN) == Some(RegisterRule::Offset(-8))).then_some(Rule { base, offset, bp, into })
    }
}

const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

/// What is mapped, and where the table of frames is.
fn program_headers(
    header: &[u8],
    read: impl Fn(u64, u64) -> Option<Vec<u8>>,
) -> Option<(Vec<Segment>, Segment)> {
    const ELF64_LE: &[u8] = b"\x7fELF\x02\x01";
    if !header.starts_with(ELF64_LE) {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(*header.get(at..)?.first_chunk()?));
    let table = u64::from_le_bytes(*header.get(32..)?.first_chunk()?);
    let (size, count) = (u64::from(half(54)?), u64::from(half(56)?));
    let table = read(table, size * count)?;
    let mut segments = Vec::new();
    let mut frames = None;
    for entry in table.chunks_exact(usize::try_from(size).ok().filter(|size| *size >= 56)?) {
        let word = |at: usize| Some(u64::from_le_bytes(*entry.get(at..)?.first_chunk()?));
        let segment = Segment { offset: word(8)?, address: word(16)?, size: word(32)? };
        match u32::from_le_bytes(*entry.first_chunk()?) {
            PT_LOAD => segments.push(segment),
            PT_GNU_EH_FRAME => frames = Some(segment),
            _ => {}
        }
    }
    Some((segments, frames?))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_none_has_no_rules() {
        assert!(Cfi::open(Path::new("/proc/self/maps")).is_none());
        assert!(Cfi::open(Path::new("/no/such/file")).is_none());
        assert!(Cfi::open(Path::new("/")).is_none());
    }

    #[test]
    fn at_the_start_of_a_function_the_return_address_is_on_top() {
        let exe = std::env::current_exe().unwrap();
        let cfi = Cfi::open(&exe).unwrap();
        // Where this test itself begins, as an offset into the file.
        let here = at_the_start_of_a_function_the_return_address_is_on_top as *const () as u64;
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let line = crate::maps::parse(&maps).find(|line| line.start <= here && here < line.end).unwrap();
        let rule = cfi.rule(here - line.start + line.offset);
        assert_eq!(rule, Some(Rule { base: Base::Sp, offset: 8, bp: None, into: 0 }));
        assert_eq!(cfi.rule(u64::MAX), None);
    }
}
