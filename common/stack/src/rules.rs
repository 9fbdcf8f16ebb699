//! The call frame information of the files in use.

use std::collections::HashMap;

use crate::cfi::{Cfi, Rule};
use crate::files::{FileId, Source};

#[derive(Default)]
pub struct Rules {
    files: HashMap<FileId, Option<Cfi>>,
}

/// Files whose tables are in memory: of the C library's size as a rule, 100 KiB.
const FILES: usize = 64;

impl Rules {
    /// How to find the caller of the function at an offset into a file.
    pub fn find(&mut self, file: FileId, source: &Source, offset: u64) -> Option<Rule> {
        if self.files.len() >= FILES && !self.files.contains_key(&file) {
            self.files.clear();
        }
        let cfi = self.files.entry(file).or_insert_with(|| source.path().and_then(Cfi::open));
        cfi.as_ref()?.rule(offset)
    }
}
