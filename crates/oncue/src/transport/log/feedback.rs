//! Events that wait for feedback, and feedback that came before what it tells of was handled: both bounded.
//!
//! Time is that of the records: it goes on with each lesson and each feedback of the subscription, so that replay labels the
//! same events by the same feedback.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::lesson::{Waits, decode_features, encode_features};
use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
    filter::{Features, Feedback, FeedbackCounts},
};

/// Most events of a subscription that wait for feedback; the one that would wait no longer than the others goes first, unlabelled.
const MAX_WAITING: usize = 4_096;

/// Most feedback that is remembered for events that are not handled yet: the newest.
const MAX_TOLD: usize = 16_384;

/// What is kept of an event until its feedback tells.
pub(crate) trait Kept: Sized {
    fn encode(&self, out: &mut Writer);
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// What was looked at of it.
impl Kept for Features {
    fn encode(&self, out: &mut Writer) {
        encode_features(self, out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        decode_features(from)
    }
}

/// What was kept of an event, and whether its feedback came; nothing: nobody knows.
pub(crate) type Labelled<K> = (K, Option<bool>);

/// What a subscription knows of feedback.
#[derive(Debug, PartialEq)]
pub(crate) struct Awaiting<K = Features> {
    /// The latest time that a record told.
    now: Timestamp,
    /// By the last moment at which their feedback still counts, and their offset.
    waiting: BTreeMap<(Timestamp, u64), Waiting<K>>,
    /// The same by key.
    by_key: BTreeSet<(u64, Timestamp, u64)>,
    /// When feedback was published, by key and offset.
    told: BTreeMap<(u64, u64), Timestamp>,
    /// Its keys, by offset: in the order in which they are forgotten.
    told_order: VecDeque<(u64, u64)>,
    /// Feedback below this offset may have been forgotten.
    forgotten: u64,
    came: u64,
    stayed_out: u64,
    unknown: u64,
}

#[derive(Debug, PartialEq)]
struct Waiting<K> {
    key: u64,
    /// Feedback of it may have been forgotten before it waited: that none comes says nothing.
    unsure: bool,
    kept: K,
}

impl<K> Default for Awaiting<K> {
    fn default() -> Self {
        Self {
            now: Timestamp::default(),
            waiting: BTreeMap::new(),
            by_key: BTreeSet::new(),
            told: BTreeMap::new(),
            told_order: VecDeque::new(),
            forgotten: 0,
            came: 0,
            stayed_out: 0,
            unknown: 0,
        }
    }
}

impl<K: Kept> Awaiting<K> {
    /// An event was handled, and begins to wait; gives those that are labelled by now.
    pub(crate) fn wait(&mut self, rules: &Feedback, offset: u64, waits: Waits, kept: K) -> Vec<Labelled<K>> {
        let mut labelled = self.go_on_to(waits.ended);
        let until = waits.published.after(rules.within());
        let later = self.told.range((waits.key, offset.saturating_add(1))..=(waits.key, u64::MAX));
        let came = later.into_iter().any(|(_, published)| *published <= until);
        let unsure = offset < self.forgotten;
        if came {
            labelled.push(self.label(kept, Some(true)));
        } else if until < self.now {
            labelled.push(self.label(kept, (!unsure).then_some(false)));
        } else {
            // A dead letter that is handled again waits once.
            self.remove(until, offset);
            self.by_key.insert((waits.key, until, offset));
            self.waiting.insert((until, offset), Waiting { key: waits.key, unsure, kept });
            if self.waiting.len() > MAX_WAITING
                && let Some(((until, offset), _)) = self.waiting.first_key_value()
            {
                let known = self.remove(*until, *offset);
                labelled.extend(known.map(|known| self.label(known.kept, None)));
            }
        }
        labelled
    }

    /// Feedback was published; gives those that are labelled by now.
    pub(crate) fn tell(&mut self, key: u64, offset: u64, published: Timestamp) -> Vec<Labelled<K>> {
        let mut labelled = self.go_on_to(published);
        let of_key = self
            .by_key
            .range((key, Timestamp::from_micros(i64::MIN), 0)..=(key, Timestamp::from_micros(i64::MAX), u64::MAX));
        let before: Vec<_> = of_key.copied().filter(|(.., waiting)| *waiting < offset).collect();
        for (_, until, waiting) in before {
            let known = self.remove(until, waiting);
            labelled.extend(known.map(|known| self.label(known.kept, Some(true))));
        }
        self.told.insert((key, offset), published);
        self.told_order.push_back((offset, key));
        if self.told_order.len() > MAX_TOLD
            && let Some((offset, key)) = self.told_order.pop_front()
        {
            self.told.remove(&(key, offset));
            self.forgotten = self.forgotten.max(offset);
        }
        labelled
    }

    pub(crate) fn counts(&self) -> FeedbackCounts {
        let Self { came, stayed_out, unknown, .. } = *self;
        FeedbackCounts { waiting: self.waiting.len() as u64, came, stayed_out, unknown }
    }

    /// It is this time; gives the events whose feedback stayed out.
    fn go_on_to(&mut self, now: Timestamp) -> Vec<Labelled<K>> {
        self.now = self.now.max(now);
        let mut labelled = Vec::new();
        while let Some((until, offset)) = self.waiting.keys().next().copied().filter(|(until, _)| *until < self.now) {
            let Some(known) = self.remove(until, offset) else { break };
            labelled.push(self.label(known.kept, (!known.unsure).then_some(false)));
        }
        labelled
    }

    fn remove(&mut self, until: Timestamp, offset: u64) -> Option<Waiting<K>> {
        let known = self.waiting.remove(&(until, offset))?;
        self.by_key.remove(&(known.key, until, offset));
        Some(known)
    }

    fn label(&mut self, kept: K, came: Option<bool>) -> Labelled<K> {
        let count = match came {
            Some(true) => &mut self.came,
            Some(false) => &mut self.stayed_out,
            None => &mut self.unknown,
        };
        *count = count.saturating_add(1);
        (kept, came)
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.signed(self.now.as_micros());
        for count in [self.forgotten, self.came, self.stayed_out, self.unknown] {
            out.varint(count);
        }
        out.varint(self.waiting.len() as u64);
        for ((until, offset), Waiting { key, unsure, kept }) in &self.waiting {
            out.signed(until.as_micros());
            out.varint(*offset);
            out.u64(*key);
            out.u8(u8::from(*unsure));
            kept.encode(out);
        }
        out.varint(self.told_order.len() as u64);
        for (offset, key) in &self.told_order {
            out.varint(*offset);
            out.u64(*key);
            out.signed(self.told.get(&(*key, *offset)).copied().unwrap_or_default().as_micros());
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let now = Timestamp::from_micros(from.signed()?);
        let (forgotten, came) = (from.varint()?, from.varint()?);
        let (stayed_out, unknown) = (from.varint()?, from.varint()?);
        let mut state = Self { now, forgotten, came, stayed_out, unknown, ..Self::default() };
        for _ in 0..from.count(12)? {
            let (until, offset) = (Timestamp::from_micros(from.signed()?), from.varint()?);
            let (key, unsure) = (from.u64()?, from.u8()? != 0);
            let waiting = Waiting { key, unsure, kept: K::decode(from)? };
            if state.waiting.insert((until, offset), waiting).is_some() {
                return Err(Malformed("an event waits for feedback twice"));
            }
            state.by_key.insert((key, until, offset));
        }
        for _ in 0..from.count(10)? {
            let (offset, key) = (from.varint()?, from.u64()?);
            if state.told.insert((key, offset), Timestamp::from_micros(from.signed()?)).is_some() {
                return Err(Malformed("feedback is remembered twice"));
            }
            state.told_order.push_back((offset, key));
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::filter::feedback;

    const WITHIN: i64 = 20;

    fn rules() -> Feedback {
        feedback(["told"], Duration::from_micros(WITHIN.cast_unsigned()))
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    /// What is looked at of an event is its offset.
    fn features(offset: u64) -> Features {
        let mut features = Features::default();
        features.number("offset", offset as f64);
        features
    }

    fn offset_of((features, came): &Labelled<Features>) -> (u64, Option<bool>) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was an offset")]
        let offset = features.all()[0].number.unwrap() as u64;
        (offset, *came)
    }

    fn restored(state: &Awaiting) -> Awaiting {
        let mut out = Writer::default();
        state.encode(&mut out);
        let bytes = out.into_bytes();
        let mut from = Reader::new(&bytes);
        let restored = Awaiting::decode(&mut from).unwrap();
        assert!(from.is_empty());
        restored
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// An event of a key is published.
        Event(u64),
        /// Feedback is, of a key.
        Told(u64),
        /// An event that was published and not handled yet is: which of them.
        Handled(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
        let step = prop_oneof![
            (0_u64..4).prop_map(Step::Event),
            (0_u64..4).prop_map(Step::Told),
            (0_usize..8).prop_map(Step::Handled),
        ];
        proptest::collection::vec((0_i64..8, step), 0..80)
    }

    #[derive(Default)]
    struct World {
        now: i64,
        next: u64,
        /// Key, offset, when it was published.
        unhandled: Vec<(u64, u64, i64)>,
        handled: Vec<(u64, u64, i64)>,
        told: Vec<(u64, u64, i64)>,
        labelled: Vec<(u64, Option<bool>)>,
    }

    impl World {
        fn step(&mut self, state: &mut Awaiting, (later, step): (i64, Step)) {
            self.now += later;
            let labelled = match step {
                Step::Event(key) => {
                    self.unhandled.push((key, self.next, self.now));
                    self.next += 1;
                    Vec::new()
                }
                Step::Told(key) => {
                    self.told.push((key, self.next, self.now));
                    self.next += 1;
                    state.tell(key, self.next - 1, at(self.now))
                }
                Step::Handled(_) if self.unhandled.is_empty() => Vec::new(),
                Step::Handled(which) => {
                    let event = self.unhandled.remove(which % self.unhandled.len());
                    self.handled.push(event);
                    let (key, offset, published) = event;
                    let waits = Waits { key, published: at(published), ended: at(self.now) };
                    state.wait(&rules(), offset, waits, features(offset))
                }
            };
            self.labelled.extend(labelled.iter().map(offset_of));
        }
    }

    proptest! {
        #[test]
        fn each_event_is_labelled_once_by_the_first_feedback_behind_it_in_time(steps in steps()) {
            let (mut state, mut world) = (Awaiting::default(), World::default());
            steps.into_iter().for_each(|step| world.step(&mut state, step));
            // The end of time labels all.
            world.step(&mut state, (2 * WITHIN, Step::Told(99)));
            let mut expected: Vec<_> = world.handled.iter().map(|(key, offset, published)| {
                let tells = |(of, at, when): &(u64, u64, i64)| of == key && at > offset && *when <= published + WITHIN;
                (*offset, Some(world.told.iter().any(tells)))
            }).collect();
            expected.sort_unstable();
            world.labelled.sort_unstable();
            prop_assert_eq!(&world.labelled, &expected);
            let counts = state.counts();
            prop_assert_eq!((counts.waiting, counts.unknown), (0, 0));
            prop_assert_eq!(counts.came + counts.stayed_out, expected.len() as u64);
        }

        #[test]
        fn whoever_goes_on_from_what_was_written_labels_the_same(steps in steps(), stop in 0_usize..80) {
            let (mut state, mut world) = (Awaiting::default(), World::default());
            let (mut other, mut beside) = (Awaiting::default(), World::default());
            for (place, step) in steps.into_iter().enumerate() {
                world.step(&mut state, step);
                if place == stop {
                    other = restored(&other);
                }
                beside.step(&mut other, step);
            }
            prop_assert_eq!(&state, &other);
            prop_assert_eq!(world.labelled, beside.labelled);
            prop_assert_eq!(restored(&state), state);
        }
    }

    #[test]
    fn what_finds_no_room_is_labelled_by_nobody() {
        let mut state = Awaiting::<Features>::default();
        let mut labelled = Vec::new();
        for offset in 0..MAX_WAITING as u64 + 3 {
            let published = at(i64::try_from(offset).unwrap() / 1_000);
            labelled.extend(state.wait(
                &rules(),
                offset,
                Waits { key: offset, published, ended: at(5) },
                features(offset),
            ));
        }
        let labelled: Vec<_> = labelled.iter().map(offset_of).collect();
        assert_eq!(labelled, [(0, None), (1, None), (2, None)], "those that would have waited no longer");
        assert_eq!(state.counts().waiting, MAX_WAITING as u64);
    }

    #[test]
    fn where_feedback_was_forgotten_that_none_comes_says_nothing() {
        let mut state = Awaiting::<Features>::default();
        // Offset 0 is an event; feedback of it, and so much of others that the first is forgotten.
        for offset in 1..=MAX_TOLD as u64 + 1 {
            assert!(state.tell(if offset == 1 { 7 } else { offset + 100 }, offset, at(1)).is_empty());
        }
        assert_eq!((state.told.len(), state.told_order.len()), (MAX_TOLD, MAX_TOLD));
        let waits = |key| Waits { key, published: at(0), ended: at(2) };
        assert!(state.wait(&rules(), 0, waits(7), features(0)).is_empty());
        // Later than all that was forgotten.
        assert!(state.wait(&rules(), 1, waits(8), features(1)).is_empty());
        let labelled: Vec<_> = state.tell(9, 90_000, at(WITHIN + 1)).iter().map(offset_of).collect();
        assert_eq!(labelled, [(0, None), (1, Some(false))]);
        assert_eq!(state.counts(), FeedbackCounts { waiting: 0, came: 0, stayed_out: 1, unknown: 1 });
    }
}
