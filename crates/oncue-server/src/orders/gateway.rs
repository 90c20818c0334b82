//! A payment gateway that is not there: it fails as often as it is told to, and always at the same calls.

use std::fmt;

use oncue::policy::ErrorClass;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The share of failures that are final.
const FINAL: f64 = 0.2;

/// The simulated gateway. Its answer depends on seed, order and attempt alone, so that a call that is repeated after a
/// crash has the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    failures: f64,
    seed: u64,
}

/// Why the gateway did not take the payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GatewayError {
    /// May go well the next time.
    #[error("the payment gateway does not answer")]
    Unreachable,
    /// Will be refused every time.
    #[error("the card is refused")]
    Refused,
}

impl GatewayError {
    /// What the retry policy is told.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable => ErrorClass::Transient,
            Self::Refused => ErrorClass::Permanent,
        }
    }
}

impl Gateway {
    /// A gateway of which the share `failures` (0 to 1) of calls fails.
    #[must_use]
    pub fn new(failures: f64, seed: u64) -> Self {
        Self { failures, seed }
    }

    /// Takes a payment.
    ///
    /// # Errors
    /// It failed, for now or for good.
    pub fn charge(&self, order_id: &str, total_cents: u64, attempt: u32) -> Result<(), GatewayError> {
        tracing::trace!(order_id, total_cents, attempt, "charging");
        let call = xxh3_64_with_seed(order_id.as_bytes(), self.seed.rotate_left(32) ^ u64::from(attempt));
        // Two independent halves of the hash, each uniform in [0, 1).
        let uniform = |bits: u32| f64::from(bits) / 2_f64.powi(32);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let (fails, is_final) = (uniform((call >> 32) as u32), uniform(call as u32));
        if fails >= self.failures {
            return Ok(());
        }
        Err(if is_final < FINAL { GatewayError::Refused } else { GatewayError::Unreachable })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--gateway-failures {} --seed {}", self.failures, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(gateway: Gateway, attempt: u32) -> (usize, usize) {
        let answers = (0..10_000).map(|order| gateway.charge(&format!("o-{order}"), 1, attempt));
        let errors: Vec<_> = answers.filter_map(Result::err).collect();
        (errors.len(), errors.iter().filter(|error| **error == GatewayError::Refused).count())
    }

    #[test]
    fn fails_as_often_as_it_is_told_to() {
        assert_eq!(failed(Gateway::new(0.0, 1), 1), (0, 0));
        assert_eq!(failed(Gateway::new(1.0, 1), 1).0, 10_000);
        for attempt in 1..5 {
            let (all, refused) = failed(Gateway::new(0.2, 1), attempt);
            assert!((1_850..2_150).contains(&all), "{all} of 10,000 calls failed");
            assert!((330..470).contains(&refused), "{refused} of 10,000 calls failed for good");
        }
    }

    #[test]
    fn the_same_call_has_the_same_answer_and_another_attempt_its_own() {
        let gateway = Gateway::new(0.5, 7);
        let answers = |attempt| (0..64).map(|order| gateway.charge(&order.to_string(), 1, attempt)).collect::<Vec<_>>();
        assert_eq!(answers(1), answers(1));
        assert_ne!(answers(1), answers(2));
    }
}
