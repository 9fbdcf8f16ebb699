//! From the bytes of an event to an open.

use anyhow::{Context as _, Result};

use crate::bpf::types::{open_bits, open_head, route};
use crate::path::{self, Marks};

// SAFETY: integers and bytes; its padding is a field of the generated struct, and every bit pattern is valid.
unsafe impl plain::Plain for open_head {}

/// One open, made anew from event to event so that its buffers are kept.
#[derive(Default)]
pub struct Open {
    head: open_head,
    /// For `-T`.
    pub time: String,
    pub comm: Vec<u8>,
    /// As the program gave it.
    pub name: Vec<u8>,
    /// From the root on; as given if the kernel sent no walk.
    pub full: Vec<u8>,
    /// Show `full`.
    pub absolute: bool,
}

impl Open {
    /// # Errors
    /// The bytes are no event.
    pub fn fill(&mut self, bytes: &[u8]) -> Result<()> {
        let other = "an event of another shape";
        plain::copy_from_bytes(&mut self.head, bytes).ok().context(other)?;
        let text = bytes.get(size_of::<open_head>()..).context(other)?;
        let (name, rest) = text.split_at_checked(self.head.name_size.into()).context(other)?;
        let walk = rest.get(..self.head.walk_size.into()).context(other)?;

        let name = name.strip_suffix(b"\0");
        let marks = self.marks();
        self.comm.clear();
        self.comm.extend(self.head.comm.iter().map(|c| *c as u8).take_while(|c| *c != 0));
        path::given(name, marks, &mut self.name);
        if marks.file || self.has(open_bits::OPEN_BASE) {
            path::full(name, walk, self.head.ino, marks, &mut self.full);
        } else {
            self.full.clone_from(&self.name);
        }
        Ok(())
    }

    fn marks(&self) -> Marks {
        Marks {
            name_cut: self.has(open_bits::OPEN_NAME_CUT),
            file: self.has(open_bits::OPEN_FILE),
            walk_cut: self.has(open_bits::OPEN_CUT),
            pseudo: self.has(open_bits::OPEN_PSEUDO),
            unlinked: self.has(open_bits::OPEN_UNLINKED),
        }
    }

    fn has(&self, bit: open_bits) -> bool {
        u32::from(self.head.bits) & bit.0 != 0
    }

    pub fn at(&self) -> u64 {
        self.head.at
    }

    pub fn pid(&self) -> u32 {
        self.head.tgid
    }

    pub fn tid(&self) -> u32 {
        self.head.tid
    }

    pub fn ppid(&self) -> u32 {
        self.head.ppid
    }

    pub fn uid(&self) -> u32 {
        self.head.uid
    }

    /// -1 if it failed; none if io_uring put the file into a table of its own.
    pub fn fd(&self) -> Option<i32> {
        let opened = self.head.ret >= 0;
        (!opened || !self.has(open_bits::OPEN_DIRECT)).then_some(if opened { self.head.ret } else { -1 })
    }

    /// 0: it went well.
    pub fn errno(&self) -> i32 {
        self.head.ret.min(0).saturating_neg()
    }

    pub fn flags(&self) -> u64 {
        self.head.flags
    }

    pub fn mode(&self) -> u32 {
        self.head.mode
    }

    /// None: it began before the run.
    pub fn micros(&self) -> Option<f64> {
        (!self.has(open_bits::OPEN_NO_START)).then_some(self.head.latency_ns as f64 / 1000.0)
    }

    /// The way that it took.
    pub fn call(&self) -> &'static str {
        let wide = !self.has(open_bits::OPEN_COMPAT);
        match route(self.head.route.into()) {
            route::ROUTE_OPEN if wide => "open",
            route::ROUTE_OPEN => "open (32-bit)",
            route::ROUTE_CREAT if wide => "creat",
            route::ROUTE_CREAT => "creat (32-bit)",
            route::ROUTE_OPENAT if wide => "openat",
            route::ROUTE_OPENAT => "openat (32-bit)",
            route::ROUTE_OPENAT2 if wide => "openat2",
            route::ROUTE_OPENAT2 => "openat2 (32-bit)",
            // Its program asked for no name: the path is known if it went well.
            route::ROUTE_HANDLE if wide => "open_by_handle_at",
            route::ROUTE_HANDLE => "open_by_handle_at (32-bit)",
            route::ROUTE_URING => "io_uring",
            _ => "?",
        }
    }

    pub fn path(&self) -> &[u8] {
        // A file handle has no name of its own.
        if self.absolute || self.has(open_bits::OPEN_NAMELESS) { &self.full } else { &self.name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(head: open_head, text: &[u8]) -> Vec<u8> {
        // SAFETY: the padding is a field, see above.
        let bytes = unsafe { plain::as_bytes(&head) };
        [bytes, text].concat()
    }

    fn open(head: open_head, text: &[u8]) -> Open {
        let mut open = Open::default();
        open.fill(&event(head, text)).unwrap();
        open
    }

    #[test]
    fn a_name_and_a_walk_are_told_apart() {
        let bits = open_bits::OPEN_FILE.0 as u16;
        let head = open_head { ret: 3, bits, name_size: 2, walk_size: 6, ..open_head::default() };
        let mut open = open(head, b"x\0y\0etc\0");
        assert_eq!((open.path(), open.fd(), open.errno()), (b"x".as_slice(), Some(3), 0));
        open.absolute = true;
        assert_eq!(open.path(), b"/etc/y");
    }

    #[test]
    fn a_failure_has_no_descriptor_and_a_table_of_its_own_neither() {
        let failed = open(open_head { ret: -2, name_size: 1, ..open_head::default() }, b"\0");
        assert_eq!((failed.fd(), failed.errno(), failed.path()), (Some(-1), 2, b"".as_slice()));
        let bits = open_bits::OPEN_DIRECT.0 as u16;
        let direct = open(open_head { bits, name_size: 2, ..open_head::default() }, b"x\0");
        assert_eq!((direct.fd(), direct.errno()), (None, 0));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let mut open = Open::default();
        assert!(open.fill(b"short").is_err());
        assert!(open.fill(&event(open_head { name_size: 9, ..open_head::default() }, b"x\0")).is_err());
    }

    #[test]
    fn an_unreadable_name_is_a_question_mark_never_nothing() {
        let bits = open_bits::OPEN_UNREADABLE.0 as u16;
        assert_eq!(open(open_head { ret: -14, bits, ..open_head::default() }, b"").path(), b"?");
    }
}
