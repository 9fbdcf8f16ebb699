//! Frames as lines of text, as BCC's tools print them: innermost first, indented by four blanks.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use common::text::escape;

use crate::frame::{Frame, Named, Place, Space};

/// What stands beside a name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// `name+0x1f`.
    pub offsets: bool,
    /// `name (libc.so.6)`.
    pub modules: bool,
    /// `name src/a.c:12`.
    pub lines: bool,
}

/// One line for each frame, and for each function that was inlined there.
///
/// # Errors
/// `out` cannot be written.
pub fn block(frames: &[Named], style: Style, out: &mut dyn Write) -> io::Result<()> {
    let mut line = String::new();
    for frame in frames {
        for inlined in &frame.inlined {
            line.clear();
            line.push_str(&escape(inlined.name.as_bytes()));
            line.push_str(" (inlined)");
            place(&mut line, inlined.place.as_ref(), style);
            writeln!(out, "    {line}")?;
        }
        line.clear();
        line.push_str(&escape(frame.label().as_bytes()));
        if style.offsets && frame.name.is_some() && frame.space != Space::Marker {
            let _ = write!(line, "+{:#x}", frame.offset); // a String takes any write
        }
        if let Some(binary) = frame.binary().filter(|_| style.modules && frame.name.is_some()) {
            let _ = write!(line, " ({})", escape(binary.as_bytes()));
        }
        place(&mut line, frame.place.as_ref(), style);
        writeln!(out, "    {line}")?;
    }
    Ok(())
}

fn place(line: &mut String, place: Option<&Place>, style: Style) {
    if let Some(Place { file, line: number }) = place.filter(|_| style.lines) {
        let _ = write!(line, " {}", escape(file.as_bytes()));
        if *number > 0 {
            let _ = write!(line, ":{number}");
        }
    }
}

/// The functions of a stack, innermost first, inlined ones too: what a JSON record lists.
pub fn labels(frames: &[Named]) -> impl Iterator<Item = Cow<'_, str>> {
    frames.iter().flat_map(|frame: &Named| {
        let frame: &Frame = frame;
        let inlined = frame.inlined.iter().map(|inlined| Cow::Borrowed(inlined.name.as_str()));
        inlined.chain([frame.label()])
    })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::frame::Inlined;

    fn frames() -> Vec<Named> {
        let place = |line| Some(Place { file: "src/a b.c".to_owned(), line });
        vec![
            Rc::new(Frame {
                name: Some("outer(int, char)".to_owned()),
                module: Some(Arc::from("/opt/app")),
                offset: 0x1f,
                place: place(12),
                inlined: vec![Inlined { name: "inner".to_owned(), place: place(3) }],
                ..Frame::unknown(Space::User)
            }),
            Rc::new(Frame {
                module: Some(Arc::from("/opt/app")),
                offset: 0x20,
                ..Frame::unknown(Space::User)
            }),
            Rc::new(Frame { name: Some("a\nb".to_owned()), ..Frame::unknown(Space::Jit) }),
        ]
    }

    fn shown(style: Style) -> String {
        let mut out = Vec::new();
        block(&frames(), style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_frame_is_a_line() {
        let text = "    inner (inlined)\n    outer(int, char)\n    [app+0x20]\n    a\\nb\n";
        assert_eq!(shown(Style::default()), text);
    }

    #[test]
    fn what_is_asked_for_stands_beside_it() {
        let style = Style { offsets: true, modules: true, lines: true };
        let text = "    inner (inlined) src/a b.c:3\n    outer(int, char)+0x1f (app) src/a b.c:12\n";
        assert_eq!(shown(style), format!("{text}    [app+0x20]\n    a\\nb+0x0\n"));
    }

    #[test]
    fn a_record_lists_inlined_functions_too() {
        let labels: Vec<_> = labels(&frames()).map(Cow::into_owned).collect();
        assert_eq!(labels, ["inner", "outer(int, char)", "[app+0x20]", "a\nb"]);
    }
}
