//! The log from outside: what it promises, on disks that fail, lose power and rot.

mod basics;
mod checkpoints;
mod concurrency;
mod corruption;
mod crash;
mod directory;
mod faults;
mod model;
mod support;
