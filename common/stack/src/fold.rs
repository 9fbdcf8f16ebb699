//! Folded lines: `comm;outermost;…;innermost usecs`, as flamegraph.pl, inferno and speedscope read them.
//! docs/OUTPUT.md has the grammar.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use common::exit::{Kind, fault};
use common::text;

use crate::frame::{Named, Space};

/// A folded line in the making.
pub struct Line(String);

impl Line {
    #[must_use]
    pub fn new(comm: &[u8]) -> Line {
        let comm = if comm.is_empty() { b"[unknown]" } else { comm };
        Line(escape(comm).into_owned())
    }

    /// Begins with a frame that is escaped, or our own.
    #[must_use]
    pub fn own(root: &str) -> Line {
        Line(root.to_owned())
    }

    /// One of our own frames, `[still blocked]` or `-`, or one that is escaped already.
    #[must_use]
    pub fn marker(mut self, marker: &str) -> Line {
        self.0.push(';');
        self.0.push_str(&marker.replace(' ', "\\040"));
        self
    }

    /// Frames in their order in a stack, innermost first; the line has them the other way round.
    #[must_use]
    pub fn frames(mut self, frames: &[Named]) -> Line {
        for frame in frames.iter().rev() {
            let kind = match frame.space {
                Space::Kernel => "_[k]",
                Space::Jit => "_[j]",
                Space::User => "",
                Space::Marker => {
                    self = self.marker(&frame.label());
                    continue;
                }
            };
            self.push(&frame.label(), kind);
            for inlined in frame.inlined.iter().rev() {
                self.push(&inlined.name, "_[i]");
            }
        }
        self
    }

    fn push(&mut self, name: &str, kind: &str) {
        self.0.push(';');
        self.0.push_str(&escape(name.as_bytes()));
        self.0.push_str(kind);
    }

    /// The frames, to add up what several threads spent in them.
    #[must_use]
    pub fn stack(self) -> String {
        self.0
    }
}

/// As in text, and further: the blank is what ends the frames, and the semicolon what parts them.
#[must_use]
pub fn escape(name: &[u8]) -> Cow<'_, str> {
    let escaped = text::escape(name);
    if escaped.contains([' ', ';']) {
        return Cow::Owned(escaped.replace(' ', "\\040").replace(';', "\\073"));
    }
    escaped
}

/// Undoes it. What is no escape stays.
fn unescape(frame: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len());
    let mut rest = frame.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, length) = escaped(first, after);
        out.push(byte);
        rest = &after[length..];
    }
    out
}

/// The byte that is meant, and how many bytes after the first say so.
fn escaped(first: u8, after: &[u8]) -> (u8, usize) {
    let plain = (first, 0);
    if first != b'\\' {
        return plain;
    }
    match after {
        [b'n', ..] => (b'\n', 1),
        [b't', ..] => (b'\t', 1),
        [b'r', ..] => (b'\r', 1),
        [b'\\', ..] => (b'\\', 1),
        [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            ((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), 3)
        }
        _ => plain,
    }
}

/// Stacks and what was spent in them.
pub type Profile = BTreeMap<String, u64>;

/// The frames and the number of a line, of ours or of another tool's; none if it is no folded line.
#[must_use]
pub fn parse(line: &str) -> Option<(String, u64)> {
    let (stack, number) = line.trim_end().rsplit_once(' ')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if stack.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // One spelling, so that stacks can be compared.
    let frames = stack.split(';').map(|frame| escape(&unescape(frame)).into_owned());
    Some((frames.collect::<Vec<_>>().join(";"), whole.parse().ok()?))
}

/// A file of folded lines, `--diff`. Read it before tracing.
///
/// # Errors
/// It cannot be read, or a line is no folded line.
pub fn read(path: &Path) -> Result<Profile> {
    let bytes = fs::read(path)
        .map_err(|error| fault(Kind::Failed, format!("cannot read {}: {error}", path.display())))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut profile = Profile::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let Some((stack, number)) = parse(line) else {
            let what = "is no folded line (frames parted by semicolons, a blank, a number)";
            return Err(fault(Kind::Failed, format!("{}: line {} {what}", path.display(), index + 1)));
        };
        *profile.entry(stack).or_default() += number;
    }
    Ok(profile)
}

/// Every stack of two profiles with its number in each: the lines that difffolded.pl writes.
#[must_use]
pub fn differences(before: &Profile, after: &Profile) -> Vec<(String, u64, u64)> {
    let mut both: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (stack, number) in before {
        both.entry(stack).or_default().0 = *number;
    }
    for (stack, number) in after {
        both.entry(stack).or_default().1 = *number;
    }
    both.into_iter().map(|(stack, (before, after))| (stack.to_owned(), before, after)).collect()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::frame::{Frame, Inlined};

    fn frame(space: Space, name: &str) -> Named {
        Rc::new(Frame { name: Some(name.to_owned()), ..Frame::unknown(space) })
    }

    #[test]
    fn a_line_runs_from_the_outside_in() {
        let user = [frame(Space::Jit, "JS:*f /a.js:1"), frame(Space::User, "operator new(unsigned long)")];
        let kernel = [frame(Space::Kernel, "schedule"), Rc::new(Frame::unknown(Space::Kernel))];
        let blocked = [Rc::new(Frame::marker("[still blocked]"))];
        let line = Line::new(b"my app").frames(&blocked).frames(&user).marker("-").frames(&kernel);
        assert_eq!(
            line.stack(),
            "my\\040app;[still\\040blocked];operator\\040new(unsigned\\040long);JS:*f\\040/a.js:1_[j];-;\
             [unknown]_[k];schedule_[k]"
        );
    }

    #[test]
    fn what_was_inlined_is_inside_of_its_frame() {
        let inlined = |name: &str| Inlined { name: name.to_owned(), place: None };
        let frame = Frame {
            name: Some("f".to_owned()),
            inlined: vec![inlined("h"), inlined("g")],
            ..Frame::unknown(Space::User)
        };
        assert_eq!(Line::new(b"c").frames(&[Rc::new(frame)]).stack(), "c;f;g_[i];h_[i]");
    }

    #[test]
    fn names_cannot_break_a_line() {
        let all: Vec<u8> = (0..=255).collect();
        for name in [&b"a;b c\nd"[..], b"\\040", b"\xff\x1b[31m", b"tab\t\r", &all] {
            let escaped = escape(name);
            assert!(!escaped.contains([' ', ';', '\n', '\x1b']), "{escaped}");
            assert_eq!(unescape(&escaped), name);
        }
        assert!(matches!(escape(b"std::vector<int>::push_back"), Cow::Borrowed(_)));
        assert_eq!(Line::new(b"").stack(), "[unknown]");
    }

    #[test]
    fn lines_of_other_tools_are_read() {
        assert_eq!(parse("a b;c(int, char) 12\n"), Some(("a\\040b;c(int,\\040char)".to_owned(), 12)));
        assert_eq!(
            parse("a\\040b;c(int,\\040char) 12.75"),
            Some(("a\\040b;c(int,\\040char)".to_owned(), 12))
        );
        for bad in ["", "12", "a;b", "a;b c", "a 1.x", "a -1", " 12"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_difference_has_the_stacks_of_both() {
        let profile = |lines: &[(&str, u64)]| lines.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect();
        let before: Profile = profile(&[("a;b", 3), ("a;c", 5)]);
        let after: Profile = profile(&[("a;c", 7), ("a;d", 11)]);
        let lines = differences(&before, &after);
        let expected = [("a;b", 3, 0), ("a;c", 5, 7), ("a;d", 0, 11)];
        assert_eq!(lines, expected.map(|(stack, before, after)| (stack.to_owned(), before, after)));
    }

    #[test]
    fn a_file_with_a_bad_line_is_named_with_it() {
        let path = std::env::temp_dir().join(format!("fold-{}", std::process::id()));
        fs::write(&path, "a;b 1\n\na;b 2\nnonsense\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("line 4 is no folded line (frames parted by semicolons, a blank, a number)"),
            "{error}"
        );
        fs::write(&path, "a;b 1\n\na;b 2\n").unwrap();
        assert_eq!(read(&path).unwrap(), Profile::from([("a;b".to_owned(), 3)]));
        fs::remove_file(&path).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("No such file"));
    }
}
