//! Flame graphs by inferno, and the difference of two.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use common::exit::{Kind, fault};
use inferno::flamegraph::color::{Color, PaletteMap};
use inferno::flamegraph::{self, Options, TextTruncateDirection};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::fold::{self, Profile};

/// What is written beside the frames.
#[derive(Clone, Debug, Default)]
pub struct Caption {
    /// "Off-CPU time of process 42 (app)".
    pub title: String,
    /// Under the title: the total, the time, what was left out.
    pub subtitle: String,
    /// "us": what the numbers count.
    pub unit: String,
}

/// The file that a flame graph is to be written to, opened before tracing starts: a run of an hour must not
/// end with a directory that does not exist.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    file: File,
    /// To be taken away again if nothing is written.
    new: bool,
}

impl Target {
    /// What the file holds stays until [`Target::write`].
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(path: &Path) -> Result<Target> {
        let open = |new| {
            let mut options = File::options();
            // A pipe without a reader is an error, and must not hold us up.
            options.write(true).create_new(new).custom_flags(libc::O_NONBLOCK).open(path)
        };
        let opened = open(true).map(|file| (file, true)).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => open(false).map(|file| (file, false)),
            _ => Err(error),
        });
        match opened {
            Ok((file, new)) => {
                // A pipe with a reader may be waited for again.
                fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).context("cannot set up the output file")?;
                Ok(Target { path: path.to_owned(), file, new })
            }
            Err(error) => Err(fault(
                Kind::Failed,
                format!("cannot write the flame graph to {}: {error}", path.display()),
            )),
        }
    }

    /// Writes the flame graph of a profile.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(self, profile: &Profile, caption: &Caption) -> Result<()> {
        let lines = profile.iter().filter(|(_, number)| **number > 0);
        self.draw(&mut lines.map(|(stack, number)| (shown(stack), number.to_string())), caption)
    }

    /// Writes the flame graph of `after`, coloured by the difference: red is what grew, blue what shrank.
    /// What is in `before` alone has no width in it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_difference(self, before: &Profile, after: &Profile, caption: &Caption) -> Result<()> {
        let lines = fold::differences(before, after).into_iter();
        let numbers =
            |(stack, before, after): (String, u64, u64)| (shown(&stack), format!("{before} {after}"));
        let mut caption = caption.clone();
        caption.subtitle.push_str(" (red: more than before, blue: less)");
        self.draw(&mut lines.map(numbers), &caption)
    }

    fn draw(mut self, lines: &mut dyn Iterator<Item = (String, String)>, caption: &Caption) -> Result<()> {
        let written = draw(lines, caption).and_then(|svg| {
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            (&self.file).write_all(&svg)
        });
        self.new = self.new && written.is_err();
        written.with_context(|| format!("cannot write the flame graph to {}", self.path.display()))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.new {
            return;
        }
        // Only the file that we made: somebody may have put another there.
        let ours = self.file.metadata().is_ok_and(|ours| {
            fs::symlink_metadata(&self.path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        });
        if ours {
            let _ = fs::remove_file(&self.path); // nothing depends on it
        }
    }
}

/// inferno's name of the frame that stands for the whole.
const ALL: &str = "";

/// Stacks with their numbers: one, or two for a difference.
fn draw(lines: &mut dyn Iterator<Item = (String, String)>, caption: &Caption) -> io::Result<Vec<u8>> {
    let mut palette = PaletteMap::default();
    palette.insert(ALL, colour("", true));
    let mut text = Vec::new();
    for (stack, numbers) in lines {
        for (depth, frame) in stack.split(';').enumerate() {
            if palette.get(frame).is_none() {
                palette.insert(frame, colour(frame, depth == 0));
            }
        }
        text.push(format!("{stack} {numbers}"));
    }
    text.sort_unstable();
    let mut options = Options::default();
    options.title.clone_from(&caption.title);
    options.subtitle = Some(caption.subtitle.clone()).filter(|text| !text.is_empty());
    options.count_name.clone_from(&caption.unit);
    options.palette_map = Some(&mut palette);
    // What tells names apart is at their start.
    options.text_truncate_direction = TextTruncateDirection::Right;
    let mut svg = Vec::new();
    match flamegraph::from_lines(&mut options, text.iter().map(String::as_str), &mut svg) {
        // Nothing was measured: the picture says so.
        Err(error) if error.kind() == io::ErrorKind::InvalidData && !svg.is_empty() => Ok(svg),
        done => done.map(|()| svg),
    }
}

/// Folded frames for people: a blank is a blank again. inferno would take a number at the end of the last
/// frame for one of a difference, so a blank before it does not break there.
fn shown(stack: &str) -> String {
    let mut stack = stack.replace("\\040", " ");
    let number = stack.rsplit(' ').next().map_or(0, str::len);
    let start = stack.len() - number;
    let is_number = stack[start..].bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if start > 0 && is_number {
        stack.replace_range(start - 1..start, "\u{a0}");
    }
    stack
}

/// The colours of flamegraph.pl --color=java, but by what a frame is, and not by how its name looks: a
/// capital letter makes it Java there.
fn colour(frame: &str, is_comm: bool) -> Color {
    // The same in every picture, and not the same for neighbours.
    let hash = frame.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let vary = |low: u8, range: u8| low + ((hash >> 32) % u64::from(range)) as u8;
    let (r, g, b) = match frame {
        _ if frame.ends_with("_[k]") => (vary(190, 65), vary(90, 65), 0),
        _ if frame.ends_with("_[j]") => (vary(50, 60), vary(200, 55), vary(50, 60)),
        _ if frame.ends_with("_[i]") => (vary(50, 60), vary(165, 55), vary(165, 55)),
        _ if is_comm || is_marker(frame) => (vary(160, 40), vary(160, 40), vary(160, 40)),
        _ if frame.contains("::") => (vary(175, 55), vary(175, 55), vary(50, 20)),
        _ => (vary(200, 55), vary(50, 80), vary(50, 80)),
    };
    Color { r, g, b }
}

/// `[still blocked]`, and not `[libc.so.6+0x1]`.
fn is_marker(frame: &str) -> bool {
    frame == "-" || frame.starts_with('[') && frame.ends_with(']') && !frame.contains("+0x")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("flame-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn caption() -> Caption {
        Caption { title: "Off-CPU <time> & more".into(), subtitle: "total 18 us".into(), unit: "us".into() }
    }

    #[test]
    fn what_cannot_be_written_is_found_at_once() {
        let directory = directory("early");
        let error = |path: &Path| Target::create(path).unwrap_err().to_string();
        let missing = error(&directory.join("no/such/x.svg"));
        assert!(missing.ends_with("no/such/x.svg: No such file or directory (os error 2)"), "{missing}");
        assert!(error(&directory).contains("Is a directory"));
        let svg = directory.join("x.svg");
        drop(Target::create(&svg).unwrap());
        assert!(!svg.exists(), "a run that fails leaves no empty file");
        fs::write(&svg, "old").unwrap();
        drop(Target::create(&svg).unwrap());
        assert_eq!(fs::read(&svg).unwrap(), b"old", "nor takes an old one away");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_picture_has_the_frames_the_total_and_the_title() {
        let directory = directory("picture");
        let svg = directory.join("x.svg");
        fs::write(&svg, "x".repeat(1 << 20)).unwrap();
        let profile = [("app;f(int,\\040char);worker\\0407", 7), ("app;g<T>", 11)];
        let profile: Profile = profile.map(|(stack, number)| (stack.to_owned(), number)).into();
        Target::create(&svg).unwrap().write(&profile, &caption()).unwrap();
        let text = fs::read_to_string(&svg).unwrap();
        for part in [
            "Off-CPU &lt;time&gt; &amp; more",
            "total 18 us",
            "all (18 us, 100%)",
            "f(int, char) (7 us, 38.89%)",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(
            text.contains("worker\u{a0}7 (7 us")
                && text.contains("g&lt;T&gt; (11 us")
                && text.ends_with("</svg>")
        );
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_difference_shows_by_how_much() {
        let directory = directory("difference");
        let svg = directory.join("x.svg");
        let profile = |lines: &[(&str, u64)]| lines.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect();
        let (before, after) = (profile(&[("a;f", 10), ("a;h", 5)]), profile(&[("a;f", 30), ("a;g", 70)]));
        Target::create(&svg).unwrap().write_difference(&before, &after, &caption()).unwrap();
        let text = fs::read_to_string(&svg).unwrap();
        assert!(
            text.contains("f (30 us, 30.00%; +20.00%)") && text.contains("g (70 us, 70.00%; +70.00%)"),
            "{text}"
        );
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn nothing_measured_is_a_picture_too() {
        let directory = directory("nothing");
        let svg = directory.join("x.svg");
        Target::create(&svg).unwrap().write(&Profile::new(), &caption()).unwrap();
        assert!(fs::read_to_string(&svg).unwrap().ends_with("</svg>"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn kinds_of_frames_have_their_colours() {
        let is = |frame, red: fn(Color) -> bool| assert!(red(colour(frame, false)), "{frame}");
        is("schedule_[k]", |c| c.b == 0);
        is("JS:f_[j]", |c| c.g > c.r && c.g > c.b);
        is("PyEval_EvalFrame", |c| c.r > c.g && c.r > c.b);
        is("[still blocked]", |c| c.r == c.g && c.g == c.b);
        is("[libc.so.6+0x1]", |c| c.r > c.g);
    }
}
