//! One log of a node, and the sessions on it: what is asked is done on the transport.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oncue::{
    Clock,
    transport::{SettleError, Transport},
};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, RwLock},
    task::JoinHandle,
};

use super::{
    answer::look,
    message::{Question, Refusal, Reply, Request, Session, VERSION},
    session::{Following, Serving},
};

/// Longest that a request waits at the node.
pub const MAX_WAIT: Duration = Duration::from_secs(5);
/// Most sessions of a log at a time.
pub const MAX_SESSIONS: usize = 10_000;

/// A log and its sessions.
pub(super) struct Host {
    transport: Arc<dyn Transport>,
    clock: Clock,
    /// A session that nothing is heard of for so long is over.
    lease: Duration,
    sessions: Mutex<HashMap<Session, Open>>,
    /// When anything was asked last.
    asked: Mutex<Duration>,
    progress: AtomicU64,
    progressed: Notify,
    /// Held by those who look at what the log has.
    looking: Arc<RwLock<()>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Open {
    heard: Duration,
    what: Kind,
}

#[derive(Clone)]
enum Kind {
    Serving(Arc<Serving>),
    Following(Arc<Following>),
}

impl Host {
    pub(super) fn new(transport: Arc<dyn Transport>, clock: Clock, lease: Duration, handle: &Handle) -> Arc<Self> {
        Arc::new_cyclic(|host| Self {
            tasks: Mutex::new(vec![
                handle.spawn(count_progress(Arc::clone(&transport), Weak::clone(host))),
                handle.spawn(keep_up(Arc::clone(&transport))),
            ]),
            asked: Mutex::new(clock.monotonic()),
            transport,
            clock,
            lease,
            sessions: Mutex::default(),
            progress: AtomicU64::new(1),
            progressed: Notify::new(),
            looking: Arc::default(),
        })
    }

    /// Ends all sessions, and makes everything durable. Nothing of its own uses the log any more then.
    pub(super) async fn close(&self) -> Result<(), SettleError> {
        let sessions = std::mem::take(&mut *self.sessions.lock());
        for Open { what, .. } in sessions.into_values() {
            if let Kind::Serving(serving) = what {
                serving.end().await;
            }
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.iter().for_each(JoinHandle::abort);
        for task in tasks {
            // It was aborted, or had ended.
            let _ = task.await;
        }
        let _nobody_looks = self.looking.write().await;
        self.transport.close().await
    }

    /// Ends the sessions whose lease is over.
    pub(super) fn end_leases(&self) {
        let now = self.clock.monotonic();
        let over: Vec<Open> = {
            let mut sessions = self.sessions.lock();
            let is_over = |open: &mut Open| now.saturating_sub(open.heard) > self.lease;
            sessions.extract_if(|_, open| is_over(open)).map(|(_, open)| open).collect()
        };
        if !over.is_empty() {
            tracing::warn!(sessions = over.len(), lease = ?self.lease, "nothing was heard of them: what they hold goes to others");
        }
    }

    /// Whether nobody has asked anything for so long, and nobody is attached.
    pub(super) fn is_idle(&self, length: Duration) -> bool {
        self.sessions.lock().is_empty() && self.clock.monotonic().saturating_sub(*self.asked.lock()) > length
    }

    /// Does what a request asks.
    pub(super) async fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        *self.asked.lock() = self.clock.monotonic();
        match request {
            Request::Hello { version } if version != VERSION => {
                Err(Refusal::Version { node: VERSION, client: version })
            }
            Request::Hello { .. } => {
                let lease = self.lease.as_millis().try_into().unwrap_or(u64::MAX);
                Ok(Reply::Hello { capabilities: self.transport.capabilities(), lease })
            }
            Request::Append(batch) => Ok(Reply::Appended(self.transport.publish(&batch).await?)),
            Request::Control { subscription, control } => {
                self.transport.control(&subscription, control).await?;
                Ok(Reply::Done)
            }
            Request::Topics(control) => {
                self.transport.topics(control).await?;
                Ok(Reply::Done)
            }
            Request::Outcome { event, subscription, wait } => {
                let outcome = self.transport.outcome(&event, &subscription);
                Ok(Reply::Outcome(tokio::time::timeout(waiting(wait), outcome).await.ok().transpose()?))
            }
            Request::Progress { seen, wait } => Ok(Reply::Progress(self.progress_since(seen, waiting(wait)).await)),
            Request::Inspect(Question::Unsettled { sessions }) if !self.knows(&sessions) => Ok(Reply::Count(1)),
            Request::Inspect(question) => {
                let transport = Arc::clone(&self.transport);
                let looking = Arc::clone(&self.looking).read_owned().await;
                // It may read what lies on the disk.
                let looked = tokio::task::spawn_blocking(move || {
                    let looked = look(transport.inspect(), question);
                    drop(transport);
                    drop(looking);
                    looked
                });
                let looked = looked.await;
                Ok(looked.map_err(|error| Refusal::Malformed(error.to_string()))??)
            }
            Request::Extend { sessions } => {
                for session in sessions {
                    self.find(session);
                }
                Ok(Reply::Done)
            }
            Request::Leave { session } => {
                let left = self.sessions.lock().remove(&session);
                if let Some(Open { what: Kind::Serving(serving), .. }) = left {
                    serving.end().await;
                }
                Ok(Reply::Done)
            }
            of_session => self.answer_session(of_session).await,
        }
    }

    async fn answer_session(&self, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Subscribe { session, spec } => {
                if let Some(Kind::Serving(known)) = self.find(session) {
                    return Ok(Reply::Subscribed { created: known.created.clone() });
                }
                let serving = Arc::new(Serving::new(self.transport.subscribe(spec).await?));
                let created = serving.created.clone();
                self.open(session, Kind::Serving(serving))?;
                Ok(Reply::Subscribed { created })
            }
            Request::Next { session, limit, last, wait } => {
                let serving = self.serving(session)?;
                let next = serving.next(limit, last, waiting(wait)).await;
                if self.find(session).is_none() {
                    // It ended while the question waited: what was given goes to others with it.
                    return Err(Refusal::UnknownSession(session));
                }
                let (number, events) = next?;
                Ok(Reply::Delivered { number, events })
            }
            Request::Settle { session, number, answered, batch } => {
                match self.serving(session)?.settle(number, answered, batch).await {
                    // Ended before it was taken in.
                    Err(SettleError::Closed) if self.find(session).is_none() => Err(Refusal::UnknownSession(session)),
                    settled => Ok(Reply::Settled { given: settled? }),
                }
            }
            Request::State { session, member, partition, key } => {
                Ok(Reply::State(self.serving(session)?.state(member, partition, key).await?))
            }
            Request::Tail { session, topic } => {
                if self.find(session).is_none() {
                    let tail = self.transport.tail(&topic).await?;
                    self.open(session, Kind::Following(Arc::new(Following::new(tail))))?;
                }
                Ok(Reply::Done)
            }
            Request::Follow { session, limit, last, wait } => {
                let Some(Kind::Following(following)) = self.find(session) else {
                    return Err(Refusal::UnknownSession(session));
                };
                let (number, events) = following.next(limit, last, waiting(wait)).await?;
                self.find(session);
                Ok(Reply::Followed { number, events })
            }
            other => Err(Refusal::Malformed(format!("{other:?}"))),
        }
    }

    async fn progress_since(&self, seen: u64, wait: Duration) -> u64 {
        let more = async {
            loop {
                let progressed = self.progressed.notified();
                let now = self.progress.load(Ordering::Acquire);
                if now != seen {
                    return now;
                }
                progressed.await;
            }
        };
        tokio::time::timeout(wait, more).await.unwrap_or(seen)
    }

    fn open(&self, session: Session, what: Kind) -> Result<(), Refusal> {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= MAX_SESSIONS {
            return Err(Refusal::Sessions { limit: MAX_SESSIONS });
        }
        sessions.insert(session, Open { heard: self.clock.monotonic(), what });
        drop(sessions);
        // Whoever waited for somebody to come back looks again.
        self.count_progress();
        Ok(())
    }

    fn count_progress(&self) {
        self.progress.fetch_add(1, Ordering::AcqRel);
        self.progressed.notify_waiters();
    }

    fn knows(&self, sessions: &[Session]) -> bool {
        let open = self.sessions.lock();
        sessions.iter().all(|session| open.contains_key(session))
    }

    /// A session that is open, which was heard of now.
    fn find(&self, session: Session) -> Option<Kind> {
        let mut sessions = self.sessions.lock();
        let open = sessions.get_mut(&session)?;
        open.heard = self.clock.monotonic();
        Some(open.what.clone())
    }

    fn serving(&self, session: Session) -> Result<Arc<Serving>, Refusal> {
        match self.find(session) {
            Some(Kind::Serving(serving)) => Ok(serving),
            _ => Err(Refusal::UnknownSession(session)),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.tasks.lock().iter().for_each(JoinHandle::abort);
    }
}

fn waiting(millis: u64) -> Duration {
    Duration::from_millis(millis).min(MAX_WAIT)
}

/// Counts the transport's progress, so that no client misses any between two questions.
async fn count_progress(transport: Arc<dyn Transport>, host: Weak<Host>) {
    let mut progress = transport.progress();
    loop {
        progress.await;
        // What follows from here on counts again.
        progress = transport.progress();
        let Some(host) = host.upgrade() else { return };
        host.count_progress();
    }
}

async fn keep_up(transport: Arc<dyn Transport>) {
    transport.upkeep().await;
}
