//! What carries a topic.

mod position;

pub use position::Position;
