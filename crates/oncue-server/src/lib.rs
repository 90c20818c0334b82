//! What the binary `oncue` is made of: its [command line](cli), the [order system](orders) that `oncue demo orders`
//! runs, and the [mirror] that moves topics from one transport to another.

pub mod cli;
mod columns;
pub mod mirror;
mod number;
pub mod orders;
