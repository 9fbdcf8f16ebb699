//! biolatency against fio's own account, on a loop device under each scheduler.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use tracebelt_tests::disk::{Loop, assert_all, set};
    use tracebelt_tests::fio::Fio;
    use tracebelt_tests::latency::{biolatency, count, hist_records};
    use tracebelt_tests::{Ended, Record, env, skip};

    /// A disk that nobody else looks at, and that merges nothing: each I/O of fio is a request.
    fn disk(scheduler: &str) -> Result<(Loop, std::fs::File), String> {
        let disk = Loop::new(16)?;
        disk.schedule(scheduler)?;
        set(disk.name(), "nomerges", "2")?;
        let lock = disk.lock()?;
        Ok((disk, lock))
    }

    /// In an emulated machine each takes milliseconds.
    fn number(real: u64) -> u64 {
        if env::is_tcg() { real / 5 } else { real }
    }

    #[track_caller]
    fn assert_counts(ended: &Ended, done: &[(&str, u64)]) {
        let hists = ended.histograms();
        let spans = if ended.line.contains("--split") { 2 } else { 1 };
        for (op, times) in done {
            assert!(*times > 0, "fio has done no {op}");
            assert_all(count(&hists, "op", op) / spans, ended, *times);
        }
        assert_eq!(hists.len() as u64, done.len() as u64 * spans, "{}", ended.story());
        assert_all(ended.end().events(), ended, done.iter().map(|(_, times)| times).sum());
    }

    fn record<'a>(ended: &'a Ended, op: &str) -> &'a Record {
        hist_records(ended).find(|record| record.get("key")["op"] == op).unwrap()
    }

    /// Ends with why it cannot run here.
    fn reads_and_writes(scheduler: &str) -> Result<(), String> {
        let (disk, _lock) = disk(scheduler)?;
        let modes = ["--by op -Q", "--by op --split", "--by op"];
        let tools = modes.map(|args| biolatency(disk.path(), args).start());
        let options = format!("--rw=randrw --rwmixread=60 --numjobs=4 --number_ios={}", number(1009));
        let fio = Fio::run(&disk.device, &options)?;
        let tools = tools.map(|tool| tool.stop().expect(0));
        for ended in &tools {
            assert_counts(ended, &[("Read", fio.total("read")), ("Write", fio.total("write"))]);
        }
        // What fio waits for is the total and the way to the block layer and back.
        for (op, theirs) in [("Read", "read"), ("Write", "write")] {
            let ours = record(&tools[0], op);
            for (name, percentile) in [("p50", 50), ("p99", 99)] {
                let (total, clat) = (ours.num(name), fio.clat(theirs, percentile));
                eprintln!(
                    "{scheduler} {op} {name}: {total:.1} us of fio's {clat:.1}, {:.1} above the block layer",
                    clat - total
                );
                // Percentiles are of buckets, ours a sixteenth wide.
                assert!(total < clat * 1.07, "{scheduler} {op} {name}: {total} of {clat}");
                if !env::is_tcg() && !env::is_busy() && name == "p50" {
                    assert!(total > 0.2 * clat, "{scheduler} {op} {name}: {total} of {clat}");
                }
            }
        }
        Ok(())
    }

    /// One thread: flushes that come together are one.
    fn flushes(scheduler: &str) -> Result<(), String> {
        let (disk, _lock) = disk(scheduler)?;
        let tools = ["--by op", "--by op -Q"].map(|args| biolatency(disk.path(), args).start());
        let fio = Fio::run(&disk.device, &format!("--rw=randwrite --fsync=7 --number_ios={}", number(503)))?;
        for tool in tools {
            let done = [("Write", fio.total("write")), ("Flush", fio.total("sync"))];
            assert_counts(&tool.stop().expect(0), &done);
        }
        Ok(())
    }

    fn discards(scheduler: &str) -> Result<(), String> {
        let (disk, _lock) = disk(scheduler)?;
        let file = format!("/sys/block/{}/queue/discard_max_bytes", disk.name());
        if std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?.trim() == "0" {
            return Err(format!("{} discards nothing: the file system below has no holes", disk.name()));
        }
        let tools = ["--by op", "--by op -Q"].map(|args| biolatency(disk.path(), args).start());
        let fio = Fio::run(&disk.device, &format!("--rw=randtrim --number_ios={}", number(211)))?;
        for tool in tools {
            assert_counts(&tool.stop().expect(0), &[("Discard", fio.total("trim"))]);
        }
        Ok(())
    }

    /// A test for each, so that it is told apart which could not run.
    macro_rules! under {
        ($($name:ident: $what:ident($scheduler:literal);)*) => {$(
            #[test]
            fn $name() {
                if let Err(why) = $what($scheduler) {
                    skip!("{why}");
                }
            }
        )*};
    }

    under! {
        reads_and_writes_under_none: reads_and_writes("none");
        reads_and_writes_under_mq_deadline: reads_and_writes("mq-deadline");
        reads_and_writes_under_bfq: reads_and_writes("bfq");
        flushes_under_none: flushes("none");
        flushes_under_mq_deadline: flushes("mq-deadline");
        flushes_under_bfq: flushes("bfq");
        discards_under_none: discards("none");
        discards_under_mq_deadline: discards("mq-deadline");
        discards_under_bfq: discards("bfq");
    }
}
