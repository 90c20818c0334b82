//! What is looked at when nothing moves, and after a crash.

use oncue::transport::{Settled, Transport as _};

use super::{
    filters::LeftOut,
    known::{Model, Number, subscription_of},
};

impl Model {
    /// Everything that ended is durable, and as it ended.
    pub(super) fn at_rest(&mut self) {
        self.epoch += 1;
        let mut broken = Vec::new();
        let settled: Vec<_> = self.tracks.keys().map(|key| (*key, self.settled(key.0, key.1))).collect();
        for ((subscription, number), settled) in settled {
            let is_passed_by = self.is_passed_by(subscription, number);
            let Some(track) = self.tracks.get_mut(&(subscription, number)) else { continue };
            track.durable = true;
            if !track.doubtful {
                track.durable_attempts = track.attempts;
            }
            let is_as_known = match &settled {
                Some(Settled::Acked) => track.acked || track.discarded || is_passed_by,
                Some(Settled::DeadLettered { .. }) => track.dead,
                Some(Settled::Expired) => !track.acked && !track.dead,
                Some(Settled::Skipped) => !track.acked && !track.dead,
                Some(Settled::Missed) => false,
                None => !track.acked && !track.dead && !track.discarded,
            };
            if !is_as_known {
                broken.push(format!("s{subscription} and {number}: {settled:?}, and {track:?}"));
            }
            if settled == Some(Settled::Expired) || is_passed_by {
                track.open = false;
            }
        }
        for what in broken {
            self.broken(&what);
        }
    }

    /// Everything starts anew: what was durable must be there, and of the rest what is there counts. `in_doubt`: a dead
    /// letter that may have been resolved.
    pub(super) fn after_crash(&mut self, in_doubt: Option<(usize, Number)>) {
        self.look_at_filters();
        self.look_for_reset();
        let mut broken = Vec::new();
        let settled: Vec<_> = self.tracks.keys().map(|key| (*key, self.settled(key.0, key.1))).collect();
        for (key, settled) in settled {
            let settled = settled.filter(|_| in_doubt == Some(key) || !self.is_passed_by(key.0, key.1));
            let Some(track) = self.tracks.get_mut(&key) else { continue };
            let before = track.clone();
            let doubtful = in_doubt == Some(key);
            if doubtful && track.dead {
                (track.attempts, track.durable_attempts) = (0, 0);
                (track.exempt, track.open) = (track.exempt || !track.holds, false);
            }
            track.edit_in_doubt |= doubtful;
            track.redriven |= doubtful;
            track.running = false;
            track.doubtful |= !before.durable;
            track.acked = settled == Some(Settled::Acked) && (track.acked || !track.discarded && !doubtful);
            track.discarded = settled == Some(Settled::Acked) && !track.acked;
            track.dead = matches!(settled, Some(Settled::DeadLettered { .. }));
            // A failure that is durable keeps its key, others are forgotten.
            let fails = track.open && before.durable && (!before.running || before.durable_attempts > 0);
            track.open = if track.dead { track.holds } else { fails && settled.is_none() };
            let kept = before.acked == track.acked && before.dead == track.dead && before.discarded == track.discarded;
            if before.durable && !kept && !doubtful {
                broken.push(format!("{key:?} was {before:?} and is {settled:?}"));
            }
        }
        for what in broken {
            self.broken(&what);
        }
        let tracks = &self.tracks;
        for (subscription, served) in self.served.iter_mut().enumerate() {
            let generation = served.generation;
            for kept in served.kept.values_mut() {
                let is_acked = |number| tracks.get(&(subscription, number)).is_some_and(|track| track.acked);
                kept.retain(|(number, of)| *of < generation || is_acked(*number));
            }
        }
    }

    /// Those that are not served have the filters that the log says.
    fn look_at_filters(&mut self) {
        let Some(transport) = &self.transport else { return };
        for info in transport.inspect().subscriptions() {
            self.served[subscription_of(&info.id)].left_out = LeftOut::of(info.filter.as_ref());
        }
    }

    /// A subscription was beginning anew when the power went: whether it did.
    fn look_for_reset(&mut self) {
        let Some((which, Some(from))) = self.anew.take() else {
            return;
        };
        let mut began = false;
        for (number, known) in &self.events {
            let Some(position) = known.position.filter(|_| self.takes_type(which, *number)) else { continue };
            let settled = self.settled(which, *number);
            began |= match self.tracks.get(&(which, *number)) {
                Some(track) if track.dead => !matches!(settled, Some(Settled::DeadLettered { .. })),
                Some(track) if track.acked || track.discarded => settled.is_none(),
                _ => {
                    let passes = position.offset() < from;
                    passes != self.is_passed(which, *number) && passes == self.is_before_all(which, *number)
                }
            };
        }
        if began {
            self.forget(which, Some(from));
            // It is served already, and passes by again what its filter leaves out.
            if self.served[which].instances > 0 {
                self.pass_by(which);
            }
            return;
        }
        // Perhaps there was nothing that it changed but attempts and edits.
        for track in self.of(which) {
            (track.durable_attempts, track.doubtful, track.open, track.edit_in_doubt) = (0, true, false, true);
        }
    }

    /// What must have been emitted.
    pub(super) fn must_be_emitted(&self) -> Vec<Number> {
        let now = self.tracks.values().filter(|track| track.acked).filter_map(|track| track.emitted);
        now.chain(self.emitted.iter().copied()).collect()
    }
}
