//! A ledger: a stream of records with numbers.
//!
//! A stream takes whatever is sent. Who appends writes the number that follows the last one it knows of, and the first
//! record of a number counts: all readers see the same order, so all find the same ones to count. Whoever was second
//! finds that out when its own record comes. Records also say where in the stream the first one stands that is still
//! wanted: a reader begins there. The broker drops the oldest by itself, and nothing is appended that would make it
//! drop what is wanted.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use oncue::transport::broker::{BrokerError, LedgerName};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Coming as _, From, Stored, Stream};

/// The number of a record.
const NUMBER: &str = "oncue-number";
/// Where the first record stands that is wanted.
const WANTED: &str = "oncue-wanted";
/// Bytes of newest records that are kept as they come.
const RECENT_BYTES: usize = 4 << 20;
/// What a message takes beside its data, at most.
const MESSAGE_BYTES: u64 = 512;
/// How long is waited for the first message of a ledger that is known: without one, nothing was ever written.
const LAST_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Ledger<S> {
    stream: Arc<S>,
    /// Bytes that may be wanted.
    limit: Option<u64>,
    index: Arc<Mutex<Index>>,
    growth: watch::Sender<u64>,
}

/// Where records stand.
struct Index {
    /// The number of the first one that is known here, and the offsets and sizes from it on.
    first: u64,
    places: VecDeque<(u64, u64)>,
    bytes: u64,
    /// The data of the last ones.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    /// Reading begins there, with whatever number that has.
    begin: u64,
}

impl Index {
    fn next(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    fn place(&self, number: u64) -> Option<(u64, u64)> {
        self.places.get(usize::try_from(number.checked_sub(self.first)?).ok()?).copied()
    }

    /// The first one of a number counts.
    fn take(&mut self, number: u64, offset: u64, data: &Bytes) -> bool {
        if self.places.is_empty() && self.begin > 0 && self.first == 1 {
            self.first = number;
        }
        if number != self.next() {
            return false;
        }
        let bytes = data.len() as u64 + MESSAGE_BYTES;
        self.places.push_back((offset, bytes));
        self.bytes += bytes;
        self.recent_bytes += data.len();
        self.recent.push_back(data.clone());
        while self.recent_bytes > RECENT_BYTES {
            let Some(gone) = self.recent.pop_front() else { break };
            self.recent_bytes -= gone.len();
        }
        true
    }

    fn recent(&self, from: u64, limit: usize) -> Option<Vec<(u64, Bytes)>> {
        let first = self.next() - self.recent.len() as u64;
        let skipped = usize::try_from(from.max(self.first).checked_sub(first)?).ok()?;
        let found = (from.max(self.first)..).zip(self.recent.iter().skip(skipped).cloned());
        Some(found.take(limit).collect())
    }

    fn purge(&mut self, before: u64) {
        // The last one stays: readers begin with it.
        while self.first < before && self.places.len() > 1 {
            let Some((_, bytes)) = self.places.pop_front() else { break };
            self.bytes -= bytes;
            self.first += 1;
        }
        while self.recent.len() > self.places.len() {
            let Some(gone) = self.recent.pop_front() else { break };
            self.recent_bytes -= gone.len();
        }
    }
}

impl<S: Stream> Ledger<S> {
    /// A ledger; one that is new has nothing to be read.
    pub(super) async fn open(
        stream: Arc<S>,
        limit: Option<u64>,
        is_new: bool,
        growth: watch::Sender<u64>,
    ) -> Result<Self, BrokerError> {
        let last = if is_new { None } else { stream.last(LAST_WITHIN).await? };
        let wanted = last.as_ref().and_then(|last| last.number(WANTED)).unwrap_or(0);
        let begin = if is_new { 0 } else { wanted.max(stream.first().await?) };
        let index =
            Index { first: 1, places: VecDeque::new(), bytes: 0, recent: VecDeque::new(), recent_bytes: 0, begin };
        let index = Arc::new(Mutex::new(index));
        let (taking, grown) = (Arc::clone(&index), growth.clone());
        stream.follow(
            begin,
            Box::new(move |coming: S::Coming<'_>| {
                let stored = coming.keep();
                let number = stored.number(NUMBER);
                if number.is_some_and(|number| taking.lock().take(number, stored.offset(), stored.data())) {
                    grown.send_modify(|count| *count = count.wrapping_add(1));
                }
            }),
        );
        if let Some(last) = last {
            stream.reach(last.offset()).await?;
        }
        Ok(Self { stream, limit, index, growth })
    }

    /// Appends a record of an id of its own, if the last one has the number `after`.
    pub(super) async fn append(&self, record: Bytes, after: u64) -> Result<u64, BrokerError> {
        let number = after + 1;
        let wanted = {
            let index = self.index.lock();
            if index.next() != number {
                return Err(BrokerError::Moved);
            }
            if let Some(limit) = self.limit.filter(|limit| index.bytes + record.len() as u64 > *limit) {
                return Err(BrokerError::Refused(format!(
                    "the state of `{}` would not fit into {limit} bytes: delete the queue and begin anew with a larger \
                     `ledger_mib`",
                    self.stream.name()
                )));
            }
            index.places.front().map_or(0, |(offset, _)| *offset)
        };
        let message = S::record(&[(NUMBER, number), (WANTED, wanted)], record.clone());
        let take = |_, offset| {
            if self.index.lock().take(number, offset, &record) {
                self.growth.send_modify(|count| *count = count.wrapping_add(1));
            }
        };
        let offset = self.stream.append(vec![message], Some(&take)).await?.pop();
        let place = self.index.lock().place(number).map(|(offset, _)| offset);
        if place == offset && place.is_some() { Ok(number) } else { Err(BrokerError::Moved) }
    }

    /// Records from a number on, as far as they are known to be there.
    pub(super) async fn records(&self, from: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, BrokerError> {
        if self.index.lock().place(from).is_none() {
            self.stream.catch_up().await?;
        }
        let (numbers, begin) = {
            let index = self.index.lock();
            if let Some(found) = index.recent(from, limit) {
                return Ok(found);
            }
            let first = from.max(index.first);
            let Some((begin, _)) = index.place(first) else { return Ok(Vec::new()) };
            (first..index.next(), begin)
        };
        let (mut found, mut next) = (Vec::new(), numbers.start);
        self.stream
            .read(From::Offset(begin), |stored| {
                let place = self.index.lock().place(next).map(|(offset, _)| offset);
                if place == Some(stored.offset()) {
                    found.push((next, stored.data().clone()));
                    next += 1;
                }
                found.len() >= limit || next >= numbers.end
            })
            .await?;
        Ok(found)
    }

    pub(super) async fn purge(&self, before: u64) -> Result<(), BrokerError> {
        let first = {
            let mut index = self.index.lock();
            index.purge(before);
            index.places.front().map(|(offset, _)| *offset)
        };
        match first {
            Some(first) => self.stream.purge(first).await,
            None => Ok(()),
        }
    }
}

/// The stream of a ledger.
pub(super) fn stream(name: &LedgerName) -> String {
    format!("{PREFIX}{}.{}", name.subscription, name.partition)
}

/// What the names of ledgers begin with: no topic's does.
pub(super) const PREFIX: &str = "oncue-ledger.";
