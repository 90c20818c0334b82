//! Retention: what topics need not keep is dropped, and its space is given back.
//!
//! A pass runs beside all else, on a thread where it may wait for the disk: it finds the first event that each topic keeps,
//! writes that down (under the lock of the state, which is all that publishers notice), and when that is durable, removes and
//! rewrites segments. Positions do not change. `docs/decisions/0034-retention.md` has the reasons.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use oncue_log::{AppendError, Lsn, ReadError, TopicId, Wanted};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Inner, Shared,
    overtaken::wake,
    records::Change,
    state::{State, SubscriptionState},
};
use crate::{
    clock::Timestamp,
    event::is_reply_topic,
    transport::{ControlError, PublishError, Retention, RetentionFrom, TopicControl},
};

/// An event goes at most this part of its topic's age late, within these bounds: no pass for each event.
const LATE: u32 = 100;
const LEAST_LATE: Duration = Duration::from_secs(1);
const MOST_LATE: Duration = Duration::from_secs(3_600);

/// What passes share.
#[derive(Default)]
pub(super) struct Keeper {
    /// One pass at a time. Who runs one holds it until it holds nothing of the log any more.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// A pass may be worth it.
    pub(super) asked: Notify,
    closing: AtomicBool,
    /// How things stood when a full log was last made room in.
    made_room: Mutex<Option<(u64, u64)>>,
}

impl Keeper {
    /// No pass begins any more, and none runs when this completes.
    pub(super) async fn close(&self) {
        self.closing.store(true, Ordering::Release);
        drop(self.turn.lock().await);
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// What a topic's limits say.
struct Limit {
    topic: TopicId,
    is_reply: bool,
    /// What every subscription is through with goes, below this: from there on, its segment stays anyway.
    settled_below: u64,
    /// Below, events are too old or too many.
    first: u64,
}

/// Changes what topics keep, or runs a pass.
pub(super) async fn control(inner: Arc<Inner>, control: TopicControl) -> Result<(), ControlError> {
    match control {
        TopicControl::Declare(topics) => {
            let now = inner.clock.now();
            inner.topics.declare(&inner.log, topics, now).map_err(|error| published(super::publish::error(error)))?;
            inner.keeper.asked.notify_one();
        }
        TopicControl::Set(name, retention) => {
            let topic = inner.topic(&name).await.map_err(published)?;
            let set = inner.topics.set(&inner.log, &topic, retention, inner.clock.now());
            let ticket = set.map_err(|error| published(super::publish::error(error)))?;
            let durable = inner.durable(ticket.end).await;
            durable.map_err(|reason| published(PublishError::Fenced(reason)))?;
            inner.keeper.asked.notify_one();
        }
        TopicControl::Retain => {
            inner.retain().await.map_err(ControlError::Storage)?;
        }
    }
    Ok(())
}

fn published(error: PublishError) -> ControlError {
    ControlError::Publish(error)
}

/// Runs a pass whenever one may be worth it, for as long as it is polled.
pub(super) async fn upkeep(inner: Arc<Inner>) {
    let mut due = (!inner.url.is_memory()).then(|| inner.clock.now());
    loop {
        let until = due.filter(|_| !inner.topics.keep_all());
        let sleep = async {
            match until {
                Some(due) => inner.clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.keeper.asked.notified() => {}
            () = sleep => {}
        }
        if inner.topics.keep_all() {
            continue;
        }
        due = match inner.retain().await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(error, "retention freed less of the log than it may; it tries again");
                Some(inner.clock.now().after(MOST_LATE))
            }
        };
    }
}

/// The records that a state points to.
struct Pointed {
    states: Vec<Lsn>,
    /// The last attempts of events that failed: each points to the one before it.
    chains: Vec<Lsn>,
}

impl Pointed {
    fn by(state: &State) -> Self {
        let (mut states, mut chains) = (Vec::new(), Vec::new());
        for state in state.known() {
            states.extend(state.keyed.records());
            states.extend(state.dead.values().map(|dead| dead.lsn));
            states.extend(state.redriven.values());
            chains.extend(state.failing.values().map(|failing| failing.lsn));
        }
        Self { states, chains }
    }
}

impl Inner {
    /// Drops what topics need not keep and frees its space; gives when more will be too old.
    pub(super) async fn retain(self: &Arc<Self>) -> Result<Option<Timestamp>, String> {
        let turn = Arc::clone(&self.keeper.turn).lock_owned().await;
        let inner = Arc::clone(self);
        let pass = move || {
            let done = inner.pass();
            // Whoever closes the log waits for its turn: then nothing of it is held.
            drop(inner);
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(pass).await.unwrap_or_else(|_| Err("the runtime shuts down".to_owned()))
    }

    fn pass(&self) -> Result<Option<Timestamp>, String> {
        if self.keeper.is_closing() || self.topics.keep_all() {
            return Ok(None);
        }
        self.catch_up();
        let limits = self.limits().map_err(|error| error.to_string())?;
        if self.log.fenced().is_some() {
            self.free_of_fenced(&limits)?;
            return Ok(None);
        }
        // First what may go without a word: where the disk is full, there is room for the next one then.
        self.free()?;
        let mut dropped = false;
        for limit in &limits {
            dropped |= self.drop_below(limit).map_err(|error| error.to_string())?;
        }
        if dropped {
            self.free()?;
            self.progress.notify_waiters();
        }
        self.next_pass().map_err(|error| error.to_string())
    }

    /// What the limits of the topics say now.
    fn limits(&self) -> Result<Vec<Limit>, ReadError> {
        let now = self.clock.now();
        let (mut limits, mut freeable) = (Vec::new(), None);
        for topic in self.log.topics() {
            let (retention, _) = self.topics.retention(topic.id);
            if retention.is_forever() {
                continue;
            }
            let mut first = 0;
            if let Some(age) = retention.max_age() {
                first = self.log.offset_since(topic.id, before(now, age))?;
            }
            if let Some(bytes) = retention.max_bytes() {
                first = first.max(self.log.offset_within(topic.id, bytes)?);
            }
            let mut settled_below = 0;
            if retention.drops_settled() {
                if freeable.is_none() {
                    freeable = Some(self.freeable()?);
                }
                settled_below = freeable.as_ref().and_then(|known| known.get(&topic.id)).copied().unwrap_or(0);
            }
            limits.push(Limit { topic: topic.id, is_reply: is_reply_topic(&topic.name), settled_below, first });
        }
        Ok(limits)
    }

    /// Up to where the events of each topic lie in segments that may go: sealed, and a checkpoint stands for them. Who comes
    /// later finds the others, settled or not.
    fn freeable(&self) -> Result<HashMap<TopicId, u64>, ReadError> {
        let checkpoint = self.log.checkpointed().unwrap_or(0);
        let mut freeable = HashMap::new();
        for segment in self.log.segment_infos()? {
            if segment.sealed && segment.next_lsn <= checkpoint {
                freeable.extend(segment.topics.iter().map(|(topic, _, next)| (*topic, *next)));
            }
        }
        Ok(freeable)
    }

    /// Drops what a topic need not keep; whether there was something.
    fn drop_below(&self, limit: &Limit) -> Result<bool, AppendError> {
        let (known, next) = self.offsets(limit.topic);
        let mut shared = self.shared.lock();
        let mut first = limit.first;
        if limit.settled_below > known {
            let low = self.lowest_unsettled(&shared, limit, (known, next));
            first = first.max(low.min(limit.settled_below));
        }
        first = first.min(next);
        if first <= known {
            return Ok(false);
        }
        let cores = self.go_on_at(&mut shared, limit.topic, first)?;
        let ticket = self.log.drop_events(limit.topic, first, self.clock.now().as_micros())?;
        shared.end = shared.end.max(ticket.end);
        drop(shared);
        wake(&cores);
        Ok(true)
    }

    /// The first event of a topic that somebody is not through with.
    fn lowest_unsettled(&self, shared: &Shared, limit: &Limit, (first, next): (u64, u64)) -> u64 {
        let low = |state: &SubscriptionState| state.settled.low();
        let of_topic = shared.state.known().filter(|state| state.about.topic == limit.topic.0);
        of_topic
            .map(low)
            .min()
            .unwrap_or_else(|| if limit.is_reply { self.tails.lowest(limit.topic).unwrap_or(next) } else { first })
    }

    /// Removes and rewrites segments.
    fn free(&self) -> Result<(), String> {
        let wanted = self.wanted()?;
        let removed = self.log.drop_segments(&wanted).map_err(|error| error.to_string());
        let mut freed = removed.map(drop);
        while freed.is_ok() && !self.keeper.is_closing() {
            match self.log.rewrite(&wanted) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => freed = Err(error.to_string()),
            }
        }
        freed
    }

    /// A log that takes nothing more, as on a full disk: nothing can be written down, so only whole segments go. Who misses
    /// something by that is told when the log is opened again.
    fn free_of_fenced(&self, limits: &[Limit]) -> Result<(), String> {
        let Some(mut wanted) = self.wanted_at_checkpoint()? else { return Ok(()) };
        // No limit looks at what was dropped: one that says no more than that says nothing. The log knows what of it is durable.
        for limit in limits.iter().filter(|limit| limit.first > self.offsets(limit.topic).0) {
            wanted.events.insert(limit.topic, std::iter::once(limit.first..u64::MAX).collect());
        }
        self.log.drop_segments(&wanted).map(drop).map_err(|error| error.to_string())
    }

    /// The state records that something points to, as the state says once it is durable.
    fn wanted(&self) -> Result<Wanted, String> {
        let (pointed, upto) = {
            let shared = self.shared.lock();
            (Pointed::by(&shared.state), shared.end)
        };
        // What is applied may not be durable yet: a crash would take it back, and what it replaced be wanted again.
        self.log.wait_durable(upto).map_err(|fenced| fenced.reason)?;
        self.wanted_of(pointed, upto)
    }

    /// The same, where nothing becomes durable any more: as the newest checkpoint says, so more than is wanted by now.
    fn wanted_at_checkpoint(&self) -> Result<Option<Wanted>, String> {
        let newest = self.log.newest_checkpoint().map_err(|error| error.to_string())?;
        let Some((of_lsn, bytes)) = newest else { return Ok(None) };
        let mut state = State::default();
        state.restore(&bytes).map_err(|error| error.to_string())?;
        self.wanted_of(Pointed::by(&state), of_lsn).map(Some)
    }

    fn wanted_of(&self, Pointed { mut states, chains }: Pointed, upto: Lsn) -> Result<Wanted, String> {
        for last in chains {
            self.follow_attempts(last, &mut states)?;
        }
        states.sort_unstable();
        states.dedup();
        Ok(Wanted { states, upto, ..Wanted::default() })
    }

    /// The records of an event's attempts, from the last one back.
    fn follow_attempts(&self, last: Lsn, states: &mut Vec<Lsn>) -> Result<(), String> {
        let mut next = Some(last);
        while let Some(lsn) = next {
            let record = match self.log.record(lsn) {
                // Versions that did not rewrite segments dropped it.
                Err(ReadError::Trimmed { .. }) => return Ok(()),
                record => record.map_err(|error| error.to_string())?,
            };
            states.push(lsn);
            let change = Change::decode(record.kind, &record.data).map_err(|error| error.to_string())?;
            next = if let Some(Change::Retry(retry)) = change { retry.previous } else { None };
        }
        Ok(())
    }

    /// When the next event will be too old.
    fn next_pass(&self) -> Result<Option<Timestamp>, crate::transport::InspectError> {
        let now = self.clock.now();
        let mut next: Option<Timestamp> = None;
        for topic in self.log.topics() {
            let Some(age) = self.topics.retention(topic.id).0.max_age() else { continue };
            let late = (age / LATE).clamp(LEAST_LATE, MOST_LATE);
            let oldest = self.first_record(topic.id, self.offsets(topic.id).0)?;
            let published = oldest.map_or(now, |record| Timestamp::from_micros(record.time));
            let at = published.after(age).max(now).after(late);
            next = Some(next.map_or(at, |known| known.min(at)));
        }
        Ok(next)
    }

    /// Drops what may go now: the log holds as much as it may. Nothing if all is as it was the last time.
    pub(super) async fn make_room(self: &Arc<Self>) -> Result<(), String> {
        if self.topics.keep_all() {
            return Ok(());
        }
        let stands = {
            let shared = self.shared.lock();
            let settled = shared.state.known().map(|state| state.settled.low()).fold(0, u64::wrapping_add);
            (settled, self.clock.now().as_micros().unsigned_abs() / 1_000_000)
        };
        if *self.keeper.made_room.lock() == Some(stands) {
            return Ok(());
        }
        let end = {
            let mut shared = self.shared.lock();
            let now = self.clock.now().as_micros();
            let ticket = self.log.checkpoint(&shared.state.checkpoint(), now).map_err(|error| error.to_string())?;
            shared.end = shared.end.max(ticket.end);
            shared.end
        };
        self.durable(end).await?;
        self.retain().await?;
        *self.keeper.made_room.lock() = Some(stands);
        Ok(())
    }

    /// Whether the log holds as much as it may: asked before every event.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        // Most of the time the number of segments tells.
        let may_be = |max: u64| self.log.segments().saturating_mul(self.segment_bytes) > max;
        self.url.max_bytes.is_some_and(|max| may_be(max) && self.takes_more_than(max))
    }

    #[cold]
    fn takes_more_than(&self, max: u64) -> bool {
        self.stored_bytes() > max
    }

    /// What the segments of the log take.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.log.stats().stored_bytes
    }
}

fn before(now: Timestamp, age: Duration) -> i64 {
    now.as_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}

/// What the app says of topics, by their names.
pub(super) type Declared = BTreeMap<String, (Retention, RetentionFrom)>;
