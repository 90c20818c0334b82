//! What a topic has in one stream: all of its partitions, in one order, an event's following from its key; or one of them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use oncue::{
    Envelope,
    clock::Timestamp,
    event::partition_of,
    transport::{
        Position, Published,
        broker::{BrokerError, Extent},
    },
};
use parking_lot::Mutex;
use tokio::sync::watch;
use xxhash_rust::xxh3::Xxh3;

use super::{
    Coming as _, Division, From, Mark, Stored as _, Stream,
    extents::Extents,
    window::{AtOnce, EVENT_BYTES, Windows},
};

/// Events that are kept as they come, for whoever keeps up; and their bytes: of all parts of a topic.
const RECENT_EVENTS: usize = 4096;
const RECENT_BYTES: usize = 16 << 20;
/// What was published twice is recognised among so many events of so long.
const WINDOW_EVENTS: usize = 100_000;
const WINDOW: Duration = Duration::from_secs(120);
/// However many parts there are, each keeps so much.
const LEAST_EVENTS: usize = 256;
const LEAST_BYTES: usize = 1 << 20;
/// How far clocks may be apart.
const CLOCKS_APART: Duration = Duration::from_secs(60);
/// How long is waited for the first message of a stream that may be empty. If it comes later, more is read.
const LAST_WITHIN: Duration = Duration::from_millis(100);

pub(super) struct Part<S> {
    topic: String,
    partitions: u16,
    stream: Arc<S>,
    seen: Arc<Mutex<Seen>>,
    growth: watch::Sender<u64>,
    /// Whoever reads what is older has it: others want the same.
    windows: tokio::sync::Mutex<Windows>,
    extents: tokio::sync::Mutex<Extents>,
}

/// How much a part keeps, at most.
#[derive(Clone, Copy)]
struct Room {
    events: usize,
    bytes: usize,
    ids: usize,
}

impl Room {
    /// Of each of so many parts.
    fn of(parts: usize) -> Self {
        Self {
            events: (RECENT_EVENTS / parts).max(LEAST_EVENTS),
            bytes: (RECENT_BYTES / parts).max(LEAST_BYTES),
            ids: (WINDOW_EVENTS / parts).max(LEAST_EVENTS),
        }
    }
}

/// What was seen of it.
struct Seen {
    room: Room,
    /// How far each partition reaches: never less than it does.
    next: Vec<u64>,
    /// With their partitions: each looks for its own, again and again.
    recent: VecDeque<(Position, Envelope)>,
    recent_bytes: usize,
    /// Everything from here on is in `recent`.
    recent_from: u64,
    keeps: Keeps,
    /// Where the event of a source and an id stands.
    known: HashMap<Identity, Position>,
    oldest: VecDeque<(Timestamp, Identity)>,
    /// Another one each time, so that nobody makes ids that meet.
    seed: u64,
    /// What is another one again, and where that stands.
    again: BTreeMap<u64, Position>,
}

/// What is kept as it comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// As much as is kept, until there is more.
    First,
    /// The newest: somebody reads.
    Newest,
    /// Nothing: who only publishes needs to know what an event is the same by, and no more.
    Nothing,
}

/// What two events are the same by: a hash of source and id. 128 bits: among a million, two that differ meet with a chance
/// of 10⁻²⁷.
type Identity = u128;

impl Seen {
    /// Of a topic that reaches to `end`, and is followed from `from` on.
    fn new(partitions: u16, room: Room, end: u64, from: u64) -> Self {
        Self {
            room,
            next: vec![end; usize::from(partitions)],
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_from: from,
            keeps: Keeps::First,
            known: HashMap::new(),
            oldest: VecDeque::new(),
            seed: RandomState::new().hash_one(0),
            again: BTreeMap::new(),
        }
    }

    fn partition(&self, key: Option<&str>) -> u16 {
        partition_of(key, u16::try_from(self.next.len()).unwrap_or(u16::MAX))
    }

    fn identity(&self, Mark { source, id, .. }: &Mark<'_>) -> Identity {
        let mut hasher = Xxh3::with_seed(self.seed);
        hasher.update(&(source.len() as u64).to_le_bytes());
        hasher.update(source.as_bytes());
        hasher.update(id.as_bytes());
        hasher.digest128()
    }

    /// Whether the next one is kept: nobody has to read it again.
    fn keeps_next(&mut self) -> bool {
        let is_full = self.recent.len() >= self.room.events || self.recent_bytes >= self.room.bytes;
        if self.keeps == Keeps::First && is_full {
            self.keeps = Keeps::Nothing;
        }
        self.keeps != Keeps::Nothing
    }

    /// Takes an event that is kept.
    fn take(&mut self, offset: u64, event: Envelope) {
        let Some(position) = self.notice(offset, &Mark::of(&event)) else { return };
        self.recent_bytes += event.data().len() + EVENT_BYTES;
        self.recent.push_back((position, event));
        while self.recent.len() > self.room.events || self.recent_bytes > self.room.bytes {
            let Some((gone, event)) = self.recent.pop_front() else { break };
            self.recent_bytes -= event.data().len() + EVENT_BYTES;
            self.recent_from = gone.offset() + 1;
        }
    }

    /// Takes an event that is not kept: whoever wants it reads it.
    fn pass(&mut self, offset: u64, mark: &Mark<'_>) {
        self.recent = VecDeque::new();
        (self.recent_bytes, self.recent_from) = (0, offset + 1);
        self.notice(offset, mark);
    }

    /// Takes notice of an event; where it stands, if it is new.
    fn notice(&mut self, offset: u64, mark: &Mark<'_>) -> Option<Position> {
        let partition = self.partition(mark.key);
        let position = Position::new(partition, offset, 0);
        let identity = self.identity(mark);
        let first = *self.known.entry(identity).or_insert(position);
        if first != position {
            self.again.insert(offset, first);
            if self.again.len() > self.room.ids {
                self.again.pop_first();
            }
            return None;
        }
        self.oldest.push_back((mark.published, identity));
        let too_old = mark.published.as_micros() - i64::try_from(WINDOW.as_micros()).unwrap_or(i64::MAX);
        while self.oldest.len() > self.room.ids
            || self.oldest.front().is_some_and(|(published, _)| published.as_micros() < too_old)
        {
            let Some((_, identity)) = self.oldest.pop_front() else { break };
            self.known.remove(&identity);
        }
        let next = &mut self.next[usize::from(partition)];
        *next = (*next).max(offset + 1);
        Some(position)
    }

    /// Those of a partition, from an offset on, if they are all here.
    fn recent(&self, partition: Option<u16>, from: u64, limit: usize) -> Option<Vec<(Position, Envelope)>> {
        if from < self.recent_from {
            return None;
        }
        let first = self.recent.partition_point(|(position, _)| position.offset() < from);
        let found = self.recent.range(first..);
        let found = found.filter(|(position, _)| partition.is_none_or(|partition| partition == position.partition()));
        Some(found.take(limit).cloned().collect())
    }

    /// Where to read from to find what was published at a time or later.
    fn since(&self, time: Timestamp) -> From {
        let is_later = self.oldest.back().is_some_and(|(newest, _)| *newest >= time);
        let is_here = self.recent_from == 0 || self.recent.front().is_some_and(|(_, oldest)| oldest.published() < time);
        // Without one that is later, the broker would wait for it.
        if is_later && !is_here { From::Time(time) } else { From::Offset(self.recent_from) }
    }

    /// So much was found of a partition from an offset on: where it is less than was wanted, there was no more before `end`.
    fn found(&mut self, partition: Option<u16>, (from, limit): (u64, usize), found: &[(Position, Envelope)], end: u64) {
        if let Some(partition) = partition.filter(|_| found.len() < limit) {
            let next = found.last().map_or(from, |(last, _)| last.offset() + 1);
            self.was_read(partition, end, next);
        }
    }

    /// A partition was read to where `end` was the end: it has nothing after `next`.
    fn was_read(&mut self, partition: u16, end: u64, next: u64) {
        let known = &mut self.next[usize::from(partition)];
        if *known <= end {
            *known = (*known).min(next);
        }
    }
}

impl<S: Stream> Part<S> {
    pub(super) async fn open(
        stream: Arc<S>,
        topic: &str,
        (division, is_new): (Division, bool),
        growth: watch::Sender<u64>,
    ) -> Result<Self, BrokerError> {
        let last = if is_new { None } else { stream.last(LAST_WITHIN).await?.map(|last| last.offset()) };
        let end = last.map_or(0, |last| last + 1);
        let (partitions, room) = (division.partitions / division.streams, Room::of(usize::from(division.streams)));
        let from = end.saturating_sub(room.events as u64);
        let seen = Arc::new(Mutex::new(Seen::new(partitions, room, end, from)));
        let (taking, name, grown) = (Arc::clone(&seen), topic.to_owned(), growth.clone());
        stream.follow(
            from,
            Box::new(move |coming: S::Coming<'_>| {
                let keeps = taking.lock().keeps_next();
                if !keeps && let Some(mark) = coming.mark() {
                    // Nobody waits to hear of it.
                    taking.lock().pass(coming.offset(), &mark);
                    return;
                }
                let stored = coming.keep();
                match S::decode(&name, &stored) {
                    Ok(event) => taking.lock().take(stored.offset(), event),
                    Err(error) => tracing::warn!(error, topic = name, "passed by"),
                }
                grown.send_modify(|count| *count = count.wrapping_add(1));
            }),
        );
        if let Some(last) = last {
            stream.reach(last).await?;
        }
        Ok(Self {
            topic: topic.to_owned(),
            partitions,
            stream,
            seen,
            growth,
            windows: tokio::sync::Mutex::new(Windows::of(usize::from(division.streams))),
            extents: tokio::sync::Mutex::default(),
        })
    }

    /// Somebody reads what comes from now on: it is kept for a while, as the broker need not be asked for it then.
    pub(super) fn keep_recent(&self) {
        self.seen.lock().keeps = Keeps::Newest;
    }

    pub(super) fn heard(&self, partition: u16) -> u64 {
        self.seen.lock().next.get(usize::from(partition)).copied().unwrap_or(0)
    }

    pub(super) async fn publish(&self, events: &[(u16, Envelope)]) -> Result<Vec<Published>, BrokerError> {
        let known: Vec<Option<Position>> = {
            let seen = self.seen.lock();
            events.iter().map(|(_, event)| seen.known.get(&seen.identity(&Mark::of(event))).copied()).collect()
        };
        let new = events.iter().zip(&known).filter(|(_, known)| known.is_none());
        let new: Vec<&Envelope> = new.map(|((_, event), _)| event).collect();
        let messages: Vec<_> = new.iter().map(|event| S::event(event, event.published())).collect();
        let take = |index: usize, offset| self.take(offset, new[index]);
        let mut offsets = self.stream.append(messages, Some(&take)).await?.into_iter();
        let seen = self.seen.lock();
        let published = events.iter().zip(known).map(|((partition, _), known)| match known {
            Some(position) => Some(Published { position, duplicate: true }),
            None => offsets.next().map(|offset| {
                // Somebody may have published the same at this moment.
                let first = seen.again.get(&offset).copied();
                let position = first.unwrap_or_else(|| Position::new(*partition, offset, 0));
                Published { position, duplicate: first.is_some() }
            }),
        });
        published.collect::<Option<_>>().ok_or_else(|| BrokerError::Failed("a message did not come".to_owned()))
    }

    /// Takes an event that was published here.
    fn take(&self, offset: u64, event: &Envelope) {
        let mut seen = self.seen.lock();
        if !seen.keeps_next() {
            seen.pass(offset, &Mark::of(event));
            return;
        }
        seen.take(offset, event.clone());
        drop(seen);
        self.growth.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) async fn events(
        &self,
        partition: Option<u16>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(Position, Envelope)>, BrokerError> {
        if partition.is_none() {
            // Nobody says how far it reaches.
            self.stream.catch_up().await?;
        }
        if let Some(found) = self.recent(partition, from, limit) {
            return Ok(found);
        }
        let (end, found) = (self.stream.next(), self.read(partition, from, limit).await?);
        self.seen.lock().found(partition, (from, limit), &found, end);
        Ok(found)
    }

    /// Those from an offset on, if they were all kept as they came.
    pub(super) fn recent(&self, partition: Option<u16>, from: u64, limit: usize) -> Option<Vec<(Position, Envelope)>> {
        let (end, mut seen) = (self.stream.next(), self.seen.lock());
        let found = seen.recent(partition, from, limit)?;
        seen.found(partition, (from, limit), &found, end);
        Some(found)
    }

    async fn read(
        &self,
        partition: Option<u16>,
        mut from: u64,
        limit: usize,
    ) -> Result<Vec<(Position, Envelope)>, BrokerError> {
        let mut found = Vec::new();
        loop {
            // The others have their turn in between.
            let mut windows = self.windows.lock().await;
            windows.move_to(from);
            windows.find(partition, from, limit, &mut found);
            from = windows.next();
            let end = partition.map_or(u64::MAX, |partition| self.heard(partition)).min(self.stream.next());
            if found.len() >= limit || from >= end {
                return Ok(found);
            }
            self.read_on(&mut windows).await?;
        }
    }

    /// Reads what is next of the part that is read.
    async fn read_on(&self, windows: &mut Windows) -> Result<(), BrokerError> {
        let (end, mut at_once, mut is_full) = (self.stream.next(), AtOnce::default(), false);
        self.stream
            .read(From::Offset(windows.next()), |stored| {
                if let Some((position, event)) = self.decode(&stored) {
                    is_full = at_once.is_full_with(&event);
                    windows.push(position, event);
                }
                windows.reach(stored.offset() + 1);
                is_full
            })
            .await?;
        if !is_full {
            // Some offsets may have no message.
            windows.reach(end);
        }
        if windows.next() >= end {
            let mut seen = self.seen.lock();
            (0..self.partitions).for_each(|partition| seen.was_read(partition, end, windows.reaches(partition)));
        }
        Ok(())
    }

    /// An event, unless it was published again, or is none.
    fn decode(&self, stored: &S::Stored) -> Option<(Position, Envelope)> {
        let event = S::decode(&self.topic, stored).ok()?;
        let seen = self.seen.lock();
        let is_new = !seen.again.contains_key(&stored.offset());
        is_new.then(|| (Position::new(seen.partition(event.key()), stored.offset(), 0), event))
    }

    /// Reads events, without those that were published again, until it is enough.
    async fn each(
        &self,
        from: From,
        mut is_enough: impl FnMut(Position, Envelope) -> bool + Send,
    ) -> Result<(), BrokerError> {
        if let From::Offset(offset) = from
            && let Some(recent) = self.seen.lock().recent(None, offset, usize::MAX)
        {
            let _ = recent.into_iter().any(|(position, event)| is_enough(position, event));
            return Ok(());
        }
        let reading = self
            .stream
            .read(from, |stored| self.decode(&stored).is_some_and(|(position, event)| is_enough(position, event)));
        reading.await
    }

    /// What was counted is known for the next time, unless the broker has dropped of it.
    pub(super) async fn extent(&self, partition: u16) -> Result<Extent, BrokerError> {
        self.stream.catch_up().await?;
        let (mut extents, end) = (self.extents.lock().await, self.stream.next());
        let mut first = None;
        self.each(From::Offset(0), |position, _| {
            first = Some(position.offset());
            true
        })
        .await?;
        extents.begin(first.unwrap_or_default(), self.partitions);
        self.each(From::Offset(extents.next), |position, _| {
            extents.count(position);
            false
        })
        .await?;
        let mut seen = self.seen.lock();
        (0..self.partitions).for_each(|partition| seen.was_read(partition, end, extents.of(partition).next));
        Ok(extents.of(partition))
    }

    pub(super) async fn end(&self, partition: u16) -> Result<u64, BrokerError> {
        self.stream.catch_up().await?;
        Ok(self.heard(partition))
    }

    pub(super) async fn since(&self, partition: u16, time: Timestamp) -> Result<Option<u64>, BrokerError> {
        self.stream.catch_up().await?;
        let earlier = time.as_micros() - i64::try_from(CLOCKS_APART.as_micros()).unwrap_or(i64::MAX);
        let earlier = Timestamp::from_micros(earlier.max(0));
        let from = self.seen.lock().since(earlier);
        let mut found = None;
        self.each(from, |position, event| {
            if position.partition() == partition && event.published() >= time {
                found = Some(position.offset());
            }
            found.is_some()
        })
        .await?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Envelope {
        let event = Envelope::builder("t").id(number.to_string()).build().unwrap();
        event.published_at(Timestamp::from_micros(i64::try_from(number).unwrap()))
    }

    fn come(seen: &mut Seen, offset: u64, event: Envelope) {
        if seen.keeps_next() {
            seen.take(offset, event);
        } else {
            seen.pass(offset, &Mark::of(&event));
        }
    }

    #[test]
    fn what_nobody_reads_is_known_and_not_kept() {
        let (mut seen, kept) = (Seen::new(1, Room::of(1), 0, 0), RECENT_EVENTS as u64);
        (0..kept).for_each(|number| come(&mut seen, number, event(number)));
        assert_eq!(seen.recent(None, 0, usize::MAX).map(|found| found.len()), Some(RECENT_EVENTS));
        (kept..kept + 10).for_each(|number| come(&mut seen, number, event(number)));
        assert!(seen.recent(None, 0, 1).is_none() && seen.recent(None, kept + 9, 1).is_none(), "it is read");
        assert_eq!(seen.recent(None, kept + 10, 1).map(|found| found.len()), Some(0));
        assert_eq!(seen.next, [kept + 10]);
        come(&mut seen, kept + 10, event(3));
        assert_eq!(seen.again[&(kept + 10)].offset(), 3, "it was there before");
        seen.keeps = Keeps::Newest;
        come(&mut seen, kept + 11, event(kept + 11));
        let found = seen.recent(None, kept + 11, 9).unwrap();
        assert_eq!(found.iter().map(|(position, _)| position.offset()).collect::<Vec<_>>(), [kept + 11]);
    }

    #[test]
    fn a_time_is_looked_for_where_its_events_are() {
        let (mut seen, kept) = (Seen::new(1, Room::of(1), 0, 0), RECENT_EVENTS as u64);
        (0..kept).for_each(|number| come(&mut seen, number, event(number)));
        let since = |seen: &Seen, micros| seen.since(Timestamp::from_micros(micros));
        assert!(matches!(since(&seen, 5), From::Offset(0)));
        (kept..kept + 10).for_each(|number| come(&mut seen, number, event(number)));
        assert!(matches!(since(&seen, 5), From::Time(time) if time.as_micros() == 5));
        assert!(matches!(since(&seen, 1_000_000), From::Offset(_)), "no event is of then, so the broker is not asked");
    }
}
