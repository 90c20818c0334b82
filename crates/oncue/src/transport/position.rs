//! Where an event stands in a topic.

use std::{fmt, str::FromStr};

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

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no position: write it as it was printed, such as `3-120@0`");
        let (partition, rest) = text.split_once('-').ok_or_else(wrong)?;
        let (offset, epoch) = rest.split_once('@').unwrap_or((rest, "0"));
        let parsed = (partition.parse().ok(), offset.parse().ok(), epoch.parse().ok());
        let (Some(partition), Some(offset), Some(epoch)) = parsed else { return Err(wrong()) };
        Ok(Self::new(partition, offset, epoch))
    }
}

impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        let position = Position::new(3, 120, 7);
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!("3-120".parse(), Ok(Position::new(3, 120, 0)));
        assert!("somewhere".parse::<Position>().is_err());
    }
}
