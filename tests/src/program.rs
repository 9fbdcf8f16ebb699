//! Programs in C whose functions have known names: `programs/*.c`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TempDir;

/// Compiles one to a file in `dir`, with frame pointers, as a distribution does that cares.
///
/// # Errors
/// There is no C compiler.
#[track_caller]
pub fn compile(name: &str, dir: &TempDir) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(format!("{name}.c"));
    let path = dir.path().join(name);
    let mut command = Command::new("cc");
    command.args(["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-o"]);
    command.arg(&path).arg(&source);
    let status = command.status().map_err(|error| format!("no C compiler (cc): {error}"))?;
    assert!(status.success(), "{command:?}");
    Ok(path)
}
