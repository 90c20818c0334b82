//! Where an event stands with the members of a subscription.

use super::{Shared, consumer::Core};
use crate::{
    clock::Timestamp,
    event::Envelope,
    transport::{Members, settle::copy_of},
};

/// When it is asked where an event stands.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// Before it is handed out: what is expired or early by now is not.
    Now(Timestamp),
    /// When it was settled: its own time had come when it was handed out, and a member that is to try again waits for that,
    /// be its time come or not.
    Settled,
}

/// Where an event stands with the members of a subscription.
pub(super) struct Standing {
    pub(super) due: Members,
    pub(super) done: Members,
    pub(super) dead: Members,
    pub(super) attempts: Vec<(u8, u32)>,
    /// The earliest time that is not there yet at which it is to be handed out: a retry, or its own.
    pub(super) retry_at: Option<Timestamp>,
    /// A dead letter holds the key.
    pub(super) held: bool,
}

impl Core {
    /// How an event stands with each member. Members that do not want it are through with it here and now, and so are
    /// those that it comes too late for.
    pub(super) fn standing(
        &self,
        shared: &mut Shared,
        (offset, envelope, copies): (u64, &Envelope, &[(u8, Envelope)]),
        when: When,
    ) -> Standing {
        let mut standing = Standing {
            due: Members::NONE,
            done: Members::NONE,
            dead: Members::NONE,
            attempts: Vec::new(),
            retry_at: None,
            held: false,
        };
        for (member, (number, spec)) in self.numbers.iter().zip(&self.spec.members).enumerate() {
            let state = &mut shared.state.subscriptions[*number as usize];
            let again = state.redriven.contains_key(&offset);
            let envelope = copy_of(copies, member).unwrap_or(envelope);
            if let Some(dead) = state.dead.get(&offset) {
                standing.dead.insert(member);
                standing.held |= dead.hold;
            } else if !again && state.settled.contains(offset) {
                standing.done.insert(member);
            } else if !again && !spec.matches(envelope) {
                state.settled.insert(offset);
                standing.done.insert(member);
            } else if when.is_too_late_for(envelope) {
                state.expire(offset);
                standing.done.insert(member);
                shared.tell((*number, offset));
            } else if let Some(failing) = state.failing.get(&offset) {
                standing.attempts.push((u8::try_from(member).unwrap_or(u8::MAX), failing.attempts));
                standing.wait(member, Some(failing.due).filter(|due| when.is_before(*due)));
            } else {
                standing.wait(member, envelope.due().filter(|due| when.is_early_for(*due)));
            }
        }
        standing
    }
}

impl When {
    fn is_too_late_for(self, envelope: &Envelope) -> bool {
        matches!(self, Self::Now(now) if envelope.expires().is_some_and(|expires| expires <= now))
    }

    fn is_before(self, retry: Timestamp) -> bool {
        match self {
            Self::Now(now) => retry > now,
            Self::Settled => true,
        }
    }

    fn is_early_for(self, due: Timestamp) -> bool {
        matches!(self, Self::Now(now) if due > now)
    }
}

impl Standing {
    /// A member is to handle the event, now or at a time.
    fn wait(&mut self, member: usize, until: Option<Timestamp>) {
        match until {
            None => self.due.insert(member),
            Some(at) => self.retry_at = Some(self.retry_at.map_or(at, |known| known.min(at))),
        }
    }
}
