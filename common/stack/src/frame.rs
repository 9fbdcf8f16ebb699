//! What is known of one address.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// Where an address lies. Flame graphs colour by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Kernel,
    User,
    /// Code made at run time: named by a perf map, or in executable memory that no file backs.
    Jit,
    /// None of these: a frame of ours, such as `[still blocked]`.
    Marker,
}

/// A line of source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub file: String,
    /// 0: the debug information does not say.
    pub line: u32,
}

/// A function that was inlined at the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inlined {
    pub name: String,
    pub place: Option<Place>,
}

/// What is known of one address. Many stacks share one, hence [`Named`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    pub space: Space,
    /// The function's name, demangled. None: see [`Frame::label`].
    pub name: Option<String>,
    /// The file that the address was mapped from, as the process names it: `/usr/lib/libc.so.6`, `[vdso]`,
    /// `[anon]` for executable memory without a file. None for the kernel, and where nothing is mapped.
    pub module: Option<Arc<str>>,
    /// From the start of the function, or of the file if the function is not known.
    pub offset: u64,
    /// With lines on, and debug information at hand.
    pub place: Option<Place>,
    /// With lines on: what was inlined at the address, innermost first, all inside of `name`.
    pub inlined: Vec<Inlined>,
}

/// A frame that stacks share: a copy costs a counter.
pub type Named = Rc<Frame>;

impl Frame {
    /// Nothing is known but the side.
    #[must_use]
    pub fn unknown(space: Space) -> Frame {
        Frame { space, name: None, module: None, offset: 0, place: None, inlined: Vec::new() }
    }

    /// A frame of ours among those of a stack.
    #[must_use]
    pub fn marker(text: &str) -> Frame {
        Frame { name: Some(text.to_owned()), ..Frame::unknown(Space::Marker) }
    }

    /// What to show: the function, else `[libc.so.6+0x2724a]`, else `[unknown]`. Never a bare address:
    /// those differ from run to run and from process to process.
    #[must_use]
    pub fn label(&self) -> Cow<'_, str> {
        match (&self.name, &self.module) {
            (Some(name), _) => Cow::Borrowed(name),
            (None, Some(module)) => Cow::Owned(within(module, self.offset)),
            (None, None) => Cow::Borrowed("[unknown]"),
        }
    }

    /// The module without its directories.
    #[must_use]
    pub fn binary(&self) -> Option<&str> {
        self.module.as_deref().map(short)
    }
}

/// `[name+0x12]`. Memory without a file has no offset that would mean the same in another run.
fn within(module: &str, offset: u64) -> String {
    let name = short(module);
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some("vdso") => format!("[vdso+{offset:#x}]"),
        Some(_) => name.to_owned(),
        None => format!("[{name}+{offset:#x}]"),
    }
}

fn short(module: &str) -> &str {
    let module = module.strip_suffix(" (deleted)").unwrap_or(module);
    if module.starts_with('[') { module } else { module.rsplit('/').next().unwrap_or(module) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(module: &str) -> String {
        let module = (!module.is_empty()).then(|| Arc::from(module));
        Frame { module, offset: 0x12, ..Frame::unknown(Space::User) }.label().into_owned()
    }

    #[test]
    fn an_unresolved_frame_says_where_it_is_in_its_file() {
        assert_eq!(label("/usr/lib/libc.so.6"), "[libc.so.6+0x12]");
        assert_eq!(label("/tmp/a b (deleted)"), "[a b+0x12]");
        assert_eq!(label("/memfd:doublemapper (deleted)"), "[memfd:doublemapper+0x12]");
        assert_eq!(label("[vdso]"), "[vdso+0x12]");
    }

    #[test]
    fn memory_without_a_file_has_no_offset() {
        assert_eq!(label("[anon]"), "[anon]");
        assert_eq!(label("[anon:v8/code]"), "[anon:v8/code]");
        assert_eq!(label("[heap]"), "[heap]");
        assert_eq!(label(""), "[unknown]");
    }

    #[test]
    fn a_name_stands_alone() {
        let name = Some("main".to_owned());
        let frame = Frame { name, module: Some(Arc::from("/bin/x")), ..Frame::unknown(Space::User) };
        assert_eq!((frame.label().as_ref(), frame.binary()), ("main", Some("x")));
    }
}
