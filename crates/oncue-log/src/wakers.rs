//! Who waits for a frame.

use std::task::Waker;

/// Wakers that are woken together. Polling again does not add up: the last waker replaces itself, and when the list has
/// doubled, what is in it twice is dropped.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    list: Vec<Waker>,
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 64;

impl Wakers {
    pub(crate) fn add(&mut self, waker: &Waker) {
        if self.list.last().is_some_and(|last| last.will_wake(waker)) {
            return;
        }
        if self.list.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.list.sort_unstable_by_key(|waker| waker.data() as usize);
            self.list.dedup_by(|one, other| one.will_wake(other));
            self.sweep_at = 2 * self.list.len();
        }
        self.list.push(waker.clone());
    }

    /// Moves everyone over.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.list.is_empty() {
            std::mem::swap(&mut self.list, &mut other.list);
        } else {
            self.list.append(&mut other.list);
        }
        self.sweep_at = 0;
        other.sweep_at = 0;
    }

    /// Moves everyone into `list`, to be woken once no lock is held; the capacities trade places.
    pub(crate) fn take(&mut self, list: &mut Vec<Waker>) {
        if list.is_empty() {
            std::mem::swap(&mut self.list, list);
        } else {
            list.append(&mut self.list);
        }
        self.sweep_at = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn polling_again_and_again_does_not_grow_the_list() {
        let wakers: Vec<Waker> = (0..20).map(|_| Waker::from(Arc::new(Nobody))).collect();
        let mut waiting = Wakers::default();
        for round in 0..10_000 {
            waiting.add(&wakers[round % wakers.len()]);
        }
        assert!(waiting.list.len() <= FIRST_SWEEP);
        for waker in &wakers {
            assert!(waiting.list.iter().any(|kept| kept.will_wake(waker)));
        }
    }
}
