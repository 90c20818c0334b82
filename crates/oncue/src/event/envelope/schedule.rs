//! Placeholder until merged.
use super::Envelope;
use crate::clock::Timestamp;
/// x
pub const MAX_PRIORITY: u8 = 9;
impl Envelope {
    /// x
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> { None }
    /// x
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> { None }
    /// x
    #[must_use]
    pub fn priority(&self) -> u8 { 4 }
}
