//! Tests that cannot run here say so, where `scripts/test` finds it.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Ends the test that it stands in, and records why it could not run. Only for the machine's lack of
/// something, never for a tool's.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        fn here() {}
        $crate::skip::record(std::any::type_name_of_val(&here), &format!($($why)*));
        return;
    }};
}

/// For `skip!`: `place` is the path of a function inside the test.
pub fn record(place: &str, why: &str) {
    let name = place.trim_end_matches("::here");
    eprintln!("skipped {name}: {why}");
    let Some(file) = std::env::var_os("TRACEBELT_SKIPS") else {
        return;
    };
    let mut file = OpenOptions::new().create(true).append(true).open(&file).expect("TRACEBELT_SKIPS");
    file.write_all(format!("{name}: {}\n", why.replace('\n', " ")).as_bytes()).expect("TRACEBELT_SKIPS");
}
