//! What success, attempts, delay and loss are worth to each other.

use thiserror::Error;

/// What an event's fate is worth, in one unit of your choice: only what they are to each other counts.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Costs {
    /// What it brings if an event is handled.
    pub success: f64,
    /// What an attempt costs.
    pub attempt: f64,
    /// What a second costs that an event waits.
    pub delay_per_s: f64,
    /// What it costs if an event is given up.
    pub loss: f64,
}

impl Default for Costs {
    /// A second of delay costs 1, an attempt as much as a tenth of a second, and an event that is given up as much as an hour.
    fn default() -> Self {
        Self { success: 0.0, attempt: 0.1, delay_per_s: 1.0, loss: 3_600.0 }
    }
}

/// Costs that make no sense, and what would follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum CostsError {
    /// Not a finite number, or below 0.
    #[error("{what} = {value}: give a finite number that is not below 0")]
    NotACost {
        /// Which.
        what: &'static str,
        /// What was given.
        value: f64,
    },
    /// Giving up is cheaper than trying.
    #[error(
        "loss and success are worth {worth} together, and an attempt costs {attempt}: every failure would be a dead letter at \
         once; raise loss, lower attempt, or say never"
    )]
    LossIsCheap {
        /// What is won if an event is handled instead of given up.
        worth: f64,
        /// What an attempt costs.
        attempt: f64,
    },
    /// Attempts cost nothing.
    #[error("attempt = 0: attempts that cost nothing follow one another as fast as they may; give it a cost above 0")]
    AttemptIsFree,
    /// Waiting costs nothing.
    #[error("delay_per_s = 0: an event that waits for nothing waits as long as it may; give it a cost above 0")]
    DelayIsFree,
}

impl CostsError {
    /// Which of the costs to look at.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Self::NotACost { what, .. } => what,
            Self::LossIsCheap { .. } => "loss",
            Self::AttemptIsFree => "attempt",
            Self::DelayIsFree => "delay_per_s",
        }
    }
}

impl Costs {
    /// Whether they make sense.
    ///
    /// # Errors
    /// They do not: what would follow.
    pub fn check(&self) -> Result<(), CostsError> {
        let Self { success, attempt, delay_per_s, loss } = *self;
        let named = [("success", success), ("attempt", attempt), ("delay_per_s", delay_per_s), ("loss", loss)];
        if let Some((what, value)) = named.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            return Err(CostsError::NotACost { what, value });
        }
        if attempt == 0.0 {
            return Err(CostsError::AttemptIsFree);
        }
        if delay_per_s == 0.0 {
            return Err(CostsError::DelayIsFree);
        }
        let worth = loss + success;
        if worth <= attempt { Err(CostsError::LossIsCheap { worth, attempt }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_that_make_no_sense_say_what_follows() {
        let costs = Costs::default();
        assert_eq!(costs.check(), Ok(()));
        let wrong = |costs: Costs| costs.check().unwrap_err().to_string();
        let cheap = wrong(Costs { loss: 0.05, ..costs });
        assert!(cheap.contains("every failure would be a dead letter at once"), "{cheap}");
        assert!(wrong(Costs { attempt: f64::NAN, ..costs }).starts_with("attempt = NaN"));
        assert!(wrong(Costs { loss: -1.0, ..costs }).starts_with("loss = -1"));
        assert!(wrong(Costs { attempt: 0.0, ..costs }).contains("as fast as they may"));
        assert!(wrong(Costs { delay_per_s: 0.0, ..costs }).contains("as long as it may"));
    }
}
