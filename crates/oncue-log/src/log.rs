//! The handle that callers hold.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::batch::Batch;
use crate::checkpoint::{self, Joined, Part, cuts, encode_topics, topic_definition};
use crate::core::Core;
use crate::error::{AppendError, Fenced, OpenError, ReadError};
use crate::leaving::{trim, trim_while};
use crate::limits::{MAX_TOPIC_METADATA_BYTES, MAX_TOPIC_NAME_BYTES, MIN_SEGMENT_BYTES};
use crate::options::{Options, Recovery, Stats, Ticket, TopicInfo, TrimError, Writer};
use crate::queue::Queue;
use crate::read::{Cursor, Scan};
use crate::record::{KIND_CHECKPOINT, KIND_DROP, KIND_TOPIC, Lsn, RECORD_HEADER_BYTES, Record, TopicId};
use crate::recovery::{self, Replay};
use crate::rewrite::Rewritten;
use crate::segments::SegmentInfo;
use crate::storage::Storage;
use crate::sync::Mutex;
use crate::sync::thread::{self, JoinHandle};
use crate::wanted::Wanted;

/// An open log. Clones are the same log; the last one to go closes it.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

/// What [`Log::open`] yields.
pub struct Opened {
    /// The log.
    pub log: Log,
    /// What was found.
    pub report: Recovery,
}

struct Handle {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Writes zeros to the file of the segment to come.
    preparer: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `storage`, or makes one, recovers it, and hands everything it says to `replay`: the newest whole
    /// checkpoint, if there is one, then every event, topic and state record since, in lsn order.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing acknowledged is ever dropped to be able to open: damage is an error, and changes nothing.
    pub fn open(
        storage: Box<dyn Storage>,
        options: Options,
        now_micros: i64,
        replay: &mut dyn FnMut(Replay<'_>) -> Result<(), String>,
    ) -> Result<Opened, OpenError> {
        let mut options = options;
        options.segment_bytes = options.segment_bytes.max(MIN_SEGMENT_BYTES);
        let threaded = options.writer == Writer::Thread;
        let (core, report) = recovery::open(storage, options, now_micros, replay)?;
        let handle = Handle { core: Arc::new(core), writer: Mutex::default(), preparer: Mutex::default() };
        if threaded {
            let core = Arc::clone(&handle.core);
            *handle.writer.lock() = Some(start("oncue-log-writer", move || core.run())?);
        }
        if threaded && handle.core.storage.fill_ahead() {
            let core = Arc::clone(&handle.core);
            let prepare = move || core.spares.run(core.storage.as_ref());
            *handle.preparer.lock() = Some(start("oncue-log-preparer", prepare)?);
        }
        Ok(Opened { log: Self { handle: Arc::new(handle) }, report })
    }

    /// The log's id: random, made with the log.
    pub fn log_id(&self) -> u64 {
        self.core().log_id
    }

    /// Appends a batch: all of it or nothing, as one unit. Returns at once; lsns and offsets are assigned, and the records
    /// are durable when [`durable`](Self::durable) reaches [`Ticket::end`]. An empty batch is durable with what was before it.
    ///
    /// # Errors
    /// See [`AppendError`]: nothing of the batch was appended. After `Full`, wait with [`poll_space`](Self::poll_space).
    pub fn append(&self, batch: &Batch, now_micros: i64) -> Result<Ticket, AppendError> {
        let core = self.core();
        core.enqueue(|queue| queue.append(batch, now_micros, core.options.pending_bytes))
    }

    /// Appends one event, as [`append`](Self::append) a batch of one, and cheaper: its data is the parts, joined.
    ///
    /// # Errors
    /// See [`AppendError`]: it was not appended.
    pub fn append_event(
        &self,
        topic: TopicId,
        partition: u16,
        parts: &[&[u8]],
        now_micros: i64,
    ) -> Result<Ticket, AppendError> {
        let core = self.core();
        core.enqueue(|queue| queue.append_event((topic, partition), parts, now_micros, core.options.pending_bytes))
    }

    /// Appends a batch and blocks until it is durable. For who waits for each: if nothing else is being written, this thread
    /// writes it, which costs no switch to the writer thread and back. Who need not wait appends more by [`append`](Self::append).
    ///
    /// # Errors
    /// See [`AppendError`]: nothing of the batch was appended, except after `Fenced`, when it may have been.
    pub fn append_durable(&self, batch: &Batch, now_micros: i64) -> Result<Ticket, AppendError> {
        let core = self.core();
        let ticket = core.enqueue_to_wait(|queue| queue.append(batch, now_micros, core.options.pending_bytes))?;
        core.wait(ticket.end)?;
        Ok(ticket)
    }

    /// Ready once the writer has taken what waited when an append was refused with `Full`; wakes `waker` then.
    /// Another append may be first: try again, and wait again.
    pub fn poll_space(&self, waker: &Waker) -> Poll<Result<(), Fenced>> {
        self.core().poll_space(waker)
    }

    /// Every record with an lsn below this is durable, and can be read.
    pub fn durable(&self) -> Lsn {
        self.core().durable.load(Ordering::Acquire)
    }

    /// Ready once [`durable`](Self::durable) is at least `lsn`; wakes `waker` when that may have come about.
    pub fn poll_durable(&self, lsn: Lsn, waker: &Waker) -> Poll<Result<(), Fenced>> {
        self.core().poll_durable(lsn, waker)
    }

    /// Blocks until [`durable`](Self::durable) is at least `lsn`. If nothing is being written, this thread writes what waits:
    /// so a single event costs no switch to the writer thread and back.
    ///
    /// # Errors
    /// [`Fenced`] if it never will be.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), Fenced> {
        self.core().wait(lsn)
    }

    /// Makes a topic, or finds the one of this name: then the ticket's lsn is 0, and the metadata stays what it was.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn create_topic(&self, name: &str, metadata: &[u8], now_micros: i64) -> Result<(TopicId, Ticket), AppendError> {
        within(name.len(), MAX_TOPIC_NAME_BYTES)?;
        within(metadata.len(), MAX_TOPIC_METADATA_BYTES)?;
        let limit = self.core().options.pending_bytes;
        self.core().enqueue(|queue| {
            if let Some(id) = queue.names.get(name) {
                let end = queue.topics[*id as usize - 1].defined;
                return Ok((TopicId(*id), Ticket { lsn: 0, end, offset: 0 }));
            }
            queue.admit(name.len() + metadata.len(), limit)?;
            let id = queue.topics.len() as u32 + 1;
            let lsn = push_topic(queue, id, name, metadata, now_micros);
            queue.define(name.to_owned(), Bytes::copy_from_slice(metadata), 0, lsn + 1);
            Ok((TopicId(id), Ticket { lsn, end: lsn + 1, offset: 0 }))
        })
    }

    /// Replaces a topic's metadata.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn set_metadata(&self, topic: TopicId, metadata: &[u8], now_micros: i64) -> Result<Ticket, AppendError> {
        within(metadata.len(), MAX_TOPIC_METADATA_BYTES)?;
        let limit = self.core().options.pending_bytes;
        self.core().enqueue(|queue| {
            let place = (topic.0 as usize).wrapping_sub(1);
            let name = queue.topics.get(place).ok_or(AppendError::UnknownTopic { topic })?.name.clone();
            queue.admit(name.len() + metadata.len(), limit)?;
            let lsn = push_topic(queue, topic.0, &name, metadata, now_micros);
            let slot = &mut queue.topics[place];
            (slot.metadata, slot.defined) = (Bytes::copy_from_slice(metadata), lsn + 1);
            Ok(Ticket { lsn, end: lsn + 1, offset: 0 })
        })
    }

    /// Drops a topic's events below an offset, among those that are durable: they are not read any more, and what they take is
    /// free for [`drop_segments`](Self::drop_segments) and [`rewrite`](Self::rewrite). After a crash before that is durable, they
    /// are back, but for what was freed of them: wait for it before anything is freed.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn drop_events(&self, topic: TopicId, below: u64, now_micros: i64) -> Result<Ticket, AppendError> {
        self.core().catch_up();
        let durable = self.core().view.read().offsets(topic.0).next;
        let below = below.min(durable);
        let limit = self.core().options.pending_bytes;
        let ticket = self.core().enqueue(|queue| {
            let known = (topic.0 as usize).checked_sub(1).is_some_and(|place| place < queue.topics.len());
            if !known {
                return Err(AppendError::UnknownTopic { topic });
            }
            queue.admit(RECORD_HEADER_BYTES, limit)?;
            let lsn = queue.push(KIND_DROP, (topic.0, below), &[], now_micros);
            let slot = &mut queue.topics[topic.0 as usize - 1];
            slot.first_offset = slot.first_offset.max(below);
            Ok(Ticket { lsn, end: lsn + 1, offset: below })
        })?;
        self.core().view.write().drop_below(ticket.end, topic.0, below);
        Ok(ticket)
    }

    /// The offset that the next event of a topic gets, behind those that are not durable yet; 0 of one that is not known.
    pub fn next_offset(&self, topic: TopicId) -> u64 {
        let queue = self.core().queue.lock();
        (topic.0 as usize).checked_sub(1).and_then(|at| queue.occurs.get(at)).map_or(0, |occurs| occurs.next_offset)
    }

    /// Every topic, in order of id. One that was made just now may not be durable yet.
    pub fn topics(&self) -> Vec<TopicInfo> {
        self.core().catch_up();
        let view = self.core().view.read();
        let queue = self.core().queue.lock();
        let info = |(place, slot): (usize, &crate::queue::TopicSlot)| {
            let id = place as u32 + 1;
            let offsets = view.offsets(id);
            TopicInfo {
                id: TopicId(id),
                name: slot.name.clone(),
                metadata: slot.metadata.clone(),
                next_offset: offsets.next,
                first_offset: offsets.first,
            }
        };
        queue.topics.iter().enumerate().map(info).collect()
    }

    /// Every segment, oldest first: for people and reports. Reads the indexes, and a few frames of each.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn segment_infos(&self) -> Result<Vec<SegmentInfo>, ReadError> {
        self.core().segments()
    }

    /// The lsn that the newest durable checkpoint stands for, which is where opening begins to replay.
    pub fn checkpointed(&self) -> Option<Lsn> {
        self.core().view.read().checkpoint.map(|whole| whole.of_lsn)
    }

    /// The newest durable checkpoint: the lsn that it stands for, and what the caller said in it. `None` before the first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn newest_checkpoint(&self) -> Result<Option<(Lsn, Vec<u8>)>, ReadError> {
        let Some(of_lsn) = self.checkpointed() else { return Ok(None) };
        let mut joined = Joined::of(of_lsn);
        for record in self.scan(of_lsn) {
            let record = record?;
            if joined.take(record.kind, &record.data) {
                break;
            }
        }
        Ok(checkpoint::decode(&joined.bytes).map(|(_, opaque)| (of_lsn, opaque.to_vec())))
    }

    /// A cursor on a topic, that [`read`](Self::read) reads from `offset` on.
    pub fn cursor(&self, topic: TopicId, offset: u64) -> Cursor {
        Cursor::new(topic, offset)
    }

    /// Adds the topic's next events to `out`, in order of offset: at most `max_records`, and no more than `max_bytes` of
    /// data but for a single event. Only durable events are read. Returns how many; 0 = caught up (or `max_records` is 0).
    ///
    /// # Errors
    /// See [`ReadError`]. The cursor stays where it was: what was read before is in `out`, and was counted by an earlier call.
    pub fn read(
        &self,
        cursor: &mut Cursor,
        max_records: usize,
        max_bytes: usize,
        out: &mut Vec<Record>,
    ) -> Result<usize, ReadError> {
        self.core().catch_up();
        cursor.read(self.core(), max_records, max_bytes, out)
    }

    /// An offset such that all durable events of the topic below it were appended before `time`, as near to the first that
    /// was not as their frames tell: from there on, look at the events themselves.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_since(&self, topic: TopicId, time: i64) -> Result<u64, ReadError> {
        self.core().catch_up();
        self.core().offset_since(topic, time)
    }

    /// An offset such that the durable events of the topic from it on take about so many bytes, and at most that as far as
    /// the indexes tell: within a segment, all events of a topic count as equally large. With the headers of their records.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_within(&self, topic: TopicId, bytes: u64) -> Result<u64, ReadError> {
        self.core().catch_up();
        self.core().offset_within(topic, bytes)
    }

    /// Every durable record from an lsn on, of all kinds and topics, in order.
    pub fn scan(&self, from: Lsn) -> Scan {
        Scan::new(Arc::clone(self.core()), from)
    }

    /// One durable record.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn record(&self, lsn: Lsn) -> Result<Record, ReadError> {
        self.core().catch_up();
        self.core().record(lsn)
    }

    /// Whether enough was appended since the last checkpoint for the next one to pay.
    pub fn checkpoint_due(&self) -> bool {
        self.core().checkpoint_due.load(Ordering::Relaxed)
    }

    /// Appends a checkpoint: the topics, and `opaque`, which restates all that the caller's state records said. It stands
    /// for everything appended so far, so nothing may be appended between taking the snapshot and this call. Cut into
    /// parts; it counts once all of them are durable.
    ///
    /// # Errors
    /// See [`AppendError`]. `Full` if more than half of what may wait does: a checkpoint is taken whole, whatever its size.
    pub fn checkpoint(&self, opaque: &[u8], now_micros: i64) -> Result<Ticket, AppendError> {
        let limit = self.core().options.pending_bytes;
        self.core().enqueue(|queue| {
            queue.admit(limit / 2, limit)?;
            Ok(push_checkpoint(queue, opaque, now_micros))
        })
    }

    /// Removes every sealed segment whose records are all below `before`, and below what the newest whole checkpoint stands
    /// for. Returns how many. Works on a fenced log too, so that a full disk can be freed.
    ///
    /// # Errors
    /// [`TrimError`] with what the storage refused.
    pub fn trim(&self, before: Lsn) -> Result<u64, TrimError> {
        self.core().catch_up();
        trim(self.core(), before)
    }

    /// Removes the oldest segments of which nothing is wanted, and which lie below what the newest whole checkpoint stands for.
    /// Returns how many. Works on a fenced log too, so that a full disk can be freed.
    ///
    /// # Errors
    /// [`TrimError`] with what the storage refused.
    pub fn drop_segments(&self, wanted: &Wanted) -> Result<u64, TrimError> {
        let core = self.core();
        core.catch_up();
        let dropped = core.dropped();
        trim_while(core, |oldest, next| {
            let live = core.live_bytes(oldest, next.first_lsn, (wanted, &dropped));
            // Damaged or gone: nobody knows what is in it.
            live.is_ok_and(|live| live == 0)
        })
    }

    /// Rewrites the oldest sealed segments of which more than half is not wanted, or which are many and small, into one: what
    /// is wanted of them keeps its lsns and offsets. Returns what it did, nothing if there are none that it pays for; call
    /// again then, there may be more. Only segments that the newest one and its checkpoint need not be found with are rewritten,
    /// and none of which something is in memory ([`Options::tail_bytes`](crate::Options)).
    ///
    /// Blocks for as long as it takes to read a few segments and to write one, and waits for the log's own writes in between.
    /// Whoever reads meanwhile goes on where it was. A crash leaves the old segments or the new one.
    ///
    /// # Errors
    /// See [`ReadError`]. What failed is as it was.
    pub fn rewrite(&self, wanted: &Wanted) -> Result<Option<Rewritten>, ReadError> {
        self.core().catch_up();
        self.core().rewrite(wanted)
    }

    /// Why the log is fenced, if it is.
    pub fn fenced(&self) -> Option<String> {
        self.core().fence.get().cloned()
    }

    /// Whether it was closed: nothing is appended any more, and what is durable stays readable.
    pub fn is_closed(&self) -> bool {
        self.core().queue.lock().closed
    }

    /// Bytes that the storage can still take, as far as it knows.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn free_bytes(&self) -> std::io::Result<Option<u64>> {
        self.core().storage.free_bytes()
    }

    /// How many segments there are.
    pub fn segments(&self) -> u64 {
        self.core().segments.load(Ordering::Relaxed)
    }

    /// Counters since opening.
    pub fn stats(&self) -> Stats {
        let core = self.core();
        core.catch_up();
        let (segments, stored_bytes) = {
            let view = core.view.read();
            (view.segments.len() as u64, view.stored_bytes())
        };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &core.counters;
        Stats {
            frames: count(&counters.frames),
            records: count(&counters.records),
            bytes: count(&counters.bytes),
            syncs: count(&counters.syncs),
            segments,
            stored_bytes,
        }
    }

    /// Takes no more appends, writes what waits and the closing frame. Closing again does nothing. What is durable stays
    /// readable. Dropping the last handle closes too, but has nobody to tell about an error. Blocks: not for use in a waker.
    ///
    /// # Errors
    /// [`AppendError::Fenced`] if something could not be written.
    pub fn close(&self, now_micros: i64) -> Result<(), AppendError> {
        self.handle.close(Some(now_micros))
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

impl Handle {
    fn close(&self, now: Option<i64>) -> Result<(), AppendError> {
        let core = &self.core;
        let mut queue = core.queue.lock();
        queue.closed = true;
        let time = now.unwrap_or(queue.last_time);
        queue.last_time = time;
        drop(queue);
        core.work.notify_one();
        core.spares.close();
        let preparer = self.preparer.lock().take();
        if let Some(preparer) = preparer {
            let _a_panic_costs_no_more_than_the_spare = preparer.join();
        }
        let mut thread = self.writer.lock();
        // The last handle may go in a waker that the writer thread itself calls: it closes the log when it is done.
        if thread.as_ref().is_some_and(|writer| writer.thread().id() == thread::current().id()) {
            return Ok(core.fenced()?);
        }
        let writer = thread.take();
        drop(thread);
        if let Some(writer) = writer {
            let _a_panic_has_fenced_the_log = writer.join();
        }
        core.commit();
        core.write_closing(time);
        Ok(core.fenced()?)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _nobody_to_tell = self.close(None);
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let what = "start a thread of the log";
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|source| OpenError::System { what, source })
}

fn within(bytes: usize, limit: usize) -> Result<(), AppendError> {
    if bytes > limit { Err(AppendError::TooLarge { bytes, limit }) } else { Ok(()) }
}

fn push_topic(queue: &mut Queue, id: u32, name: &str, metadata: &[u8], now: i64) -> Lsn {
    queue.push(KIND_TOPIC, (id, 0), &[&topic_definition(name), name.as_bytes(), metadata], now)
}

fn push_checkpoint(queue: &mut Queue, opaque: &[u8], now: i64) -> Ticket {
    let of_lsn = queue.next_lsn;
    let states =
        queue.topics.iter().zip(&queue.occurs).map(|(topic, occurs)| {
            (topic.first_offset, occurs.next_offset, topic.name.as_str(), topic.metadata.as_ref())
        });
    let topics = encode_topics(states);
    let total = topics.len() + opaque.len();
    let parts = cuts(total);
    let count = parts.len() as u32;
    for (number, range) in parts.enumerate() {
        let part = Part { of_lsn, part: number as u32, parts: count };
        let middle = topics.len();
        let own = &topics[range.start.min(middle)..range.end.min(middle)];
        let rest = &opaque[range.start.max(middle) - middle..range.end.max(middle) - middle];
        let lsn = queue.push(KIND_CHECKPOINT, (0, 0), &[&part.encode(), own, rest], now);
        queue.mark_part(lsn, part);
    }
    (queue.since_checkpoint, queue.checkpoint_bytes) = (0, total as u64);
    Ticket { lsn: of_lsn, end: queue.next_lsn, offset: 0 }
}
