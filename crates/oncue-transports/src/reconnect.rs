//! How long is waited before a broker is tried again.

use std::time::Duration;

use oncue::policy::exponential;

/// The first pause before it is tried to connect again, and the longest.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(4);

/// The pause before the next attempt: longer each time, half of it at random, so that those who lost a broker together do
/// not come back together.
pub(crate) fn pause(attempts: u32) -> Duration {
    exponential().initial(FIRST).max_delay(LONGEST).delay(attempts, fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        assert!(pause(1) <= FIRST && pause(1) >= FIRST / 2);
        for attempts in [12, u32::MAX] {
            assert!(pause(attempts) <= LONGEST && pause(attempts) >= LONGEST / 2);
        }
    }
}
