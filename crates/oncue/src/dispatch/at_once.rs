//! Events whose handler is through with them at its first poll: nothing is remembered of them but that they are being
//! settled. Most are of this kind, and a [`Run`] costs more than all else that is done for them.

use super::{
    Dispatcher,
    invoke::{Ended, Events, Finished, Prepared, Started},
    run::{Run, RunId},
};
use crate::{
    clock::Timestamp,
    handler::Outcome,
    transport::{Action, Attempt, Delivered, Members, Settlement},
};

/// Whose settlement it is.
pub(super) enum Settles {
    Run(RunId),
    /// Of an event that was through at once.
    AtOnce {
        key: Option<u64>,
        bytes: usize,
    },
}

impl Dispatcher {
    /// Whether all that is to be done for an event is one call of one handler, which has a place.
    pub(super) fn is_one_call(&self, delivered: &Delivered, now: Timestamp) -> bool {
        let [member] = &self.members[..] else { return false };
        let alone = member.batch.is_none() && !member.keyed && member.callee.layers.is_empty();
        let Delivered { envelope, due, done, dead, copies, .. } = delivered;
        let first = *due == Members::first(1) && done.is_empty() && dead.is_empty() && copies.is_empty();
        alone
            && first
            && member.has_place()
            && self.work.is_empty()
            && envelope.expires().is_none_or(|expires| expires > now)
    }

    /// Calls the handler. If it is not through at once, or anything but an ack follows, the event becomes a run: the one
    /// that `id` is kept for.
    pub(super) fn call_at_once(&mut self, id: RunId, delivered: Delivered, arrived: Timestamp) {
        let over = self.members[0].over.take();
        let called = Prepared { run: id, index: 0, member: &self.members[0], delivered: &delivered, read: self.now };
        match called.start(over, None) {
            Started::Ended(Ended { finished: Events::One(finished), .. }) if finished.is_plain_ack() => {
                let Finished { read, over, .. } = finished;
                self.keep(0, over);
                self.now = self.clock.now();
                let number = delivered.attempts_of(0) + 1;
                self.outbox.push(Settlement {
                    position: delivered.position,
                    member: 0,
                    action: Action::Ack,
                    attempt: Attempt { number, class: None, read, ended: self.now },
                    error: None,
                    written: None,
                });
                let (key, bytes) = (delivered.envelope.key_hash(), delivered.envelope.encoded_bytes());
                self.outbox_of.push(Settles::AtOnce { key, bytes });
                self.at_once += 1;
                self.bytes += bytes;
            }
            started => {
                let mut run = Run::new(delivered, &self.members, arrived);
                run.begin(0);
                self.bytes += run.bytes();
                let kept = self.runs.insert(run);
                debug_assert_eq!(kept, id, "nothing was inserted meanwhile");
                self.members[0].running += 1;
                self.started(started);
            }
        }
    }
}

impl Finished {
    /// Nothing follows but the acknowledgement.
    fn is_plain_ack(&self) -> bool {
        self.outcome == Outcome::Ack && self.effects.is_none()
    }
}
