//! One reader for many subscriptions of a topic.
//!
//! A subscription reads the log by itself while it has something to catch up on, and where a topic has few of them. Those
//! that keep up with a topic of many leave the reading to its feed: each event is read and decoded once, an index of their
//! filters tells whose it is, and nobody else is woken. What a subscription is not fed, it passes by.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use oncue_log::{Cursor, Record, TopicId};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Inner;
use crate::{
    event::Envelope,
    filter::FilterIndex,
    transport::{ConsumeError, MemberSpec},
};

/// Events read at once.
const READ_RECORDS: usize = 512;
/// Most events and bytes that wait for one subscription; past that it reads by itself again.
const MAX_INBOX_EVENTS: usize = 1024;
const MAX_INBOX_BYTES: usize = 4 << 20;
/// Most bytes that wait for all of them.
const MAX_FEED_BYTES: usize = 256 << 20;
/// After so many events, and so many for each subscription, those that were fed none are told how far the feed has come.
const NUDGE_EVENTS: u64 = 4096;
const NUDGE_EVENTS_EACH: u64 = 16;

/// Which subscription of a feed.
pub(super) type Eater = u64;

/// The reader of a topic.
pub(super) struct Feed(Mutex<State>);

struct State {
    cursor: Cursor,
    index: FilterIndex<(Eater, u8)>,
    inboxes: HashMap<Eater, Arc<Inbox>>,
    next: Eater,
    events: Vec<FedEvent>,
    matched: Vec<(Eater, u8)>,
    waiting_bytes: usize,
    since_nudge: u64,
    driver: Option<JoinHandle<()>>,
    /// The log failed or is closed: each finds out for itself, and says so.
    failed: bool,
}

/// What was read for one subscription.
pub(super) struct Inbox {
    pub(super) eater: Eater,
    feed: Weak<Feed>,
    fed: Mutex<Fed>,
}

#[derive(Default)]
struct Fed {
    events: VecDeque<FedEvent>,
    bytes: usize,
    /// Everything below was considered.
    upto: u64,
    /// Nothing more comes: it fell behind, or the log failed.
    left: bool,
    wakers: Vec<Waker>,
}

/// An event that was read, or handed over.
#[derive(Clone)]
pub(in crate::transport) struct FedEvent {
    pub(in crate::transport) offset: u64,
    pub(in crate::transport) partition: u16,
    pub(in crate::transport) envelope: Envelope,
    /// Copies that single members handle instead; none where it was read for the first time.
    pub(in crate::transport) copies: Vec<(u8, Envelope)>,
}

impl FedEvent {
    /// A record's event, in memory of its own.
    pub(super) fn of(record: &Record) -> Result<Self, ConsumeError> {
        let envelope = Envelope::from_stored(&record.data).map_err(|error| ConsumeError::Storage(error.to_string()))?;
        Ok(Self { offset: record.offset, partition: record.partition, envelope, copies: Vec::new() })
    }
}

/// What an inbox gives.
pub(super) struct Helping {
    pub(super) events: Vec<FedEvent>,
    /// Everything below was considered, once these events are.
    pub(super) upto: u64,
    /// The feed feeds it no more: it goes on by itself from `upto`.
    pub(super) left: bool,
}

impl Feed {
    pub(super) fn new(cursor: Cursor) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            cursor,
            index: FilterIndex::new(),
            inboxes: HashMap::new(),
            next: 0,
            events: Vec::new(),
            matched: Vec::new(),
            waiting_bytes: 0,
            since_nudge: 0,
            driver: None,
            failed: false,
        })))
    }

    /// Feeds a subscription that has read all below `offset`; nothing if the feed stands elsewhere.
    pub(super) fn join(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        topic: TopicId,
        offset: u64,
        members: &[MemberSpec],
    ) -> Option<Seat> {
        let mut state = self.0.lock();
        if state.failed {
            return None;
        }
        if state.inboxes.is_empty() {
            state.cursor = inner.log.cursor(topic, offset);
        } else if state.cursor.offset() < offset {
            self.route(inner, &mut state);
        }
        if state.cursor.offset() != offset {
            return None;
        }
        let eater = state.next;
        state.next += 1;
        for (member, spec) in (0_u8..).zip(members) {
            state.index.insert((eater, member), &spec.types, spec.filter.as_ref());
        }
        let fed = Mutex::new(Fed { upto: offset, ..Fed::default() });
        let inbox = Arc::new(Inbox { eater, feed: Arc::downgrade(self), fed });
        state.inboxes.insert(eater, Arc::clone(&inbox));
        if state.driver.is_none() {
            state.driver = Some(tokio::spawn(drive(Arc::downgrade(inner), Arc::downgrade(self))));
        }
        Some(Seat(inbox))
    }

    fn leave(&self, eater: Eater) {
        let mut state = self.0.lock();
        state.remove(eater);
        if state.inboxes.is_empty()
            && let Some(driver) = state.driver.take()
        {
            driver.abort();
        }
    }

    /// Reads what is durable, and gives it to whose it is; whether there was something.
    fn route(&self, inner: &Inner, state: &mut State) -> bool {
        let mut events = std::mem::take(&mut state.events);
        let readable = inner.read_events(&mut state.cursor, (READ_RECORDS, usize::MAX), &mut events).is_ok();
        let some = !events.is_empty();
        for event in events.drain(..) {
            state.feed(&event);
        }
        state.events = events;
        if !readable {
            state.fail();
        } else if state.since_nudge >= NUDGE_EVENTS.max(NUDGE_EVENTS_EACH * state.inboxes.len() as u64) {
            state.nudge();
        }
        some && readable
    }
}

impl State {
    fn feed(&mut self, event: &FedEvent) {
        let mut matched = std::mem::take(&mut self.matched);
        self.index.matches(&event.envelope, &mut matched);
        let mut last = None;
        for (eater, _) in matched.drain(..) {
            // Members of one subscription follow one another.
            if last.replace(eater) == Some(eater) {
                continue;
            }
            let Some(inbox) = self.inboxes.get(&eater) else { continue };
            if self.waiting_bytes > MAX_FEED_BYTES || !inbox.push(event.clone()) {
                inbox.close(event.offset);
                self.remove(eater);
            } else {
                self.waiting_bytes += event.envelope.encoded_bytes();
            }
        }
        self.matched = matched;
        self.since_nudge += 1;
    }

    fn remove(&mut self, eater: Eater) {
        let Some(inbox) = self.inboxes.remove(&eater) else { return };
        self.waiting_bytes = self.waiting_bytes.saturating_sub(inbox.fed.lock().bytes);
        for member in 0..u8::MAX {
            if !self.index.remove((eater, member)) {
                break;
            }
        }
    }

    /// Tells all how far the feed has come.
    fn nudge(&mut self) {
        self.since_nudge = 0;
        for inbox in self.inboxes.values() {
            inbox.fed.lock().wake();
        }
    }

    /// Feeds nobody any more.
    fn fail(&mut self) {
        self.failed = true;
        let offset = self.cursor.offset();
        for eater in self.inboxes.keys().copied().collect::<Vec<_>>() {
            if let Some(inbox) = self.inboxes.get(&eater) {
                inbox.close(offset);
            }
            self.remove(eater);
        }
    }
}

impl Fed {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Inbox {
    /// False if there is no room.
    fn push(&self, event: FedEvent) -> bool {
        let mut fed = self.fed.lock();
        let bytes = event.envelope.encoded_bytes();
        if fed.events.len() >= MAX_INBOX_EVENTS || (fed.bytes + bytes > MAX_INBOX_BYTES && !fed.events.is_empty()) {
            return false;
        }
        fed.bytes += bytes;
        fed.events.push_back(event);
        fed.wake();
        true
    }

    /// Nothing from `offset` on is fed.
    fn close(&self, offset: u64) {
        let mut fed = self.fed.lock();
        (fed.left, fed.upto) = (true, fed.upto.max(offset));
        fed.wake();
    }

    /// Takes up to so many events.
    pub(super) fn take(&self, most: usize, mut room: usize) -> Helping {
        let feed = self.feed.upgrade();
        // The feed is locked before its inboxes, never after.
        let mut state = feed.as_ref().map(|feed| feed.0.lock());
        let mut fed = self.fed.lock();
        let mut events = Vec::new();
        while events.len() < most && (room > 0 || events.is_empty()) {
            let Some(event) = fed.events.pop_front() else { break };
            let bytes = event.envelope.encoded_bytes();
            room = room.saturating_sub(bytes);
            fed.bytes -= bytes;
            if let Some(state) = &mut state {
                state.waiting_bytes = state.waiting_bytes.saturating_sub(bytes);
            }
            events.push(event);
        }
        let upto = match (fed.events.front(), &state) {
            (Some(next), _) => next.offset,
            (None, Some(state)) if !fed.left => state.cursor.offset(),
            _ => fed.upto,
        };
        Helping { events, upto, left: (fed.left || state.is_none()) && fed.events.is_empty() }
    }

    /// How far nothing was of interest, if nothing waits.
    pub(super) fn passed_to(&self) -> Option<u64> {
        let feed = self.feed.upgrade()?;
        let state = feed.0.lock();
        let fed = self.fed.lock();
        (fed.events.is_empty() && !fed.left).then(|| state.cursor.offset())
    }

    /// Who is to be woken when there is something.
    pub(super) fn wait(&self, cx: &Context<'_>) -> bool {
        let mut fed = self.fed.lock();
        if !fed.events.is_empty() || fed.left {
            return false;
        }
        if fed.wakers.iter().all(|known| !known.will_wake(cx.waker())) {
            fed.wakers.push(cx.waker().clone());
        }
        true
    }
}

/// Leaves the feed when the subscription goes.
pub(super) struct Seat(pub(super) Arc<Inbox>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(feed) = self.0.feed.upgrade() {
            feed.leave(self.0.eater);
        }
    }
}

/// Reads as events become durable, until nobody is fed any more.
async fn drive(inner: Weak<Inner>, feed: Weak<Feed>) {
    const TURNS: usize = 16;
    poll_fn(move |cx| {
        for _ in 0..TURNS {
            let (Some(inner), Some(feed)) = (inner.upgrade(), feed.upgrade()) else { return Poll::Ready(()) };
            // Taken before reading: what becomes durable meanwhile wakes us at once.
            let durable = inner.log.durable();
            let mut state = feed.0.lock();
            if feed.route(&inner, &mut state) {
                drop(state);
                inner.progress.notify_waiters();
                continue;
            }
            match inner.log.poll_durable(durable + 1, cx.waker()) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    state.fail();
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
