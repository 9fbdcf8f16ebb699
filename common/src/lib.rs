//! What every tracebelt tool shares.

pub mod cgroup;
pub mod exit;
pub mod proc;
pub mod text;
