//! Events whose handler is through with them at its first poll: nothing is remembered of them but that they are being
//! settled. Most are of this kind, and a [`Run`] costs more than all else that is done for them.

use super::{
    Dispatcher,
    invoke::{Ending, Progress, Started, guarded},
    layered,
    run::{Run, RunId},
    settling::Settles,
};
use crate::{
    clock::Timestamp,
    handler::{Invocation, Outcome},
    transport::{Action, Attempt, Delivered, Members, Settlement, Written},
};

impl Dispatcher {
    /// Whether all that is to be done for an event is one call of one handler, which has a place.
    pub(super) fn is_one_call(&self, delivered: &Delivered, now: Timestamp) -> bool {
        let [member] = &self.members[..] else { return false };
        let alone = member.batch.is_none() && !member.keyed;
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
    pub(super) fn call_at_once(&mut self, id: RunId, mut delivered: Delivered, arrived: Timestamp) {
        let (over, mut memory) = self.members[0].take_memory();
        let (callee, read) = (&self.members[0].callee, self.now);
        let number = delivered.attempts_of(0) + 1;
        // It is given away, and taken back in the rarer case.
        let envelope = delivered.envelope;
        let invocation = Invocation::again(over, &callee.binding, envelope, delivered.position, number, None);
        let ending = Ending { run: id, member: 0, read };
        let started = if callee.layers.is_empty() {
            let progress = guarded(callee, &mut memory, &invocation, None);
            self.members[0].memory = memory;
            ending.unless_acked(progress, &invocation)
        } else {
            let progress = layered::begin(callee, &invocation);
            ending.unless_acked(progress, &invocation)
        };
        if let Some(started) = started {
            delivered.envelope = invocation.envelope().clone();
            let mut run = Run::new(delivered, &self.members, arrived);
            run.begin(0);
            self.bytes += run.bytes();
            let kept = self.runs.insert(run);
            debug_assert_eq!(kept, id, "nothing was inserted meanwhile");
            self.members[0].running += 1;
            self.started(started);
            return;
        }
        self.now = self.clock.now();
        let read = invocation.through_at().unwrap_or(read);
        let routed = invocation.routed().map(|choice| Box::new(Written { routed: Some(choice), ..Written::default() }));
        self.outbox.push(Settlement {
            position: delivered.position,
            member: 0,
            action: Action::Ack,
            attempt: Attempt { number, class: None, read, ended: self.now },
            error: None,
            written: routed,
        });
        let (mut key, bytes) = (invocation.envelope().key_hash(), invocation.envelope().encoded_bytes());
        if self.lanes.is_pipelined() {
            self.leave(key.take());
        }
        self.outbox_of.push(Settles::AtOnce { key, bytes });
        self.at_once += 1;
        self.bytes += bytes;
        self.keep(0, Some(invocation));
    }
}

impl Ending {
    /// Nothing, if the call is over with an ack and nothing else; what it becomes otherwise.
    fn unless_acked<T: Into<Option<Outcome>> + 'static>(
        self,
        progress: Progress<T>,
        invocation: &Invocation,
    ) -> Option<Started> {
        let acked = matches!(progress, Progress::Done(Outcome::Ack)) && invocation.is_untouched();
        (!acked).then(|| self.after(progress, invocation.clone()))
    }
}
