//! The token buckets: the generic cell rate algorithm (GCRA, ITU-T I.371), which needs one time per bucket.

use std::{collections::BTreeSet, ops::Bound, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::number_map::NumberMap;

/// How fast calls may pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) calls: u32,
    pub(super) per: Duration,
    pub(super) burst: u32,
}

/// Between two calls at the full rate. Rounded up: rather slower than faster.
pub(super) fn interval(calls: u32, per: Duration) -> Duration {
    match u128::from(calls) {
        0 => Duration::MAX,
        calls => Duration::from_nanos_u128(per.as_nanos().div_ceil(calls)),
    }
}

/// What passed, per key.
#[derive(Debug)]
pub(super) struct Buckets {
    interval: Duration,
    /// How far a bucket may be ahead of time: the burst, less the call itself.
    ahead: Duration,
    most: usize,
    by_key: NumberMap<Bucket>,
    /// The keys by the time when their bucket is full again, and so like a new one.
    by_time: BTreeSet<(Duration, u64)>,
}

#[derive(Debug)]
struct Bucket {
    /// When the next call is due if all come at the full rate: the algorithm's theoretical arrival time.
    due: Duration,
    /// Held by the call that waits for the time; the others wait for it.
    turn: Arc<Semaphore>,
}

impl Buckets {
    /// No more than `most` buckets at once.
    pub(super) fn new(rate: Rate, most: usize) -> Self {
        let interval = interval(rate.calls, rate.per);
        let ahead = interval.saturating_mul(rate.burst.saturating_sub(1));
        Self { interval, ahead, most, by_key: NumberMap::default(), by_time: BTreeSet::new() }
    }

    /// Where calls of the key wait for each other. As long as somebody has it, the bucket stays.
    ///
    /// # Errors
    /// No bucket is free: how long to wait before asking again.
    pub(super) fn turn(&mut self, key: u64, now: Duration) -> Result<Arc<Semaphore>, Duration> {
        if let Some(bucket) = self.by_key.get(&key) {
            return Ok(Arc::clone(&bucket.turn));
        }
        // Two for one: so what is not needed any more goes sooner than it comes.
        for _ in 0..2 {
            self.forget_one(now);
        }
        if self.by_key.len() >= self.most {
            let later = (Bound::Excluded((now, u64::MAX)), Bound::Unbounded);
            let next = self.by_time.range(later).next().map(|(due, _)| *due - now);
            return Err(next.unwrap_or(self.interval));
        }
        let turn = Arc::new(Semaphore::new(1));
        self.by_key.insert(key, Bucket { due: now, turn: Arc::clone(&turn) });
        self.by_time.insert((now, key));
        Ok(turn)
    }

    /// Forgets a bucket that is full and that nobody waits for.
    fn forget_one(&mut self, now: Duration) {
        let unused = |key: &u64| self.by_key.get(key).is_none_or(|bucket| Arc::strong_count(&bucket.turn) == 1);
        let full = self.by_time.range(..=(now, u64::MAX)).find(|(_, key)| unused(key)).copied();
        if let Some(entry) = full {
            self.by_time.remove(&entry);
            self.by_key.remove(&entry.1);
        }
    }

    /// Lets a call pass, if it may.
    ///
    /// # Errors
    /// Not yet: how long to wait.
    pub(super) fn take(&mut self, key: u64, now: Duration) -> Result<(), Duration> {
        let Some(bucket) = self.by_key.get_mut(&key) else { return Ok(()) };
        let due = bucket.due.max(now);
        let wait = (due - now).saturating_sub(self.ahead);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.by_time.remove(&(bucket.due, key));
        bucket.due = due.saturating_add(self.interval);
        self.by_time.insert((bucket.due, key));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_key.len(), self.by_time.len());
        self.by_key.len()
    }
}
