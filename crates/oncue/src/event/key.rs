//! From a key to its partition, the same on every transport.

/// Kafka's murmur2 (seed `0x9747b28c`), as its Java client's default partitioner computes it.
///
/// Source: `org.apache.kafka.common.utils.Utils.murmur2`.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    const SEED: u32 = 0x9747_b28c;
    #[expect(clippy::cast_possible_truncation, reason = "the reference algorithm takes the length modulo 2^32")]
    let mut hash: u32 = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `key` among `partitions`: `(murmur2(key) & 0x7fffffff) mod partitions`; 0 for events without a key.
#[must_use]
pub fn partition_of(key: Option<&str>, partitions: u16) -> u16 {
    let Some(key) = key else { return 0 };
    let bucket = (murmur2(key.as_bytes()) & 0x7fff_ffff) % u32::from(partitions.max(1));
    u16::try_from(bucket).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn agrees_with_kafkas_own_test_vectors() {
        for (text, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
    }

    #[test]
    fn no_key_and_no_partitions_are_partition_zero() {
        assert_eq!(partition_of(None, 16), 0);
        assert_eq!(partition_of(Some("x"), 0), 0);
    }
}
