//! The cases, grouped by what they are about.

pub mod batches;
pub mod disturbed;
pub mod envelope;
pub mod failure;
pub mod filter;
pub mod flow;
pub mod graph;
pub mod groups;
pub mod health;
pub mod kill;
pub mod lifecycle;
pub mod order;
pub mod outcome;
pub mod parallel;
pub mod publish;
pub mod redrive;
pub mod replay;
pub mod restart;
pub mod run_time;
pub mod schedule;
pub mod secured;
pub mod size;
pub mod state;
