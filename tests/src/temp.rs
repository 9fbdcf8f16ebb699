//! Folders that vanish with the test.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that no other test, here or in another process, uses at the same time.
#[must_use]
pub fn unique(what: &str) -> String {
    format!("tracebelt-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new folder that everybody may enter; removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> TempDir {
        // Resolved: what a tool says of the files in it has no symbolic link.
        let parent = std::env::temp_dir().canonicalize().unwrap();
        let dir = parent.join(unique("test"));
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        TempDir(dir)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where NAME would be, as text.
    #[must_use]
    pub fn join(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().unwrap()
    }

    /// A file that everybody may read. `name` is any bytes but `/` and NUL.
    pub fn file(&self, name: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(OsStr::from_bytes(name.as_ref()));
        fs::write(&path, "x").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// Such a file whose path is text.
    pub fn plain(&self, name: &str) -> String {
        self.file(name).into_os_string().into_string().unwrap()
    }

    /// A folder within, and those above it.
    pub fn dir(&self, name: &str) -> String {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
