//! What every tool does with its arguments, before it looks at the kernel: no privilege is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

use tracebelt_tests::help::{self, has};
use tracebelt_tests::{Tool, env};

/// Values that make no sense, by flag. A tool is asked only for flags that its help has.
const NONSENSE: &[(&str, &[&str])] = &[
    ("--pid", &["abc", "0", "-5", "1x", "0x10", "4294967296", "1,,2", "1,x"]),
    ("--tid", &["abc", "0", "-5", "4294967296", "1,x"]),
    ("--uid", &["no such user", "4294967296", "-1"]),
    ("--duration", &["0", "0.0", "abc", "1x", "0x", "-1", "1e9", "99999999999999999999", ""]),
    ("--slower", &["0", "abc", "1x", "0x", "-1", "99999999999999999999"]),
    ("--by", &["nonsense", ""]),
    ("--top", &["abc", "-1"]),
    ("--summary", &["nonsense"]),
    ("--max-events", &["abc", "0", "-1"]),
    ("--buffer-pages", &["abc", "0", "3", "-4"]),
    ("--flag_filter", &["O_NONSENSE", ""]),
    ("--path", &["[", ""]),
    ("--interval", &["0", "abc", "1x", "-1", ""]),
    ("--min-block-time", &["0", "abc", "1x", "-1"]),
    ("--max-block-time", &["0", "abc", "-1"]),
    ("--quantum", &["0", "abc", "2s", "-1"]),
    ("--state", &["X", "", "-1", "0x", "4096"]),
    ("--stack-storage-size", &["0", "abc", "1x", "-1", "99999999999999999999"]),
    ("--perf-max-stack-depth", &["0", "128", "abc", "-1"]),
    ("--min-percent", &["101", "-1", "abc", ""]),
];

#[test]
fn help_is_printed_on_stdout_and_has_examples() {
    for tool in env::tools() {
        let text = help::of(&tool);
        assert!(!Tool::new(&tool).arg("-h").run().expect(0).silent().stdout.is_empty(), "{tool} -h");
        let (_, examples) = text
            .split_once(
                "
Examples:
",
            )
            .unwrap_or_else(|| {
                panic!(
                    "{tool}: no examples
{text}"
                )
            });
        let shown =
            examples.lines().filter(|line| line.trim_start().split(' ').any(|word| word == tool)).count();
        assert!((3..=6).contains(&shown), "{tool}: {shown} examples\n{text}");
        for flag in ["--help", "--version", "--verbose", "--json", "--check", "--strict"] {
            assert!(has(&text, flag), "{tool} has no {flag}\n{text}");
        }
        for hidden in ["--probe", "--ready-fd"] {
            assert!(!has(&text, hidden), "{tool} shows {hidden}");
        }
    }
}

#[test]
fn version_is_one_line() {
    for tool in env::tools() {
        let text = Tool::new(&tool).arg("-V").run().expect(0).silent().out();
        let version = text.strip_prefix(&format!("{tool} ")).unwrap_or_else(|| panic!("{text}")).trim_end();
        assert!(
            version.split('.').count() == 3 && version.starts_with(|c: char| c.is_ascii_digit()),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
        assert_eq!(Tool::new(&tool).arg("--version").run().expect(0).out(), text);
    }
}

#[test]
fn flags_cluster_abbreviate_and_follow_positionals() {
    for tool in env::tools() {
        let version = Tool::new(&tool).arg("-V").run().expect(0).out();
        for words in ["-vV", "--vers", "-v --vers"] {
            assert_eq!(Tool::new(&tool).words(words).run().expect(0).out(), version, "{tool} {words}");
        }
        if help::takes_interval(&tool) {
            assert_eq!(Tool::new(&tool).words("1 1 -V").run().expect(0).out(), version);
        }
        // Of --version and --verbose: it has to ask, not to choose.
        Tool::new(&tool).arg("--ver").run().expect_error(2, &["--ver"]);
    }
}

#[test]
fn nonsense_is_named_with_its_flag() {
    let mut asked = 0;
    for tool in env::tools() {
        let text = help::of(&tool);
        for (flag, values) in NONSENSE.iter().filter(|(flag, _)| has(&text, flag)) {
            for value in *values {
                let error = Tool::new(&tool).arg(format!("{flag}={value}")).run();
                // Of a list the item that is wrong.
                let named = value.rsplit(',').find(|item| item.parse::<u16>().is_err()).unwrap_or(value);
                error.expect_error(2, &[flag, named]);
                asked += 1;
            }
        }
        Tool::new(&tool).arg("--nonsense").run().expect_error(2, &["--nonsense"]);
        Tool::new(&tool).arg("--probe=nonsense").run().expect_error(2, &["--probe", "nonsense", "tp_btf"]);
    }
    assert!(asked > 20, "the flags are still found in the help: {asked}");
}

#[test]
fn an_interval_and_a_count_are_numbers_above_zero() {
    for tool in env::tools().into_iter().filter(|tool| help::takes_interval(tool)) {
        for interval in ["0", "0.0", "abc", "1x", "0x", "1e9", "99999999999999999999", "inf"] {
            Tool::new(&tool).arg(interval).run().expect_error(2, &[interval, "INTERVAL"]);
        }
        for count in ["0", "abc", "1x", "1.5", "99999999999999999999"] {
            Tool::new(&tool).args(["1", count]).run().expect_error(2, &[count, "COUNT"]);
        }
        Tool::new(&tool).words("1 1 nonsense").run().expect_error(2, &["nonsense"]);
        Tool::new(&tool).arg("-1").run().expect_error(2, &["-1"]);
    }
}

#[test]
fn groupings_exclude_each_other() {
    for tool in help::tools_with("--pidnss") {
        for pair in ["-P -L", "-P --pidnss", "-L --by cpu"] {
            let error = Tool::new(&tool).words(pair).run().expect(2);
            assert!(error.stdout.is_empty() && error.err_lines().len() == 1, "{}", error.story());
        }
    }
}

#[test]
fn help_and_version_survive_a_closed_stdout() {
    for tool in env::tools() {
        for flag in ["--help", "-V"] {
            let ended = Tool::new(&tool).arg(flag).without_fd(1).run();
            assert!(matches!(ended.status.code(), Some(0 | 1)), "{}", ended.story());
            assert!(ended.err_lines().len() <= 1, "{}", ended.story());
        }
    }
}

/// Text that a tool gives back in an error is as little a way into a terminal as any other.
#[test]
fn errors_are_escaped_too() {
    for tool in env::tools() {
        let error = Tool::new(&tool).arg("--bad\x1b[31m\nforged").run().expect(2);
        assert!(!error.stderr.contains(&0x1b) && error.err_lines().len() == 1, "{}", error.story());
    }
}
