//! `/proc/PID/maps`: what a process has mapped where.

/// A line of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub start: u64,
    pub end: u64,
    pub exec: bool,
    /// Where in the file the mapping starts.
    pub offset: u64,
    /// Device and inode of the file; on btrfs and on overlays not what stat(2) says.
    pub device: &'a [u8],
    pub inode: u64,
    /// As the kernel writes it: ` (deleted)` at the end, `[vdso]`, or nothing.
    pub path: &'a [u8],
}

/// Lines that are not understood are left out.
pub fn parse(maps: &[u8]) -> impl Iterator<Item = Line<'_>> {
    maps.split(|b| *b == b'\n').filter_map(parse_line)
}

/// `55d0-55d4 r-xp 00002000 fe:01 1234      /usr/bin/cat`
fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let (range, rest) = word(line)?;
    let (permissions, rest) = word(rest)?;
    let (offset, rest) = word(rest)?;
    let (device, rest) = word(rest)?;
    let (inode, path) = word(rest)?;
    let dash = range.iter().position(|b| *b == b'-')?;
    Some(Line {
        start: hex(&range[..dash])?,
        end: hex(&range[dash + 1..])?,
        exec: permissions.get(2) == Some(&b'x'),
        offset: hex(offset)?,
        device,
        inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
        path,
    })
}

/// The first word, and what follows it without the blanks between.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let start = rest.iter().position(|b| *b != b' ').unwrap_or(rest.len());
    (!word.is_empty()).then(|| (word, &rest[start..]))
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text =
            b"55f4a95cb000-55f4a95cf000 r-xp 00002000 00:20 41445                      /a b (deleted)\n\
            7ffd033ab000-7ffd033ad000 r-xp 00000000 00:00 0                          [vdso]\n\
            7f2321e00000-7f2321e37000 rw-p 00000000 00:00 0 \n\
            garbage\n";
        let lines: Vec<_> = parse(text).collect();
        assert_eq!(lines.len(), 3);
        let first = Line {
            start: 0x55f4_a95c_b000,
            end: 0x55f4_a95c_f000,
            exec: true,
            offset: 0x2000,
            device: b"00:20",
            inode: 41445,
            path: b"/a b (deleted)",
        };
        assert_eq!(lines[0], first);
        assert_eq!((lines[1].path, lines[1].exec), (&b"[vdso]"[..], true));
        assert_eq!((lines[2].path, lines[2].exec), (&b""[..], false));
    }
}
