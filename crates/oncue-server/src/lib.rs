//! What the binary `oncue` is made of: its [command line](cli), and the [order system](orders) that `oncue demo orders`
//! runs.

pub mod cli;
mod columns;
mod number;
pub mod orders;
