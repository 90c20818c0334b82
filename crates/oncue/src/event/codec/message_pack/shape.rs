//! Whether bytes are one value of `MessagePack`, from its first byte to its last.
//!
//! Source: <https://github.com/msgpack/msgpack/blob/master/spec.md>.

use thiserror::Error;

/// Most arrays and maps within one another that [`MessagePack`](super::MessagePack) reads: as many as JSON.
pub const MAX_DEPTH: usize = 128;

/// Bytes that are no value of `MessagePack`.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The value goes on behind the last byte.
    #[error("ends too early, at byte {0}")]
    TooShort(usize),
    /// Something stands behind the value.
    #[error("a second value at byte {0}: data is one value")]
    TooLong(usize),
    /// The one marker that the specification never uses.
    #[error("marker 0xc1 at byte {0}: no value begins with it")]
    Reserved(usize),
    /// Too many arrays and maps within one another.
    #[error("nested more than {MAX_DEPTH} deep at byte {0}")]
    TooDeep(usize),
}

/// Walks over the value without building anything of it.
pub(super) fn check(data: &[u8]) -> Result<(), Malformed> {
    let mut rest = data;
    let at = |rest: &[u8]| data.len() - rest.len();
    // How many values are left in each array or map that is open; a map of n has 2n.
    let mut left = [0_u64; MAX_DEPTH];
    let mut depth = 0;
    loop {
        let start = at(rest);
        let Some(Item { bytes, values }) = item(&mut rest) else {
            let reserved = data.get(start) == Some(&0xc1);
            return Err(if reserved { Malformed::Reserved(start) } else { Malformed::TooShort(data.len()) });
        };
        let skipped = usize::try_from(bytes).ok().and_then(|bytes| rest.get(bytes..));
        rest = skipped.ok_or(Malformed::TooShort(data.len()))?;
        if values > 0 {
            *left.get_mut(depth).ok_or(Malformed::TooDeep(start))? = values;
            depth += 1;
            continue;
        }
        // A value is complete, and with it all that it was the last of.
        while depth > 0 {
            left[depth - 1] -= 1;
            if left[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return if rest.is_empty() { Ok(()) } else { Err(Malformed::TooLong(at(rest))) };
        }
    }
}

/// What follows a marker and its length: so many bytes, then so many values.
struct Item {
    bytes: u64,
    values: u64,
}

/// Takes a marker and its length; nothing if they are cut off, or the marker is the reserved one.
fn item(rest: &mut &[u8]) -> Option<Item> {
    let marker = number(rest, 1)?;
    let power = |from: u64| 1 << (marker - from);
    let (bytes, values) = match marker {
        0x80..=0x8f => (0, 2 * (marker & 0x0f)),
        0x90..=0x9f => (0, marker & 0x0f),
        0xa0..=0xbf => (marker & 0x1f, 0),
        0xc1 => return None,
        // Binary, text and extensions (whose type is one more byte) with a length of 1, 2 or 4 bytes.
        0xc4..=0xc6 => (number(rest, power(0xc4))?, 0),
        0xc7..=0xc9 => (number(rest, power(0xc7))? + 1, 0),
        0xd9..=0xdb => (number(rest, power(0xd9))?, 0),
        // Numbers.
        0xca => (4, 0),
        0xcb => (8, 0),
        0xcc..=0xcf => (power(0xcc), 0),
        0xd0..=0xd3 => (power(0xd0), 0),
        // Extensions of a fixed length.
        0xd4..=0xd8 => (power(0xd4) + 1, 0),
        // Arrays and maps with a length of 2 or 4 bytes.
        0xdc | 0xdd => (0, number(rest, 2 * power(0xdc))?),
        0xde | 0xdf => (0, 2 * number(rest, 2 * power(0xde))?),
        // Small numbers, nil, booleans.
        _ => (0, 0),
    };
    Some(Item { bytes, values })
}

/// Takes a big-endian number of at most 4 bytes.
fn number(rest: &mut &[u8], bytes: u64) -> Option<u64> {
    let (number, after) = rest.split_at_checked(usize::try_from(bytes).ok()?)?;
    *rest = after;
    Some(number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize as _, de::IgnoredAny};

    use super::*;

    /// What the library says: one value, and nothing behind it.
    fn is_one_value(data: &[u8]) -> bool {
        let mut reader = rmp_serde::Deserializer::new(data);
        IgnoredAny::deserialize(&mut reader).is_ok() && reader.get_ref().is_empty()
    }

    /// Bytes that are more often markers of lengths, arrays and maps than chance has it.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte =
            prop_oneof![3 => 0x80_u8..=0x94, 2 => 0xa0_u8..=0xa4, 3 => 0xc0_u8..=0xdf, 2 => 0_u8..=4, 1 => any::<u8>()];
        proptest::collection::vec(byte, 0..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn it_agrees_with_the_library_on_what_is_one_value(data in bytes()) {
            prop_assert_eq!(check(&data).is_ok(), is_one_value(&data), "{:?}: {:?}", data, check(&data));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert_eq!(check(&[]), Err(Malformed::TooShort(0)));
        assert_eq!(check(&[0x92, 1]), Err(Malformed::TooShort(2)));
        assert_eq!(check(&[0xdb, 0xff, 0xff, 0xff, 0xff, b'x']), Err(Malformed::TooShort(6)));
        assert_eq!(check(&[0xdf, 0xff, 0xff, 0xff, 0xff]), Err(Malformed::TooShort(5)));
        assert_eq!(check(&[0x91, 1, 2]), Err(Malformed::TooLong(2)));
        assert_eq!(check(&[0x91, 0xc1]), Err(Malformed::Reserved(1)));
    }

    #[test]
    fn depth_has_a_limit() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(Malformed::TooDeep(MAX_DEPTH)));
        assert_eq!(check(&nested(1 << 20)), Err(Malformed::TooDeep(MAX_DEPTH)));
    }
}
