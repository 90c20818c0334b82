//! States as bytes: a version, then numbers, little endian.

use thiserror::Error;

/// The version of states that this crate writes.
pub const STATE_VERSION: u8 = 1;

/// Bytes that are no state.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum StateError {
    /// Another version of this crate wrote it.
    #[error("the state of the model has version {found}, and this version reads {STATE_VERSION}: let it learn anew")]
    Version {
        /// The version it has.
        found: u8,
    },
    /// It is something else, or damaged.
    #[error("the state of the model is damaged: {0}")]
    Malformed(&'static str),
}

#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// With the version in front.
    pub(crate) fn with_version() -> Self {
        Self(vec![STATE_VERSION])
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    pub(crate) fn all(&mut self, values: &[f64]) {
        values.iter().for_each(|value| self.f64(*value));
    }
}

/// Reads what [`Writer`] wrote. Never panics, whatever the bytes.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    /// Behind the version.
    pub(crate) fn new(bytes: &[u8]) -> Result<Reader<'_>, StateError> {
        match bytes.split_first() {
            Some((&STATE_VERSION, rest)) => Ok(Reader(rest)),
            Some((&found, _)) => Err(StateError::Version { found }),
            None => Err(StateError::Malformed("it is empty")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(StateError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, StateError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number that is one.
    pub(crate) fn f64(&mut self) -> Result<f64, StateError> {
        let value = f64::from_bits(self.u64()?);
        if value.is_finite() { Ok(value) } else { Err(StateError::Malformed("a number is not finite")) }
    }

    /// A number that counts, or is a sum of squares.
    pub(crate) fn not_negative(&mut self) -> Result<f64, StateError> {
        let value = self.f64()?;
        if value >= 0.0 { Ok(value) } else { Err(StateError::Malformed("a count is negative")) }
    }

    pub(crate) fn fill(&mut self, values: &mut [f64]) -> Result<(), StateError> {
        for value in values {
            *value = self.f64()?;
        }
        Ok(())
    }

    /// How many items follow, of so many bytes each at least: a damaged count allocates nothing.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, StateError> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count.saturating_mul(item_bytes) > self.0.len() {
            return Err(StateError::Malformed("a count is larger than what follows"));
        }
        Ok(count)
    }

    pub(crate) fn end(&self) -> Result<(), StateError> {
        if self.0.is_empty() { Ok(()) } else { Err(StateError::Malformed("something follows its end")) }
    }
}
