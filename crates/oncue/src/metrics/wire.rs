//! Numbers in few bytes: LEB128 varints, as Protocol Buffers write them.

use thiserror::Error;

/// Stored statistics that cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early.
    #[error("stored statistics end too early")]
    Short,
    /// A newer Oncue wrote them.
    #[error("stored statistics have layout {0}, which this version does not know; a newer Oncue wrote them")]
    Layout(u8),
    /// A number is larger than its field.
    #[error("stored statistics hold a number that is too large for its field")]
    Number,
    /// The buckets contradict each other or the counts.
    #[error("stored statistics are damaged: buckets and counts contradict each other")]
    Histogram,
    /// Something follows them.
    #[error("stored statistics are followed by {0} bytes that do not belong to them")]
    Trailing(usize),
}

/// Appends a number, 7 bits a byte, lowest first.
pub(super) fn put(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Takes a number off the front.
pub(super) fn take(input: &mut &[u8]) -> Result<u128, DecodeError> {
    let mut number: u128 = 0;
    let mut shift = 0;
    loop {
        let (byte, rest) = input.split_first().ok_or(DecodeError::Short)?;
        *input = rest;
        let bits = u128::from(byte & 0x7f);
        if shift >= u128::BITS || (bits << shift) >> shift != bits {
            return Err(DecodeError::Number);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
        shift += 7;
    }
}

/// Takes a number of 64 bits off the front.
pub(super) fn take_u64(input: &mut &[u8]) -> Result<u64, DecodeError> {
    u64::try_from(take(input)?).map_err(|_| DecodeError::Number)
}

/// Appends a signed number, small ones of either sign in few bytes.
pub(super) fn put_i64(out: &mut Vec<u8>, number: i64) {
    put(out, u128::from(((number << 1) ^ (number >> 63)).cast_unsigned()));
}

/// Takes a signed number off the front.
pub(super) fn take_i64(input: &mut &[u8]) -> Result<i64, DecodeError> {
    let number = take_u64(input)?;
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_go_there_and_back(unsigned in any::<u128>(), signed in any::<i64>()) {
            let mut out = Vec::new();
            put(&mut out, unsigned);
            put_i64(&mut out, signed);
            let mut input = out.as_slice();
            prop_assert_eq!((take(&mut input), take_i64(&mut input)), (Ok(unsigned), Ok(signed)));
            prop_assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_too_large_or_too_short_is_refused() {
        assert_eq!(take(&mut [0xff; 30].as_slice()), Err(DecodeError::Number));
        assert_eq!(take(&mut [0x80].as_slice()), Err(DecodeError::Short));
        assert_eq!(take_u64(&mut [[0xff; 9].as_slice(), &[0x02]].concat().as_slice()), Err(DecodeError::Number));
    }
}
