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

/// As text for people, as three numbers for wires. Both are read from what tells them apart.
impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        (self.partition, self.offset, self.epoch).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> serde::de::Visitor<'de> for Reading {
    type Value = Position;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position, such as `3-120@0` or [3, 120, 0]")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Position, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, numbers: A) -> Result<Position, A::Error> {
        let numbers = serde::de::value::SeqAccessDeserializer::new(numbers);
        let (partition, offset, epoch) = serde::Deserialize::deserialize(numbers)?;
        Ok(Position { partition, epoch, offset })
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

    #[test]
    fn people_read_text_and_wires_numbers() {
        let position = Position::new(3, 120, 7);
        let json = serde_json::to_string(&position).unwrap();
        assert_eq!(json, r#""3-120@7""#);
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
        let packed = rmp_serde::to_vec_named(&position).unwrap();
        assert_eq!(packed, [0x93, 3, 120, 7]);
        assert_eq!(rmp_serde::from_slice::<Position>(&packed).unwrap(), position);
        let text = rmp_serde::to_vec_named("3-120@7").unwrap();
        assert_eq!(rmp_serde::from_slice::<Position>(&text).unwrap(), position);
        assert!(rmp_serde::from_slice::<Position>(&[0x92, 3, 120]).is_err());
    }
}
