//! How long a broker that failed is left alone.

use std::time::Duration;

use crate::{clock::Clock, policy::exponential};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Each longer than the one before, up to a bound; half of it at random, so that those who lost a broker together do not
/// come back together.
#[derive(Default)]
pub(super) struct Pause {
    failures: u32,
}

impl Pause {
    pub(super) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        exponential().initial(FIRST).max_delay(LONGEST).delay(self.failures, fastrand::f64())
    }

    pub(super) async fn sleep(&mut self, clock: &Clock) {
        clock.sleep(self.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_differ() {
        let mut pause = Pause::default();
        let pauses: Vec<_> = (0..12).map(|_| pause.next()).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST), "{pauses:?}");
        assert!(pauses[11] >= LONGEST / 2, "{pauses:?}");
    }
}
