//! Stacks for the tools that show them: names for addresses, folded lines, flame graphs.
//!
//! A crate of its own, not a part of `common`: only tools with stacks build and link blazesym and inferno,
//! whatever else is built with them. (A cargo feature of `common` would be on for all tools as soon as
//! one of them asks for it in the same build.)
//!
//! The way of a stack: [`Symbols::note`] when its process is first seen; [`Symbols::kernel`] and
//! [`Symbols::user`] for all stacks of a process at once; [`trim`] for the tracer's own frames; then
//! [`fold::Line`], [`block`] or [`labels`]. [`Early`] counts user stacks for which frame pointers were
//! missing.

mod block;
mod cfi;
mod demangle;
mod early;
mod elf;
mod files;
#[cfg(feature = "flamegraph")]
pub mod flame;
pub mod fold;
mod frame;
mod identity;
mod jit;
mod kernel;
mod maps;
mod process;
mod progress;
mod reader;
mod rules;
mod search;
mod symbols;
mod top;
mod trim;
mod unwind;
mod vdso;

pub use block::{Style, block, labels};
pub use early::{Early, ended_early};
pub use frame::{Frame, Inlined, Named, Place, Space};
pub use symbols::{Options, Symbols};
pub use top::Top;
pub use trim::trim;
