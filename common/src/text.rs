//! Bytes from the kernel and from users, made safe: one line stays one line, and a terminal sees no
//! escape sequence.

use std::borrow::Cow;
use std::fmt::Write as _;

/// C-style escapes for control characters, the backslash and what is not UTF-8.
#[must_use]
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(needs_escape) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes)),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\\' => out.push_str("\\\\"),
                c if needs_escape(c) => {
                    let mut utf8 = [0; 4];
                    push_octal(&mut out, c.encode_utf8(&mut utf8).as_bytes());
                }
                c => out.push(c),
            }
        }
        push_octal(&mut out, chunk.invalid());
    }
    out
}

/// Octal, three digits: unlike `\x1b` it ends where it ends, whatever letter follows.
fn push_octal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "\\{byte:03o}"); // a String takes any write
    }
}

/// Control characters (C0, DEL and C1, which some terminals obey), the backslash, and the characters
/// that turn the direction of a line or break it (Unicode's bidirectional controls and separators).
fn needs_escape(c: char) -> bool {
    c.is_control()
        || c == '\\'
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A NUL-terminated field of the kernel's, such as `comm`: its bytes up to the NUL.
#[must_use]
pub fn until_nul<const N: usize>(field: &[std::ffi::c_char; N]) -> Vec<u8> {
    field.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_passed_through_unchanged() {
        assert!(matches!(escape("/tmp/naïve 文件".as_bytes()), Cow::Borrowed("/tmp/naïve 文件")));
    }

    #[test]
    fn nothing_reaches_a_terminal_that_it_would_obey() {
        assert_eq!(escape(b"a\x1b[31mred\nrow\ttab\\"), "a\\033[31mred\\nrow\\ttab\\\\");
        assert_eq!(escape(b"\xff\xfe ok \xc3"), "\\377\\376 ok \\303");
        assert_eq!(escape("\u{9b}31m \u{202e}".as_bytes()), "\\302\\23331m \\342\\200\\256");
        assert_eq!(escape(b"\x7f\r"), "\\177\\r");
    }

    #[test]
    fn a_field_ends_at_its_nul() {
        let comm = *b"bash\0old\0".map(|b| b as std::ffi::c_char).first_chunk::<9>().unwrap();
        assert_eq!(until_nul(&comm), b"bash");
    }
}
