//! From what the BPF program sends of a name and of the walk up from a file to the path that is shown.

/// Bytes that stand for a path nobody knows: an unreadable name, a file handle without a file.
pub const UNKNOWN: &[u8] = b"?";

/// What the name could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Longer than any path may be.
    pub name_cut: bool,
    /// The walk is the path of the file that was opened, else of where the name starts from.
    pub file: bool,
    /// The walk's upper part is missing.
    pub walk_cut: bool,
    /// The walk is a name and a file system's type: a pipe, say.
    pub pseudo: bool,
    pub unlinked: bool,
}

/// As the program gave it. `name`: none if it could not be read, or if there was none.
pub fn given(name: Option<&[u8]>, marks: Marks, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(name.unwrap_or(UNKNOWN));
    if marks.name_cut {
        out.extend_from_slice(b"...");
    }
}

/// From the root on. `walk`: parts from the leaf up, each with its NUL; `ino`: of a pseudo file.
pub fn full(name: Option<&[u8]>, walk: &[u8], ino: u64, marks: Marks, out: &mut Vec<u8>) {
    out.clear();
    if marks.pseudo {
        pseudo(walk, ino, out);
    } else {
        absolute(walk, marks.walk_cut, out);
    }
    if marks.unlinked {
        out.extend_from_slice(b" (deleted)");
    }
    if marks.file {
        return;
    }
    // The directory that the name starts from, and the name: nothing of it is resolved.
    let name = name.unwrap_or(UNKNOWN);
    if out.last() != Some(&b'/') && name.first() != Some(&b'/') {
        out.push(b'/');
    }
    let both = out.last() == Some(&b'/') && name.first() == Some(&b'/');
    out.extend_from_slice(if both { &name[1..] } else { name });
    if marks.name_cut {
        out.extend_from_slice(b"...");
    }
}

fn parts(walk: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    walk.strip_suffix(b"\0").unwrap_or(walk).split(|b| *b == 0).filter(|part| !part.is_empty())
}

fn absolute(walk: &[u8], cut: bool, out: &mut Vec<u8>) {
    if cut {
        out.extend_from_slice(b"...");
    }
    for part in parts(walk).rev() {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
}

/// As /proc/PID/fd shows them: `pipe:[4711]`, `memfd:name`. A dentry without a name has "/" for it: a
/// namespace, or a file that was opened by a handle and is not in the name cache.
fn pseudo(walk: &[u8], ino: u64, out: &mut Vec<u8>) {
    let mut both = walk.split(|b| *b == 0);
    let name = both.next().unwrap_or_default();
    let kind = both.next().unwrap_or_default();
    match name {
        b"" | b"/" => {
            out.extend_from_slice(if kind == b"pipefs" { b"pipe" } else { kind });
            out.extend_from_slice(format!(":[{ino}]").as_bytes());
        }
        name => out.extend_from_slice(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Marks =
        Marks { name_cut: false, file: true, walk_cut: false, pseudo: false, unlinked: false };
    const BASE: Marks = Marks { file: false, ..FILE };

    fn shown(name: Option<&[u8]>, walk: &[u8], marks: Marks) -> String {
        let mut out = b"old".to_vec();
        full(name, walk, 4711, marks, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_walk_of_a_file_is_its_path() {
        assert_eq!(shown(Some(b"x/../h"), b"hostname\0etc\0", FILE), "/etc/hostname");
        assert_eq!(shown(None, b"", FILE), "/");
        assert_eq!(shown(None, b"f\0d\0", Marks { walk_cut: true, ..FILE }), ".../d/f");
        assert_eq!(shown(None, b"#12\0tmp\0", Marks { unlinked: true, ..FILE }), "/tmp/#12 (deleted)");
    }

    #[test]
    fn what_was_not_opened_is_the_directory_and_the_name() {
        assert_eq!(shown(Some(b"../no"), b"www\0srv\0", BASE), "/srv/www/../no");
        assert_eq!(shown(Some(b"/etc/no"), b"", BASE), "/etc/no");
        assert_eq!(shown(Some(b"no"), b"", BASE), "/no");
        assert_eq!(shown(Some(b"/etc/no"), b"jail\0srv\0", BASE), "/srv/jail/etc/no");
        assert_eq!(shown(Some(b"a"), b"", Marks { name_cut: true, ..BASE }), "/a...");
    }

    #[test]
    fn what_lies_below_no_mount_is_shown_as_by_proc() {
        let pseudo = Marks { pseudo: true, ..FILE };
        assert_eq!(shown(None, b"\0pipefs\0", pseudo), "pipe:[4711]");
        assert_eq!(shown(None, b"memfd:x\0tmpfs\0", pseudo), "memfd:x");
        assert_eq!(shown(None, b"/\0nsfs\0", pseudo), "nsfs:[4711]");
    }

    #[test]
    fn a_name_that_is_not_known_is_a_question_mark() {
        let mut out = Vec::new();
        given(None, FILE, &mut out);
        assert_eq!(out, b"?");
        given(Some(b"a"), Marks { name_cut: true, ..FILE }, &mut out);
        assert_eq!(out, b"a...");
    }
}
