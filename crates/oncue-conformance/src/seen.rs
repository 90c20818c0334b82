//! The event that the cases publish, and what handlers saw of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use oncue::{
    Envelope, Event, Timestamp,
    event::InvalidEvent,
    handler::{HandlerError, HandlerExt as _, Registration, extract::Context},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{Bench, Failure};

/// An event with a key, and a number that counts up within it.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[event(type = "step", key = key)]
pub struct Step {
    /// What order is kept for.
    pub key: String,
    /// Its place in the key's order.
    pub number: u32,
}

impl Step {
    /// A step.
    #[must_use]
    pub fn new(key: &str, number: u32) -> Self {
        Self { key: key.to_owned(), number }
    }

    /// As an envelope with a new id.
    ///
    /// # Errors
    /// It breaks a limit.
    pub fn envelope(&self) -> Result<Envelope, InvalidEvent> {
        Envelope::of(self)
    }
}

/// One call of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The handler.
    pub handler: String,
    /// The event's key.
    pub key: String,
    /// The event's number.
    pub number: u32,
    /// Which attempt it was told.
    pub attempt: u32,
    /// When it was called.
    pub began: Timestamp,
    /// When it returned or was dropped.
    pub ended: Option<Timestamp>,
}

/// What handlers saw, in the order that they were called.
#[derive(Clone)]
pub struct Seen(Arc<Inner>);

struct Inner {
    clock: oncue::Clock,
    notes: Mutex<Vec<Note>>,
    /// How many calls have ended: what waits is told by this.
    ended: watch::Sender<usize>,
    began: watch::Sender<usize>,
    /// Which number runs, by handler and key.
    running: Mutex<HashMap<(String, String), u32>>,
    /// Calls of one handler with one key that ran at the same time.
    overlaps: Mutex<Vec<String>>,
}

/// A call under way: ends when dropped, as a cancelled handler is.
pub struct Running {
    seen: Seen,
    index: usize,
}

impl Seen {
    /// Nothing yet.
    #[must_use]
    pub fn new(bench: &Bench) -> Self {
        Self(Arc::new(Inner {
            clock: bench.clock().clone(),
            notes: Mutex::default(),
            ended: watch::Sender::default(),
            began: watch::Sender::default(),
            running: Mutex::default(),
            overlaps: Mutex::default(),
        }))
    }

    /// Notes that a handler is called.
    #[must_use]
    pub fn begin(&self, handler: &str, step: &Step, attempt: u32) -> Running {
        let place = (handler.to_owned(), step.key.clone());
        if let Some(other) = self.0.running.lock().insert(place, step.number) {
            let text = format!("`{handler}`, key {}: {} began while {other} ran", step.key, step.number);
            self.0.overlaps.lock().push(text);
        }
        let mut notes = self.0.notes.lock();
        notes.push(Note {
            handler: handler.to_owned(),
            key: step.key.clone(),
            number: step.number,
            attempt,
            began: self.0.clock.now(),
            ended: None,
        });
        self.0.began.send_modify(|count| *count += 1);
        Running { seen: self.clone(), index: notes.len() - 1 }
    }

    /// The process of all handlers is gone: what still runs of them counts for nothing, and overlaps with nothing.
    pub fn crashed(&self) {
        self.0.running.lock().clear();
    }

    /// Every call so far.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        self.0.notes.lock().clone()
    }

    /// Calls of a handler with a key: number and attempt of each.
    #[must_use]
    pub fn of(&self, handler: &str, key: &str) -> Vec<(u32, u32)> {
        let notes = self.0.notes.lock();
        let theirs = notes.iter().filter(|note| note.handler == handler && note.key == key);
        theirs.map(|note| (note.number, note.attempt)).collect()
    }

    /// How many calls a handler had.
    #[must_use]
    pub fn count(&self, handler: &str) -> usize {
        self.0.notes.lock().iter().filter(|note| note.handler == handler).count()
    }

    /// How many keys of handlers have a call under way.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.running.lock().len()
    }

    /// Waits until this many calls have begun.
    pub async fn began(&self, bench: &Bench, count: usize) {
        let mut began = self.0.began.subscribe();
        // The sender lives as long as this does.
        let _ = bench.wait(format!("{count} calls to begin"), began.wait_for(|known| *known >= count)).await;
    }

    /// Waits until this many calls have ended.
    pub async fn ended(&self, bench: &Bench, count: usize) {
        let mut ended = self.0.ended.subscribe();
        let _ = bench.wait(format!("{count} calls to end"), ended.wait_for(|known| *known >= count)).await;
    }

    /// No handler was given an event of a key while it was at another one of it.
    ///
    /// # Errors
    /// One was.
    pub fn alone(&self) -> Result<(), Failure> {
        self.0.overlaps.lock().first().map_or(Ok(()), |overlap| Err(Failure::new(overlap.clone())))
    }

    /// Each handler was given the events of each key in order, one at a time. A repeat of the last one is in order.
    ///
    /// # Errors
    /// Where the order broke.
    pub fn in_order(&self) -> Result<(), Failure> {
        self.alone()?;
        let mut last: BTreeMap<(String, String), u32> = BTreeMap::new();
        for note in self.0.notes.lock().iter() {
            let before = last.insert((note.handler.clone(), note.key.clone()), note.number);
            if before.is_some_and(|before| before > note.number) {
                let Note { handler, key, number, .. } = note;
                let before = before.unwrap_or_default();
                return Err(Failure::new(format!("`{handler}`, key {key}: {number} came after {before}")));
            }
        }
        Ok(())
    }

    /// A handler was given each of these events, and if `once`, not twice.
    ///
    /// # Errors
    /// What was lost, repeated or never published.
    pub fn complete(&self, handler: &str, keys: &[String], numbers: u32, once: bool) -> Result<(), Failure> {
        let notes = self.0.notes.lock();
        let mut given: BTreeSet<(&str, u32)> = BTreeSet::new();
        for note in notes.iter().filter(|note| note.handler == handler) {
            if !given.insert((&note.key, note.number)) && once {
                return Err(Failure::new(format!("`{handler}` was given {} of key {} twice", note.number, note.key)));
            }
        }
        for key in keys {
            for number in 0..numbers {
                if !given.remove(&(key.as_str(), number)) {
                    return Err(Failure::new(format!("`{handler}` was never given {number} of key {key}")));
                }
            }
        }
        match given.first() {
            Some((key, number)) => {
                Err(Failure::new(format!("`{handler}` was given {number} of key {key}: nobody published it")))
            }
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = self.seen.0.clock.now();
        if let Some(note) = self.seen.0.notes.lock().get_mut(self.index) {
            note.ended = Some(now);
            self.seen.0.running.lock().remove(&(note.handler.clone(), note.key.clone()));
        }
        self.seen.0.ended.send_modify(|count| *count += 1);
    }
}

/// Names of keys.
pub(crate) fn keys(count: u32) -> Vec<String> {
    (0..count).map(|key| format!("key-{key}")).collect()
}

/// A handler of steps that notes each call and answers as told. Odd numbers wait once before, so that both ways of
/// running a handler, at once and as a task, are met.
pub fn noting<F>(id: &str, seen: &Seen, answer: F) -> Registration
where
    F: Fn(&Step, u32) -> Result<(), HandlerError> + Clone + Send + Sync + 'static,
{
    let (seen, name) = (seen.clone(), id.to_owned());
    let handle = move |step: Step, context: Context| {
        let running = seen.begin(&name, &step, context.attempt());
        let answer = answer.clone();
        async move {
            if step.number % 2 == 1 {
                tokio::task::yield_now().await;
            }
            let answer = answer(&step, context.attempt());
            drop(running);
            answer
        }
    };
    handle.named(id)
}

/// A [`noting`] handler that acknowledges everything.
pub(crate) fn accepting(id: &str, seen: &Seen) -> Registration {
    noting(id, seen, |_, _| Ok(()))
}
