//! The histogram blocks of text output, read back and printed again by the peers' format.

use std::fmt::Write as _;

/// One histogram as it stands in text output.
#[derive(Clone, Debug)]
pub struct Block {
    /// "pid = 42 comm"; empty without a section line.
    pub label: String,
    pub unit: String,
    pub rows: Vec<(u64, u64, u64)>,
    /// The fields of the `# count=…` line, in order.
    pub summary: Vec<(String, f64)>,
    /// Header and rows as printed.
    pub raw: String,
}

impl Block {
    #[must_use]
    pub fn count(&self) -> u64 {
        self.rows.iter().map(|(_, _, n)| n).sum()
    }

    #[must_use]
    #[track_caller]
    pub fn field(&self, name: &str) -> f64 {
        let found = self.summary.iter().find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("no {name}= under {}", self.raw)).1
    }

    /// These rows by the format of libbpf-tools' print_log2_hist(): every row from 0 on, the bar 40 wide.
    #[must_use]
    pub fn by_the_book(&self) -> String {
        let mut text = format!("     {:<19} : count    distribution\n", self.unit);
        let most = self.rows.iter().map(|(_, _, n)| *n).max().unwrap_or(0).max(1);
        for (i, (_, _, count)) in self.rows.iter().enumerate() {
            let (low, high) = (if i == 0 { 0 } else { 1_u64 << i }, (2_u64 << i) - 1);
            let stars = "*".repeat((40 * count / most) as usize);
            let _ = writeln!(text, "{low:>10} -> {high:<10} : {count:<8} |{stars:<40}|");
        }
        text
    }
}

/// All histograms of a text, in order.
#[must_use]
#[track_caller]
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut label = String::new();
    for line in text.lines() {
        if line.contains(" : count ") && line.ends_with("distribution") {
            let unit = line.split_whitespace().next().unwrap_or_default().to_owned();
            let label = std::mem::take(&mut label);
            found.push(Block {
                label,
                unit,
                rows: Vec::new(),
                summary: Vec::new(),
                raw: format!("{line}\n"),
            });
        } else if let (Some(row), Some(block)) = (row(line), found.last_mut()) {
            block.rows.push(row);
            let _ = writeln!(block.raw, "{line}");
        } else if let (Some(rest), Some(block)) = (line.strip_prefix("# "), found.last_mut()) {
            block.summary = summary(rest);
        } else if line.contains(" = ") {
            label = line.to_owned();
        }
    }
    found
}

fn row(line: &str) -> Option<(u64, u64, u64)> {
    let mut words = line.split_whitespace();
    let low = words.next()?.parse().ok()?;
    (words.next()? == "->").then_some(())?;
    let high = words.next()?.parse().ok()?;
    (words.next()? == ":").then_some(())?;
    Some((low, high, words.next()?.parse().ok()?))
}

#[track_caller]
fn summary(rest: &str) -> Vec<(String, f64)> {
    let fields = rest.split_whitespace().filter_map(|word| word.split_once('='));
    fields.map(|(key, value)| (key.to_owned(), value.parse().unwrap_or_else(|_| panic!("{rest}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from Debian's libbpf-tools 0.26.
    const PEER: &str = "\
Tracing run queue latency... Hit Ctrl-C to end.

pid = 22 ksoftirqd/1
     usecs               : count    distribution
         0 -> 1          : 7        |*****************                       |
         2 -> 3          : 0        |                                        |
         4 -> 7          : 16       |****************************************|
";

    #[test]
    fn a_block_is_read_and_printed_again() {
        let found = blocks(PEER);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].label, "pid = 22 ksoftirqd/1");
        assert_eq!(found[0].rows, [(0, 1, 7), (2, 3, 0), (4, 7, 16)]);
        assert_eq!(found[0].by_the_book(), found[0].raw);
    }

    #[test]
    fn the_summary_is_read() {
        let text = PEER.to_owned() + "# count=9 min=0.8 mean=4.5 p99.9=6 max=6.2 (usecs)\n";
        let block = blocks(&text).remove(0);
        assert!((block.field("count") - 9.0).abs() < 1e-9 && (block.field("p99.9") - 6.0).abs() < 1e-9);
    }
}
