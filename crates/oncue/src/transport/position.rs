//! Where an event stands in a topic.

use std::fmt;

/// Where an event stands in a topic. Opaque: compare, print and hand back, nothing else.
///
/// Two positions can be ordered only within one partition, which is what [`PartialOrd`] does. The epoch tells apart
/// what a transport may have to number again: a broker's re-created stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    partition: u16,
    epoch: u32,
    offset: u64,
}

impl Position {
    /// Made by transports.
    #[must_use]
    pub const fn new(partition: u16, offset: u64, epoch: u32) -> Self {
        Self { partition, epoch, offset }
    }

    /// For transports.
    #[must_use]
    pub const fn partition(self) -> u16 {
        self.partition
    }

    /// For transports.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// For transports.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.epoch
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self.partition == other.partition).then(|| (self.epoch, self.offset).cmp(&(other.epoch, other.offset)))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}@{}", self.partition, self.offset, self.epoch)
    }
}
