//! A process that has ended, and what it printed.

use std::cell::OnceCell;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::record::{End, Histogram, Record};

#[derive(Debug)]
pub struct Ended {
    pub tool: String,
    /// The command line, for failed assertions.
    pub line: String,
    pub pid: u32,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Parsed once: there may be 200,000.
    pub(crate) parsed: OnceCell<Vec<Record>>,
}

impl Ended {
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    #[must_use]
    pub fn err_lines(&self) -> Vec<String> {
        self.err().lines().map(str::to_owned).collect()
    }

    /// What a person needs who looks at a failed test.
    #[must_use]
    pub fn story(&self) -> String {
        let cut = |text: String| {
            if text.len() > 3000 { text.chars().take(3000).collect::<String>() + "…" } else { text }
        };
        format!("{}\n{}\nstdout: {}\nstderr: {}", self.line, self.status, cut(self.out()), cut(self.err()))
    }

    /// It ended by itself with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ended {
        assert_eq!(self.status.code(), Some(code), "{}", self.story());
        self
    }

    /// Nothing at all on stderr.
    #[track_caller]
    pub fn silent(self) -> Ended {
        assert!(self.stderr.is_empty(), "stderr should be empty\n{}", self.story());
        self
    }

    /// stderr says at most what was missed: events, or the names of functions.
    #[track_caller]
    pub fn silent_but_for_losses(self) -> Ended {
        let reports = [" lost (", ": of ", ": no ", " have no names: "];
        let is_report = |line: &String| reports.iter().any(|part| line.contains(part));
        let other = self.err_lines().into_iter().find(|line| !is_report(line));
        assert_eq!(other, None, "{}", self.story());
        self
    }

    /// How many of its events it says on stderr that it lost.
    #[must_use]
    pub fn said_lost(&self) -> u64 {
        let words = |line: &String| {
            let (number, _) = line.split_once(": ")?.1.split_once(" of ")?;
            number.parse().ok()
        };
        self.err_lines().iter().filter(|line| line.contains(" lost (")).find_map(words).unwrap_or(0)
    }

    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// An error as the project writes it: this exit code, nothing on stdout, and one line on stderr that
    /// has each of these words.
    #[track_caller]
    pub fn expect_error(self, code: i32, words: &[&str]) -> Ended {
        let ended = self.expect(code);
        assert!(ended.stdout.is_empty(), "an error prints nothing on stdout\n{}", ended.story());
        assert_eq!(ended.err_lines().len(), 1, "an error is one line\n{}", ended.story());
        for word in words {
            assert!(ended.err().contains(word), "the error should name {word:?}\n{}", ended.story());
        }
        ended
    }

    /// All lines of `--json`, of which the last is the end record and no other.
    #[must_use]
    #[track_caller]
    pub fn records(&self) -> &[Record] {
        self.parsed.get_or_init(|| self.parse())
    }

    #[track_caller]
    fn parse(&self) -> Vec<Record> {
        let text = std::str::from_utf8(&self.stdout).expect("JSON is UTF-8");
        let records: Vec<Record> = text.lines().map(|line| Record::parse(line, &self.tool)).collect();
        let ends: Vec<usize> = (0..records.len()).filter(|i| records[*i].str("type") == "end").collect();
        assert_eq!(ends, [records.len().wrapping_sub(1)], "one end record, the last\n{}", self.story());
        records
    }

    #[must_use]
    #[track_caller]
    pub fn rows(&self) -> Vec<Record> {
        self.records().iter().filter(|record| record.str("type") == "row").cloned().collect()
    }

    #[must_use]
    #[track_caller]
    pub fn histograms(&self) -> Vec<Histogram> {
        let records = self.records();
        records.iter().filter(|record| record.str("type") == "histogram").map(Histogram::from).collect()
    }

    #[must_use]
    #[track_caller]
    pub fn end(&self) -> End {
        End(self.records().last().cloned().expect("an end record"))
    }
}
