//! `--path`: shell patterns over whole paths. They are matched here, not in the kernel: what does not match
//! has been copied.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::Result;
use common::cli::usage;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::event::Open;

pub struct Globs(GlobSet);

impl Globs {
    pub fn new(patterns: &[String]) -> Result<Globs> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let bad = |why: String| usage(format!("invalid value '{pattern}' for '--path <GLOB>': {why}"));
            if pattern.is_empty() {
                return Err(bad("an empty pattern matches nothing".to_owned()));
            }
            let anywhere = format!("**/{pattern}");
            let whole = if pattern.contains('/') { pattern } else { &anywhere };
            let glob = GlobBuilder::new(whole).literal_separator(true).backslash_escape(true).build();
            set.add(glob.map_err(|error| bad(error.kind().to_string()))?);
        }
        Ok(Globs(set.build().map_err(|error| usage(format!("--path: {error}")))?))
    }

    /// The name that was given, or the path from the root on.
    pub fn match_open(&self, open: &Open) -> bool {
        self.matches(&open.full) || self.matches(&open.name)
    }

    fn matches(&self, path: &[u8]) -> bool {
        self.0.is_match(OsStr::from_bytes(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::new(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_star_stops_at_a_slash_and_two_do_not() {
        let one = globs(&["/etc/*"]);
        assert!(one.matches(b"/etc/passwd") && !one.matches(b"/etc/ssl/x") && !one.matches(b"/x/etc/y"));
        assert!(globs(&["/etc/**"]).matches(b"/etc/ssl/x"));
    }

    #[test]
    fn a_pattern_without_a_slash_is_for_the_last_part() {
        let so = globs(&["*.so*"]);
        assert!(so.matches(b"/lib/libc.so.6") && so.matches(b"libc.so") && !so.matches(b"/a.so/x"));
    }

    #[test]
    fn one_of_several_is_enough_and_bytes_need_not_be_text() {
        let two = globs(&["a", "*.{c,h}"]);
        assert!(two.matches(b"/x/a") && two.matches(b"\xff.h") && !two.matches(b"b"));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        for pattern in ["[a", "{a", ""] {
            let error = Globs::new(&[pattern.to_owned()]).err().unwrap().to_string();
            assert!(error.starts_with(&format!("invalid value '{pattern}' for '--path")), "{error}");
        }
    }
}
