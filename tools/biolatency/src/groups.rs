//! Cgroups that I/O can be charged to.

use std::fs;
use std::path::Path;

use anyhow::Result;
use common::cgroup::{Cgroup, Tree};
use common::exit::{Kind, fault};
use common::kernel::Kernel;
use common::text::escape;

/// Of the groups of `-c`. I/O is charged to the nearest group that has the io controller, so one that does not have it
/// would never be seen.
///
/// # Errors
/// A group has no io controller; the kernel charges nobody.
pub fn check(kernel: &Kernel, groups: &[Cgroup], by_cgroup: bool) -> Result<()> {
    if (by_cgroup || !groups.is_empty()) && !kernel.has_member("bio", "bi_blkg") {
        let what =
            "this kernel charges I/O to no cgroup (CONFIG_BLK_CGROUP): leave out --cgroup and --by cgroup";
        return Err(fault(Kind::Unsupported, what));
    }
    if by_cgroup && !Tree::v2()?.iter().any(|tree| has_io(tree.top())) {
        return Err(without_controller("the top group", Path::new("")));
    }
    match groups.iter().find(|group| !has_io(&group.path)) {
        Some(group) => Err(without_controller(&escape(group.shown.as_bytes()), &group.path)),
        None => Ok(()),
    }
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
