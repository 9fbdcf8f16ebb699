//! Disks whose latency and faults are known: made by the kernel's own modules, so in guests only.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{module, run};
use crate::{env, eventually};

/// Ends a test that is not in a guest.
#[macro_export]
macro_rules! in_guests_only {
    () => {
        if !$crate::env::is_tcg() {
            $crate::skip!("it changes the machine's disks: for guests only");
        }
    };
}

/// A module that is taken out again, with its disks.
pub struct Module(&'static str);

impl Module {
    /// # Errors
    /// This kernel has no such module, or it does not take them; why.
    pub fn load(name: &'static str, parameters: &str) -> Result<Module, String> {
        let _ = run("modprobe", &format!("-r {name}"));
        module(name, parameters).map(|()| Module(name))
    }

    /// Does it know this parameter? One that it does not know is no error: the kernel only says so in its log.
    #[must_use]
    pub fn has(&self, parameter: &str) -> bool {
        Path::new("/sys/module").join(self.0).join("parameters").join(parameter).exists()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        eventually(env::patience(), || run("modprobe", &format!("-r {}", self.0)).ok());
    }
}

/// One disk that answers after a time of choice (`completion_nsec`), with `irqmode=2`.
///
/// # Errors
/// This kernel has none; why.
pub fn null_blk(parameters: &str) -> Result<(Module, String), String> {
    let loaded = Module::load("null_blk", &format!("nr_devices=1 queue_mode=2 gb=1 bs=512 {parameters}"))?;
    Ok((loaded, "nullb0".to_owned()))
}

/// Several of them, each with settings of its own: `NAME=VALUE`, as in its folder of configfs.
pub struct NullDisks {
    dirs: Vec<PathBuf>,
    _module: Module,
}

impl NullDisks {
    /// Disks nullb0, nullb1, ...
    ///
    /// # Errors
    /// The kernel has no such module, no configfs, or takes a setting not; why.
    pub fn new(settings: &[String]) -> Result<NullDisks, String> {
        let module = Module::load("null_blk", "nr_devices=0")?;
        let all = Path::new("/sys/kernel/config/nullb");
        if !all.exists() {
            run("mount", "-t configfs configfs /sys/kernel/config")?;
        }
        let mut disks = NullDisks { dirs: Vec::new(), _module: module };
        for (i, settings) in settings.iter().enumerate() {
            // Later kernels call the disk as its folder, earlier ones by its number: let both be the same.
            let dir = all.join(format!("nullb{i}"));
            fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            disks.dirs.push(dir.clone());
            for setting in settings.split_whitespace().chain(["power=1"]) {
                let (name, value) = setting.split_once('=').ok_or(setting)?;
                let file = dir.join(name);
                fs::write(&file, value).map_err(|e| format!("{} {value}: {e}", file.display()))?;
            }
        }
        Ok(disks)
    }
}

impl Drop for NullDisks {
    fn drop(&mut self) {
        for dir in self.dirs.iter().rev() {
            let _ = fs::write(dir.join("power"), "0");
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Where scsi_debug's faults are set while it runs.
const SCSI_DEBUG: &str = "/sys/bus/pseudo/drivers/scsi_debug";

/// A SCSI disk in memory, once it has been scanned.
///
/// # Errors
/// This kernel has none; why.
pub fn scsi_debug(parameters: &str) -> Result<(Module, String), String> {
    module("sd_mod", "")?; // what udev would do
    let loaded = Module::load("scsi_debug", &format!("dev_size_mb=16 {parameters}"))?;
    let disk = eventually(env::patience(), || {
        fs::read_dir("/sys/block").unwrap().flatten().find_map(|entry| {
            let model = fs::read_to_string(entry.path().join("device/model")).ok()?;
            model.starts_with("scsi_debug").then(|| entry.file_name().into_string().unwrap())
        })
    });
    let disk = disk.ok_or("scsi_debug brings no disk")?;
    eventually(env::patience(), || PathBuf::from(format!("/dev/{disk}")).exists().then_some(()));
    Ok((loaded, disk))
}

/// Faults in every so many commands; taken back on drop.
pub struct Faults;

impl Faults {
    /// `opts` says which: 4 commands that never end, 16 aborted ones, 128 reads and writes that never end.
    ///
    /// # Errors
    /// This kernel's scsi_debug cannot do that.
    pub fn every(nth: u32, opts: u32) -> Result<Faults, String> {
        let faults = Faults;
        for (name, value) in [("every_nth", nth), ("opts", opts)] {
            let file = Path::new(SCSI_DEBUG).join(name);
            fs::write(&file, value.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        Ok(faults)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _ = fs::write(Path::new(SCSI_DEBUG).join("opts"), "0");
        let _ = fs::write(Path::new(SCSI_DEBUG).join("every_nth"), "0");
    }
}
