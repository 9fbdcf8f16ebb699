//! What every tracebelt tool shares.

pub mod cgroup;
pub mod child;
pub mod exit;
pub mod proc;
pub mod text;
pub mod tracefs;
