//! What a product could do wrong. With each of these flaws, random programs break the law that forbids it: so each law can
//! fail, and the programs go where it counts.

use oncue::{
    Envelope, Timestamp,
    handler::{OnDeadLetter, Order, Ordered},
    transport::{
        Action, Attempt, Control, ControlError, Delivered, Position, Resolution, Settlement, Start, SubscriptionSpec,
    },
};

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Each event is handed out twice.
    Twice,
    /// The first event of what is handed out is lost.
    Loses,
    /// It is acked, and never handled.
    Presumes,
    /// Attempts are not counted.
    Countless,
    /// Events come without their keys.
    Keyless,
    /// Events are said to stand where others stand.
    Displaced,
    /// The last event comes first.
    Reversed,
    /// Acks are not written.
    Forgets,
    /// Keyed states are not written.
    Stateless,
    /// Emitted events are not written.
    Mute,
    /// Emitted events are written twice.
    Stutters,
    /// Order within keys is relaxed.
    Lax,
    /// Dead letters hold nothing.
    LetsGo,
    /// Events come in the order in which they were published.
    Unranked,
    /// Subscriptions are made though they were there, or said to have been there though they were not.
    MakesAnew,
    MadeBefore,
    /// What cannot be done is said to be done.
    Pretends,
    /// Whatever is to begin anew begins with the first event.
    Rewinds,
    /// An edited event comes as it was.
    Unedited,
    /// A handler does not wait for the one before it.
    Unlinked,
    /// Filters leave nothing out.
    Unfiltered,
    /// A batch has one event too many.
    Crammed,
    /// There is one call too many at once.
    Crowded,
    /// An event comes before its time.
    Hasty,
    /// An event comes although its time is over.
    Everlasting,
    /// What is paused goes on.
    Unpaused,
    /// What is being stopped goes on.
    Unstopped,
    /// A shutdown waits for nothing.
    Abrupt,
    /// What is durable is so later than it is said.
    Volatile,
    /// What is closed cannot be opened.
    Closed,
}

/// Each flaw, and how the laws that it breaks say so.
pub(super) const FLAWS: [(Flaw, &[&str]); 30] = [
    (Flaw::Twice, &["is called twice at once", "again: Track"]),
    (Flaw::Loses, &["it never ends"]),
    (Flaw::Presumes, &["Some(Acked) Track { calls: 0"]),
    (Flaw::Countless, &["as attempt 1: Track"]),
    (Flaw::Keyless, &[", of one key"]),
    (Flaw::Displaced, &["stands at two positions"]),
    (Flaw::Reversed, &["in a wrong order", ", of one key: Track { calls: 0"]),
    (Flaw::Forgets, &[": None, and Track"]),
    (Flaw::Stateless, &["keeps [], and has acked"]),
    (Flaw::Mute, &["was emitted, and is lost"]),
    (Flaw::Stutters, &["was emitted twice"]),
    (Flaw::Lax, &["is not settled, of one key"]),
    (Flaw::LetsGo, &["holds their key"]),
    (Flaw::Unranked, &["waits and is before it"]),
    (Flaw::MakesAnew, &["was forgotten"]),
    (Flaw::MadeBefore, &["was not forgotten"]),
    (Flaw::Pretends, &["begins anew while it is served", "is removed while it is served"]),
    (Flaw::Rewinds, &["although it began after it"]),
    (Flaw::Unedited, &["as another edited it"]),
    (Flaw::Unlinked, &[" before s"]),
    (Flaw::Unfiltered, &["which it does not want", "is not said to take"]),
    (Flaw::Crammed, &["has a batch of"]),
    (Flaw::Crowded, &["runs more than"]),
    (Flaw::Hasty, &["before its time"]),
    (Flaw::Everlasting, &["although it is expired"]),
    (Flaw::Unpaused, &["although nobody serves it"]),
    (Flaw::Unstopped, &["while it is being stopped"]),
    (Flaw::Abrupt, &["is cancelled with"]),
    (Flaw::Volatile, &["and is None"]),
    (Flaw::Closed, &["cannot open", "cannot join"]),
];

/// In what a transport is told, and says.
impl Flaw {
    pub(super) fn in_spec(self, spec: &mut SubscriptionSpec) {
        match self {
            Self::Lax => spec.ordered = Ordered::Relaxed,
            Self::Unranked => spec.order = Order::Fifo,
            Self::Unfiltered => spec.members.iter_mut().for_each(|member| member.filter = None),
            Self::LetsGo => {
                spec.members.iter_mut().for_each(|member| member.on_dead_letter = OnDeadLetter::Continue);
            }
            _ => {}
        }
    }

    pub(super) fn in_created(self, created: &mut [Option<u64>]) {
        match self {
            Self::MakesAnew => created.fill(Some(0)),
            Self::MadeBefore => created.fill(None),
            _ => {}
        }
    }

    pub(super) fn in_control(self, control: &mut Control) {
        match control {
            Control::Reset(start) if self == Self::Rewinds => *start = Start::Earliest,
            Control::Resolve(letters) if self == Self::Unedited => {
                letters.iter_mut().for_each(|(_, resolution)| *resolution = Resolution::Redrive);
            }
            _ => {}
        }
    }

    pub(super) fn in_controlled(self, done: &mut Result<(), ControlError>) {
        if self == Self::Pretends && matches!(done, Err(ControlError::Served(_))) {
            *done = Ok(());
        }
    }
}

/// In what a transport hands out and is given back.
impl Flaw {
    /// Spoils what was handed out after `before`. Gives what is settled here and now.
    pub(super) fn in_delivered(self, before: usize, out: &mut Vec<Delivered>) -> Vec<Settlement> {
        match self {
            Self::Twice => out.extend_from_within(before..),
            Self::Loses if out.len() > before => drop(out.remove(before)),
            Self::Presumes if out.len() > before => return acked(&out.remove(before)),
            Self::Reversed => out[before..].reverse(),
            Self::Countless => out[before..].iter_mut().for_each(|event| event.attempts.clear()),
            Self::Keyless => out[before..].iter_mut().for_each(|event| event.envelope = keyless(&event.envelope)),
            Self::Displaced => out[before..].iter_mut().for_each(|event| {
                event.position = Position::new(event.position.partition(), event.position.offset() + 1, 0);
            }),
            _ => {}
        }
        Vec::new()
    }

    pub(super) fn in_settled(self, batch: &mut Vec<Settlement>) {
        if self == Self::Forgets {
            batch.retain(|settlement| settlement.action != Action::Ack);
        }
        for written in batch.iter_mut().filter_map(|settlement| settlement.written.as_mut()) {
            match self {
                Self::Stateless => written.state = None,
                Self::Mute => written.emits.clear(),
                Self::Stutters => written.emits.extend_from_within(..),
                _ => {}
            }
        }
    }
}

fn acked(event: &Delivered) -> Vec<Settlement> {
    let attempt = Attempt { number: 1, class: None, read: Timestamp::default(), ended: Timestamp::default() };
    let ack = |member| Settlement {
        position: event.position,
        member,
        action: Action::Ack,
        attempt,
        error: None,
        written: None,
    };
    (0..64).filter(|member| event.due.contains(usize::from(*member))).map(ack).collect()
}

fn keyless(event: &Envelope) -> Envelope {
    Envelope::builder(event.event_type()).data(event.data().clone()).build().unwrap()
}
