//! What is known of an example: numbers and categories by name, hashed into a fixed space (Weinberger et al., *Feature
//! Hashing for Large Scale Multitask Learning*, ICML 2009). The sign is hashed too, so that collisions cancel on average.

/// The space has 2 to this power slots.
pub const BITS: u32 = 14;

/// Features that an example has at most; those beyond are left out.
pub const MAX_FEATURES: usize = 256;

/// One feature, hashed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feature {
    /// Where it stands, below 2^[`BITS`].
    pub slot: u32,
    /// Whether its value is taken negative.
    pub negative: bool,
    /// The number that it has, always finite; nothing for a category, which counts 1.
    pub number: Option<f64>,
}

/// All features of an example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    features: Vec<Feature>,
}

impl Features {
    /// A quantity. One that is not finite is a category of its own: "no number".
    pub fn number(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.add(hash(&[name.as_bytes()]), Some(value));
        } else {
            self.category(name, "\0no number");
        }
    }

    /// One of several values that have no order.
    pub fn category(&mut self, name: &str, value: &str) {
        self.add(hash(&[name.as_bytes(), value.as_bytes()]), None);
    }

    /// A feature that was hashed before; false if its slot is outside of the space, its number is none, or there are
    /// [`MAX_FEATURES`] already.
    pub fn push(&mut self, feature: Feature) -> bool {
        let fits =
            feature.slot < 1 << BITS && feature.number.is_none_or(f64::is_finite) && self.features.len() < MAX_FEATURES;
        if fits {
            self.features.push(feature);
        }
        fits
    }

    /// In the order in which they were said.
    #[must_use]
    pub fn all(&self) -> &[Feature] {
        &self.features
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are what is wanted")]
    fn add(&mut self, hash: u64, number: Option<f64>) {
        self.push(Feature { slot: hash as u32 & ((1 << BITS) - 1), negative: hash >> 63 == 1, number });
    }
}

/// A hash that is the same everywhere and for ever: FNV-1a over the parts, each with its length, and the mixing of
/// `MurmurHash3`.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        (part.len() as u64).to_le_bytes().iter().for_each(|byte| eat(*byte));
        part.iter().for_each(|byte| eat(*byte));
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_feature_stands_never_changes() {
        // States that were written name slots: another hash would be another model.
        assert_eq!(hash(&[b"cents"]), 0xec56_6c47_2843_b28e);
        assert_eq!(hash(&[b"method", b"voucher"]), 0x8fe9_4a65_079a_d7cf);
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"ab"]), hash(&[b"ab", b""]));
    }

    #[test]
    fn slots_and_signs_are_spread_evenly() {
        let mut all = Vec::new();
        for number in 0..20_000 {
            let mut features = Features::default();
            features.category("x", &number.to_string());
            all.push(features.all()[0]);
        }
        let negative = all.iter().filter(|feature| feature.negative).count();
        assert!((9_700..10_300).contains(&negative), "{negative}");
        // Chi-square of 64 equal parts: 63 degrees of freedom, so 63 ± 5 standard deviations of √126.
        let mut parts = [0_f64; 64];
        all.iter().for_each(|feature| parts[(feature.slot >> (BITS - 6)) as usize] += 1.0);
        let expected = 20_000.0 / 64.0;
        let chi: f64 = parts.iter().map(|seen| (seen - expected).powi(2) / expected).sum();
        assert!((63.0 - 56.0..63.0 + 56.0).contains(&chi), "{chi}");
    }

    #[test]
    fn what_is_no_number_is_a_category() {
        let mut features = Features::default();
        features.number("age", f64::NAN);
        features.number("age", f64::INFINITY);
        assert_eq!(features.all()[0].number, None);
        assert_eq!(features.all()[0], features.all()[1]);
        assert!(!features.push(Feature { slot: 1, negative: false, number: Some(f64::NAN) }));
        assert!(!features.push(Feature { slot: 1 << BITS, negative: false, number: None }));
    }

    #[test]
    fn there_is_an_end_to_what_an_example_has() {
        let mut features = Features::default();
        (0..1_000).for_each(|number| features.number(&number.to_string(), 1.0));
        assert_eq!(features.all().len(), MAX_FEATURES);
    }
}
