//! Disks and partitions: what a user calls one, and what a device number is called.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use common::exit::{Kind, fault};
use common::text::escape;

const BY_NUMBER: &str = "/sys/dev/block";

/// A device number as the kernel has it in a `dev_t`.
fn kernel_dev(major: u64, minor: u64) -> u32 {
    (major as u32) << 20 | minor as u32
}

/// A disk, or the part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub name: String,
    pub is_part: bool,
    /// Of the whole disk, as requests have it.
    pub dev: u32,
    pub first: u64,
    pub last: u64,
    /// It has no requests: a driver that takes bios, as dm, md and zram do.
    pub takes_bios: bool,
    /// What it stands on.
    pub below: Vec<String>,
}

/// The device of `-d`: `vda`, `/dev/vda1`, `8:1`, a link to one.
///
/// # Errors
/// [`Kind::Failed`]: it is not there; those that are.
pub fn resolve(given: &Path) -> Result<Disk> {
    let missing = || {
        let shown = escape(given.as_os_str().as_encoded_bytes()).into_owned();
        let mut names: Vec<String> = all().into_values().collect();
        names.sort();
        fault(Kind::Failed, format!("no disk '{shown}' here: there are {}", names.join(", ")))
    };
    let number = number_of(given).ok_or_else(missing)?;
    let dir = Path::new(BY_NUMBER).join(&number).canonicalize().map_err(|_| missing())?;
    let is_part = dir.join("partition").exists();
    let whole = if is_part { dir.parent().ok_or_else(missing)? } else { &dir };
    let sectors = |file: &str| -> Option<u64> { read(&dir.join(file))?.parse().ok() };
    let (first, last) = match (is_part, sectors("start"), sectors("size")) {
        (true, Some(start), Some(size)) => (start, start + size.saturating_sub(1)),
        _ => (0, u64::MAX),
    };
    let dev = number_at(whole).ok_or_else(missing)?;
    let below = fs::read_dir(whole.join("slaves")).into_iter().flatten().flatten();
    Ok(Disk {
        name: name_of(&dir).ok_or_else(missing)?,
        is_part,
        dev,
        first,
        last,
        takes_bios: !whole.join("mq").exists(),
        below: below.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
    })
}

/// Is there a disk that takes requests and hands them on to others? dm multipath is one.
pub fn have_stacked_requests() -> bool {
    let mut all = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.path());
    all.any(|dir| {
        let below = fs::read_dir(dir.join("slaves")).into_iter().flatten().count();
        dir.join("mq").exists() && below > 0
    })
}

/// "8:1"
fn number_of(given: &Path) -> Option<String> {
    if let Some((major, minor)) = given.to_str().and_then(parse) {
        return Some(format!("{major}:{minor}"));
    }
    let of_class = |name: &Path| {
        let name = name.to_str()?.replace('/', "!");
        read(&Path::new("/sys/class/block").join(name).join("dev"))
    };
    // A name first: a file of that name in the current directory is not meant.
    if let Some(number) = given.strip_prefix("/dev").ok().or(Some(given)).and_then(of_class) {
        return Some(number);
    }
    let places = [given.to_owned(), Path::new("/dev").join(given)];
    let found =
        places.iter().filter_map(|path| fs::metadata(path).ok()).find(|m| m.file_type().is_block_device())?;
    let dev = found.rdev();
    Some(format!("{}:{}", nix::sys::stat::major(dev), nix::sys::stat::minor(dev)))
}

fn parse(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end().to_owned())
}

/// sysfs has `!` where a name has a slash.
fn name_of(dir: &Path) -> Option<String> {
    Some(dir.file_name()?.to_str()?.replace('!', "/"))
}

/// Of a folder of sysfs.
pub fn number_at(dir: &Path) -> Option<u32> {
    let (major, minor) = parse(&read(&dir.join("dev"))?)?;
    Some(kernel_dev(major, minor))
}

/// A request without a disk is one of a driver that looks for disks.
fn number(dev: u32) -> String {
    if dev == 0 { "?".to_owned() } else { format!("{}:{}", dev >> 20, dev & 0xf_ffff) }
}

fn all() -> HashMap<u32, String> {
    let entries = fs::read_dir(BY_NUMBER).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let (major, minor) = parse(entry.file_name().to_str()?)?;
        let target: PathBuf = fs::read_link(entry.path()).ok()?;
        Some((kernel_dev(major, minor), name_of(&target)?))
    });
    named.collect()
}

/// Names by device number. A disk that is pulled out keeps the one it had.
pub struct Names(HashMap<u32, String>);

impl Names {
    pub fn new() -> Names {
        Names(all())
    }

    /// Looks for devices that are new. One that cannot be found is not looked for again.
    pub fn learn(&mut self, devs: impl Iterator<Item = u32>) {
        let new: Vec<u32> = devs.filter(|dev| *dev != 0 && !self.0.contains_key(dev)).collect();
        if new.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.0, all());
        let numbers = new.into_iter().map(|dev| (dev, number(dev)));
        for (dev, name) in before.into_iter().chain(numbers) {
            self.0.entry(dev).or_insert(name);
        }
    }

    pub fn show(&self, dev: u32) -> String {
        self.0.get(&dev).cloned().unwrap_or_else(|| number(dev))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_named() {
        for given in ["no-such-disk", "/etc/hostname", "/dev/null", "9999:1", "", "8:", "."] {
            let error = resolve(Path::new(given)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("no disk '{given}' here: there are ")), "{error}");
        }
    }

    #[test]
    fn every_way_to_call_a_disk_finds_it() {
        let Some((dev, name)) = all().into_iter().next() else {
            return; // none here
        };
        let number = format!("{}:{}", dev >> 20, dev & 0xf_ffff);
        let found = resolve(Path::new(&name)).unwrap();
        assert_eq!(found.name, name);
        assert_eq!(resolve(Path::new(&number)).unwrap(), found);
        assert_eq!(resolve(&Path::new("/dev").join(&name)).unwrap(), found);
    }

    #[test]
    fn a_number_without_a_name_stays_one() {
        let names = Names(HashMap::new());
        assert_eq!((names.show(8 << 20 | 1), names.show(0)), ("8:1".into(), "?".into()));
    }
}
