//! Cgroups that I/O can be charged to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use common::cgroup::{self, Tree};
use common::exit::{Kind, fault};
use common::kernel::Kernel;
use common::text::escape;

/// The ids of the groups of `-c`. I/O is charged to the nearest group that has the io controller, so one that does
/// not have it would never be seen.
///
/// # Errors
/// A group is not there, or has no io controller; the kernel charges nobody.
pub fn resolve(kernel: &Kernel, given: &[PathBuf], by_cgroup: bool) -> Result<Vec<u64>> {
    if (by_cgroup || !given.is_empty()) && !kernel.has_member("bio", "bi_blkg") {
        let what =
            "this kernel charges I/O to no cgroup (CONFIG_BLK_CGROUP): leave out --cgroup and --by cgroup";
        return Err(fault(Kind::Unsupported, what));
    }
    if by_cgroup && !Tree::v2()?.iter().any(|tree| has_io(tree.top())) {
        return Err(without_controller("the top group", Path::new("")));
    }
    let mut ids = Vec::new();
    for path in given {
        let group = cgroup::resolve(path)?;
        if !has_io(&group.path) {
            return Err(without_controller(&escape(group.shown.as_bytes()), &group.path));
        }
        ids.push(group.id);
    }
    Ok(ids)
}

fn has_io(dir: &Path) -> bool {
    let list = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    list.split_whitespace().any(|controller| controller == "io")
}

fn without_controller(group: &str, dir: &Path) -> anyhow::Error {
    let cure = match dir.parent().map(|above| above.join("cgroup.subtree_control")) {
        Some(file) if file.exists() => format!("echo +io > {}", escape(file.as_os_str().as_encoded_bytes())),
        _ => "mount it in cgroup v2, not v1 (grep blkio /proc/mounts)".to_owned(),
    };
    fault(
        Kind::Failed,
        format!("{group} has no io controller, so its I/O is charged to a group above it: {cure}"),
    )
}
