//! What every tracebelt tool shares. A library, not a framework: a tool opens, loads and attaches its own
//! programs and owns its loop; what is the same in all of them, by policy, is here.
//! `docs/ARCHITECTURE.md` has the map.

pub mod cgroup;
pub mod child;
pub mod cli;
pub mod clock;
pub mod coverage;
pub mod docs;
pub mod events;
pub mod exit;
pub mod filter;
pub mod hist;
pub mod hook;
pub mod kernel;
pub mod maps;
pub mod object;
pub mod out;
pub mod privilege;
pub mod proc;
pub mod ring;
pub mod span;
pub mod start;
pub mod table;
pub mod text;
pub mod tick;
pub mod tracefs;
