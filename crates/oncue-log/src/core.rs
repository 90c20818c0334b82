//! What the handles of a log and its writer share: queue, committer, view, and the order in which they are locked.
//!
//! Locks are taken in the order committer, view, queue. Wakers are called with none held, but for those that wait for
//! space: they are called while the writer holds the committer, so that publishers go on while it syncs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Wake, Waker};

use crate::committer::Committer;
use crate::error::{AppendError, Fenced, StorageError};
use crate::leaving::Leaving;
use crate::limits::FRAME_TARGET_BYTES;
use crate::options::{Durability, Options, Writer};
use crate::queue::Queue;
use crate::record::Lsn;
use crate::spares::Spares;
use crate::storage::Storage;
use crate::sync::thread::{self, Thread};
use crate::sync::{self, Condvar, Mutex, MutexGuard, RwLock};
use crate::view::{SegmentReader, View};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

pub(crate) struct Core {
    pub(crate) log_id: u64,
    pub(crate) seed: u32,
    pub(crate) options: Options,
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) queue: Mutex<Queue>,
    /// The writer thread waits here for something to write.
    pub(crate) work: Condvar,
    pub(crate) committer: Mutex<Committer>,
    pub(crate) view: RwLock<View>,
    /// Every record below is durable and readable, if need be after [`catch_up`](Core::catch_up).
    pub(crate) durable: sync::AtomicU64,
    /// Enough was appended for the next checkpoint to pay: asked after every append, so without the queue's lock.
    pub(crate) checkpoint_due: AtomicBool,
    /// How many segments the view has: asked before every append, so without its lock.
    pub(crate) segments: Arc<AtomicU64>,
    /// Every record below is in the view.
    pub(crate) visible: sync::AtomicU64,
    pub(crate) fence: OnceLock<String>,
    pub(crate) counters: Counters,
    /// Segments read lately, so that reading here and there does not open them again and again.
    pub(crate) recent: Mutex<Vec<Arc<SegmentReader>>>,
    /// Segments that still have their names. Who trims or rewrites holds it: one at a time.
    pub(crate) leaving: Mutex<Leaving>,
    pub(crate) spares: Spares,
}

impl Core {
    pub(crate) fn new(
        log_id: u64,
        options: Options,
        storage: Box<dyn Storage>,
        mut queue: Queue,
        view: View,
        mut committer: Committer,
    ) -> Self {
        queue.readies = options.durability == Durability::Disk && storage.fill_ahead();
        committer.pool = Arc::clone(&queue.pool);
        view.recount();
        Self {
            checkpoint_due: AtomicBool::new(queue.is_checkpoint_due(options.checkpoint_bytes)),
            segments: Arc::clone(&view.count),
            log_id,
            seed: crate::frame::seed(log_id),
            options,
            storage,
            durable: sync::AtomicU64::new(queue.next_lsn),
            visible: sync::AtomicU64::new(queue.next_lsn),
            queue: Mutex::new(queue),
            work: Condvar::new(),
            committer: Mutex::new(committer),
            view: RwLock::new(view),
            fence: OnceLock::new(),
            counters: Counters::default(),
            recent: Mutex::default(),
            leaving: Mutex::default(),
            spares: Spares::default(),
        }
    }

    /// Writes all that waits. When it returns, everything appended before is durable, or the log is fenced.
    pub(crate) fn commit(&self) {
        self.commit_with(self.committer.lock());
    }

    /// The same, unless another writes at this moment.
    pub(crate) fn commit_if_free(&self) {
        if let Some(committer) = self.committer.try_lock() {
            self.commit_with(committer);
        }
    }

    fn commit_with(&self, mut committer: MutexGuard<'_, Committer>) {
        let mut wake = Vec::new();
        self.commit_locked(&mut committer, &mut wake);
        drop(committer);
        wake.into_iter().for_each(Waker::wake);
    }

    /// The writer thread's life: ends when the log is closed and nothing waits, or fenced.
    pub(crate) fn run(&self) {
        let guard = FenceOnPanic(self);
        let mut wake = Vec::new();
        loop {
            let mut queue = self.queue.lock();
            while queue.waiting.is_empty() && !queue.closed {
                queue.idle = true;
                self.work.wait(&mut queue);
                queue.idle = false;
            }
            let (over, time) = (queue.waiting.is_empty(), queue.last_time);
            drop(queue);
            if over {
                self.write_closing(time);
            }
            if over || self.fence.get().is_some() {
                break;
            }
            let mut committer = self.committer.lock();
            self.commit_locked(&mut committer, &mut wake);
            drop(committer);
            wake.drain(..).for_each(Waker::wake);
        }
        drop(guard);
    }

    /// The last frame of a log that is closed, unless it is there.
    pub(crate) fn write_closing(&self, time: i64) {
        let mut committer = self.committer.lock();
        if self.fence.get().is_some() {
            return;
        }
        if let Err(error) = committer.write_closing(self, time) {
            drop(committer);
            self.fence_and_wake(error.to_string());
        }
    }

    /// Before what a checkpoint stands for goes: where nobody waits for the disk, the checkpoint may not be there yet.
    pub(crate) fn sync_checkpoint(&self) -> Result<(), StorageError> {
        if self.options.durability == Durability::Disk {
            return Ok(());
        }
        let mut committer = self.committer.lock();
        let synced = committer.sync(self);
        drop(committer);
        if let Err(error) = &synced {
            self.fence_and_wake(error.to_string());
        }
        synced
    }

    fn commit_locked(&self, committer: &mut Committer, wake: &mut Vec<Waker>) {
        if self.fence.get().is_some() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            return;
        }
        queue.take(&mut committer.group);
        let mut space = Vec::new();
        queue.space.take(&mut space);
        drop(queue);
        space.into_iter().for_each(Waker::wake);
        match committer.write_group(self) {
            Ok(()) => self.queue.lock().in_flight.take(wake),
            Err(error) => return self.fence(&error, wake),
        }
        if self.storage.fill_ahead() && self.spares.want(committer.next_wanted(self)) {
            match self.options.writer {
                Writer::Thread => self.spares.wake(),
                Writer::Inline | Writer::OnDemand => self.spares.step(self.storage.as_ref()),
            }
        }
    }

    /// From here on nothing becomes durable. Who waits goes to `wake`.
    fn fence(&self, error: &StorageError, wake: &mut Vec<Waker>) {
        self.fence_because(error.to_string(), wake);
    }

    /// The same, where no lock is held that those who wait could ask for.
    fn fence_and_wake(&self, reason: String) {
        let mut wake = Vec::new();
        self.fence_because(reason, &mut wake);
        wake.into_iter().for_each(Waker::wake);
    }

    fn fence_because(&self, reason: String, wake: &mut Vec<Waker>) {
        let _first_reason_stays = self.fence.set(reason);
        let mut queue = self.queue.lock();
        queue.waiting.clear();
        queue.waiting_bytes = 0;
        let Queue { in_flight, behind, space, .. } = &mut *queue;
        for waiting in [in_flight, behind, space] {
            waiting.take(wake);
        }
    }

    pub(crate) fn fenced(&self) -> Result<(), Fenced> {
        self.fence.get().map_or(Ok(()), |reason| Err(Fenced { reason: reason.clone() }))
    }

    /// Changes the queue and sees to it that what was appended is written.
    pub(crate) fn enqueue<T>(
        &self,
        change: impl FnOnce(&mut Queue) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        let (changed, queue) = self.change(change)?;
        match self.options.writer {
            Writer::Thread => self.wake_writer(queue),
            Writer::Inline => {
                drop(queue);
                self.commit();
            }
            Writer::OnDemand => self.count_as_durable(queue),
        }
        Ok(changed)
    }

    /// The same for who waits for it next, with [`wait`](Self::wait), and writes it then if nobody else does.
    pub(crate) fn enqueue_to_wait<T>(
        &self,
        change: impl FnOnce(&mut Queue) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        if self.options.writer == Writer::Thread { Ok(self.change(change)?.0) } else { self.enqueue(change) }
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Queue) -> Result<T, AppendError>,
    ) -> Result<(T, MutexGuard<'_, Queue>), AppendError> {
        self.fenced()?;
        let mut queue = self.queue.lock();
        let changed = change(&mut queue)?;
        self.checkpoint_due.store(queue.is_checkpoint_due(self.options.checkpoint_bytes), Ordering::Relaxed);
        Ok((changed, queue))
    }

    fn wake_writer(&self, queue: MutexGuard<'_, Queue>) {
        let idle = queue.idle;
        drop(queue);
        if idle {
            self.work.notify_one();
        }
    }

    /// Blocks until every record below `lsn` is durable. If nothing is being written, this thread writes what waits.
    pub(crate) fn wait(&self, lsn: Lsn) -> Result<(), Fenced> {
        if !self.is_durable(lsn) {
            self.commit_if_free();
        }
        if self.is_durable(lsn) {
            return Ok(());
        }
        self.wake_writer(self.queue.lock());
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match self.poll_durable(lsn, &waker) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// As far as anybody can tell, what was appended is written.
    fn count_as_durable(&self, mut queue: MutexGuard<'_, Queue>) {
        self.durable.store(queue.next_lsn, Ordering::Release);
        let mut wake = Vec::new();
        queue.behind.take(&mut wake);
        queue.in_flight.take(&mut wake);
        let enough = queue.waiting.len() > 1 || queue.waiting_bytes >= FRAME_TARGET_BYTES;
        drop(queue);
        wake.into_iter().for_each(Waker::wake);
        if enough {
            self.commit();
        }
    }

    /// Before somebody reads: what counts as durable can be read.
    pub(crate) fn catch_up(&self) {
        let behind = || self.visible.load(Ordering::Acquire) < self.durable.load(Ordering::Acquire);
        if self.options.writer == Writer::OnDemand && behind() {
            // Also if another writes it at this moment: then that is waited for.
            self.commit();
        }
    }

    pub(crate) fn is_durable(&self, lsn: Lsn) -> bool {
        self.durable.load(Ordering::Acquire) >= lsn
    }

    pub(crate) fn poll_durable(&self, lsn: Lsn, waker: &Waker) -> Poll<Result<(), Fenced>> {
        if self.is_durable(lsn) {
            return Poll::Ready(Ok(()));
        }
        let mut queue = self.queue.lock();
        // The writer advances `durable`, or fences, before it takes the lock to collect the wakers: no wake is missed.
        if self.is_durable(lsn) {
            return Poll::Ready(Ok(()));
        }
        self.fenced()?;
        let in_flight = lsn <= queue.in_flight_end;
        let wakers = if in_flight { &mut queue.in_flight } else { &mut queue.behind };
        wakers.add(waker);
        Poll::Pending
    }

    pub(crate) fn poll_space(&self, waker: &Waker) -> Poll<Result<(), Fenced>> {
        self.fenced()?;
        let mut queue = self.queue.lock();
        self.fenced()?;
        if !queue.full {
            return Poll::Ready(Ok(()));
        }
        queue.space.add(waker);
        Poll::Pending
    }
}

/// Wakes a thread that waits in [`Core::wait`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// A panic in the writer thread must not leave anyone waiting.
struct FenceOnPanic<'a>(&'a Core);

impl Drop for FenceOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fence_and_wake("the writer thread panicked".to_owned());
        }
    }
}
