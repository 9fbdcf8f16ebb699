//! What holds of the lines of `--json` in every tool.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use tracebelt_tests::{Ended, Tool, Work, env};

    fn run(tool: &str, more: &[&str]) -> Ended {
        let running = Tool::new(tool).arg("--json").args(more).start();
        Work::opens("openat", 13, "/proc/self/status").start().unwrap().run().unwrap();
        Work::new("nap 7 1000").start().unwrap().run().unwrap();
        running.stop().expect(0)
    }

    #[test]
    fn each_line_is_a_record_that_says_what_it_is() {
        for tool in env::tools() {
            for record in run(&tool, &[]).records() {
                let names = record.names();
                assert_eq!(names[..2], ["type", "tool"], "{}", record.line());
                match record.str("type") {
                    "row" | "histogram" => {
                        assert_eq!(names[2], "time", "{}", record.line());
                        let _ = record.micros_of_day();
                    }
                    "stack" | "end" => {}
                    other => panic!("{tool}: a record of type {other}"),
                }
            }
        }
    }

    #[test]
    fn the_end_record_says_what_was_covered() {
        for tool in env::tools() {
            let ended = run(&tool, &[]);
            let end = ended.end();
            assert_eq!(end.0.names()[..6], ["type", "tool", "seconds", "events", "lost", "hooks"]);
            assert!(end.0.num("seconds") > 0.0);
            let hooks = end.0.get("hooks").as_object().unwrap();
            assert!(!hooks.is_empty() && hooks.values().all(|via| via.is_string()), "{}", end.0.line());
            if let Some(forced) = env::probe() {
                assert!(
                    hooks.values().any(|via| *via == *forced),
                    "{forced} was not taken: {}",
                    end.0.line()
                );
            }
            for name in ["ring", "map_full", "unmatched", "unreadable", "truncated"] {
                let _ = end.lost(name);
            }
        }
    }

    #[test]
    fn the_histograms_of_a_run_are_sound() {
        for tool in env::tools() {
            // Ended::histograms() checks each: see Histogram::check().
            for hist in run(&tool, &[]).histograms() {
                assert!(["nsecs", "usecs", "msecs"].contains(&hist.unit.as_str()), "{tool}: {}", hist.unit);
                assert!(hist.seconds > 0.0);
            }
        }
    }

    /// Nothing but records on stdout: no banner, no header, no empty line.
    #[test]
    fn verbose_goes_to_stderr() {
        for tool in env::tools() {
            let ended = run(&tool, &["-v"]);
            assert!(!ended.records().is_empty());
            assert!(!ended.stderr.is_empty(), "{tool} -v says nothing");
        }
    }
}
