//! One task per subscription: takes events from the transport, runs the handlers, settles the outcomes.
//!
//! Everything it knows about an event in flight is a [`Run`]; every key in flight has a [`lanes::Lane`]. Both are bounded
//! by the window. Handlers are called inline; one that is pending after its first poll becomes a task of its own.

mod at_once;
mod door;
mod drain;
mod fork;
mod gate;
mod gather;
mod intake;
mod invoke;
mod lanes;
mod layered;
mod member;
mod run;
mod settling;
mod sieve;

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt as _, future::FutureExt as _, stream::FuturesUnordered};
use slab::Slab;
use thiserror::Error;
use tokio::{
    sync::watch,
    task::{JoinSet, coop, yield_now},
};

pub(crate) use self::{
    door::Door,
    fork::Fork,
    gate::Gate,
    lanes::Lanes,
    member::{Before, Member},
    sieve::Sieve,
};
use self::{
    gather::Gather,
    invoke::{Ended, Events, Finished, Started},
    run::{Run, RunId},
    settling::{Settles, Settling},
};
use crate::{
    clock::{Clock, Timestamp},
    handler::Invocation,
    transport::{Action, ConsumeError, Consumer, Delivered, Order, SettleError, Settlement},
};

/// Events taken from the transport and not settled, at most.
pub(crate) const WINDOW_EVENTS: usize = 4096;
/// Their bytes, at most (one event more than that, if it is large).
pub(crate) const WINDOW_BYTES: usize = 32 * 1024 * 1024;

/// A call whose event is no larger keeps its memory for the next one.
const KEPT_BYTES: usize = 16 * 1024;

/// Why a subscription stopped.
#[derive(Debug, Error, Clone)]
pub enum DispatchError {
    /// Its events cannot be read.
    #[error("handler `{handler}` stopped: {error}")]
    Consume {
        /// The subscription.
        handler: String,
        /// Why.
        error: ConsumeError,
    },
    /// Its outcomes cannot be made durable.
    #[error("handler `{handler}` stopped: {error}; what was not settled is delivered again at the next start")]
    Settle {
        /// The subscription.
        handler: String,
        /// Why.
        error: SettleError,
    },
}

impl DispatchError {
    /// The subscription that stopped: a handler's id, or those of handlers joined by `after`, with `+` between them.
    #[must_use]
    pub fn handler(&self) -> &str {
        match self {
            Self::Consume { handler, .. } | Self::Settle { handler, .. } => handler,
        }
    }
}

/// Whether a dispatcher goes on, and how it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Run,
    /// Take nothing new, let what runs finish within the grace time.
    Drain(Duration),
    /// As `Drain`, for a dispatcher that another one follows: what cannot be cancelled is waited for.
    Change(Duration),
    /// Stop at once.
    Stop,
}

/// Something to do at once.
enum Work {
    /// See what the run needs next.
    Advance(RunId),
    /// Call a member's handler for the run: it has a place.
    Call(RunId, usize),
}

/// What drives one subscription.
pub(crate) struct Dispatcher {
    members: Vec<Member>,
    consumer: Box<dyn Consumer>,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    order: Order,
    runs: Slab<Run>,
    /// Events that were through at once, and are being settled.
    at_once: usize,
    /// Of all of them.
    bytes: usize,
    lanes: Lanes,
    /// What to do next: a list instead of calls within calls, which a long queue would stack up.
    work: VecDeque<Work>,
    tasks: JoinSet<Ended>,
    /// The batch that grows, for a batch handler.
    gather: Option<Gather>,
    outbox: Vec<Settlement>,
    /// Whose they are, one by one.
    outbox_of: Vec<Settles>,
    /// When the clock was read last: calls that follow one another share a reading.
    now: Timestamp,
    settling: FuturesUnordered<Settling>,
}

impl Dispatcher {
    pub(crate) fn new(
        members: Vec<Member>,
        consumer: Box<dyn Consumer>,
        (order, lanes): (Order, Lanes),
        clock: Clock,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        // Batches are of handlers that stand alone: registration sees to that.
        let gather = members.first().and_then(|member| member.batch).map(Gather::new);
        let now = clock.now();
        Self {
            members,
            consumer,
            clock,
            phase,
            order,
            runs: Slab::new(),
            at_once: 0,
            bytes: 0,
            lanes,
            work: VecDeque::new(),
            tasks: JoinSet::new(),
            gather,
            outbox: Vec::new(),
            outbox_of: Vec::new(),
            now,
            settling: FuturesUnordered::new(),
        }
    }

    fn name(&self) -> String {
        self.members.iter().map(|member| &*member.id).collect::<Vec<_>>().join("+")
    }

    /// Runs until the phase says otherwise, or until the transport fails.
    pub(crate) async fn run(&mut self) -> Result<(), DispatchError> {
        let mut arrived: Vec<Delivered> = Vec::new();
        loop {
            let limit = self.limit();
            let room = limit.events > 0 && limit.bytes > 0;
            tokio::select! {
                biased;
                changed = self.phase.changed() => {
                    let phase = *self.phase.borrow_and_update();
                    match phase {
                        Phase::Run if changed.is_ok() => {}
                        Phase::Drain(_) | Phase::Change(_) if changed.is_ok() => return self.drain(phase).await,
                        _ => return Ok(()),
                    }
                }
                Some((of, settled)) = self.settling.next(), if !self.settling.is_empty() => {
                    self.settled(of, settled)?;
                }
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.joined(ended);
                    while let Some(ended) = self.tasks.try_join_next() {
                        self.joined(ended);
                    }
                }
                () = gather::over(&mut self.gather) => {}
                read = self.consumer.next(limit, &mut arrived), if room => {
                    read.map_err(|error| DispatchError::Consume { handler: self.name(), error })?;
                    let now = self.clock.now();
                    self.now = now;
                    let (mut arrived, mut settled) = (arrived.drain(..), Vec::new());
                    while self.accept_some(&mut arrived, now) {
                        self.go_on().await;
                        settled.extend(std::iter::from_fn(|| self.settling.next().now_or_never().flatten()));
                    }
                    // Not before all are in the lanes of their keys: a lane that is left starts with whatever comes next.
                    for (of, settled) in settled {
                        self.settled(of, settled)?;
                    }
                }
            }
            self.go_on().await;
        }
    }

    /// Does all that can be done, and sends what is to be settled.
    async fn go_on(&mut self) {
        while !self.work() {
            yield_now().await;
        }
        self.flush();
        if !coop::has_budget_remaining() {
            yield_now().await;
        }
    }

    /// Does all that can be done at once. False: not all of it. This task has had its share of what the runtime grants one at
    /// a time, so whatever a handler would wait for (a lock, a channel) would not be ready, though it is, and each call would
    /// become a task: others go first.
    fn work(&mut self) -> bool {
        if !self.work.is_empty() || self.gather.is_some() {
            self.now = self.clock.now();
        }
        loop {
            match self.work.pop_front() {
                Some(Work::Call(id, member)) => self.call(id, member),
                Some(Work::Advance(id)) => self.advance(id),
                None if self.call_batch() => {}
                None => return true,
            }
            if !coop::has_budget_remaining() {
                return false;
            }
        }
    }

    /// Starts every member of the run that may start; ends the run if nothing is left to do.
    fn advance(&mut self, id: RunId) {
        while let Some(run) = self.runs.get_mut(id) {
            match run.next_step(&self.members) {
                run::Step::Start(member) => self.enqueue(id, member),
                run::Step::Settle(settlement) => self.send(id, settlement),
                run::Step::Wait => return,
                run::Step::End => {
                    self.end(id);
                    return;
                }
            }
        }
    }

    /// Gives the run one of the member's places, or lets it wait for one; of a batch handler, for the others of its batch.
    fn enqueue(&mut self, id: RunId, member: usize) {
        if let Some(gather) = &mut self.gather {
            gather.add(id, &self.clock);
        } else if self.members[member].has_place() {
            self.members[member].running += 1;
            self.work.push_back(Work::Call(id, member));
        } else {
            self.members[member].queue.push_back(id);
        }
    }

    fn call(&mut self, id: RunId, member: usize) {
        let Some(run) = self.runs.get_mut(id) else { return };
        if run.is_expired(member, &self.clock) {
            let settlement = run.expire(member);
            self.send(id, settlement);
            self.leave_place(member);
            self.work.push_back(Work::Advance(id));
            return;
        }
        let (over, mut memory) = self.members[member].take_memory();
        let called = &self.members[member];
        let state = match (called.keyed, run.delivered.envelope.key()) {
            (true, Some(key)) => Some(self.consumer.state(member, run.delivered.position.partition(), key)),
            _ => None,
        };
        let (delivered, read) = (&run.delivered, self.now);
        let prepared = invoke::Prepared { run: id, index: member, member: called, delivered, read };
        let started = prepared.start(over, &mut memory, state);
        self.members[member].memory = memory;
        self.started(started);
    }

    /// Calls the batch handler if a batch is complete and a place is free; whether it did.
    fn call_batch(&mut self) -> bool {
        let Some(gather) = self.gather.as_mut().filter(|_| self.members[0].has_place()) else { return false };
        let Some(batch) = gather.take(&self.clock) else { return false };
        let mut fresh = Vec::with_capacity(batch.len());
        for id in batch {
            let Some(run) = self.runs.get_mut(id) else { continue };
            if run.is_expired(0, &self.clock) {
                let settlement = run.expire(0);
                self.send(id, settlement);
                self.work.push_back(Work::Advance(id));
                continue;
            }
            self.lanes.call(run.key);
            fresh.push(id);
        }
        if !fresh.is_empty() {
            self.members[0].running += 1;
            let runs = fresh.iter().filter_map(|id| Some((*id, &self.runs.get(*id)?.delivered)));
            let started = invoke::start_batch(&self.members[0], 0, runs, self.now);
            self.started(started);
        }
        true
    }

    fn started(&mut self, started: Started) {
        match started {
            Started::Ended(ended) => self.ended(ended),
            Started::Pending(task) => {
                self.tasks.spawn(task);
            }
        }
    }

    fn joined(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        // Panics of handlers are caught inside the task, so only a cancelled one is an error; it is delivered again.
        if let Ok(ended) = ended {
            self.ended(ended);
        }
    }

    /// A call ended: its outcomes become settlements, its place goes to the next in line.
    fn ended(&mut self, ended: Ended) {
        let Ended { member, finished } = ended;
        let now = self.clock.now();
        self.now = now;
        match finished {
            Events::One(finished) => {
                self.finished(member, finished, now);
            }
            Events::Batch(batch) => self.batch_finished(member, batch, now),
            // Unsettled: it is delivered again when the handler is served again.
            Events::GivenUp => {}
        }
        self.leave_place(member);
    }

    /// An event is handled: what became of it.
    fn finished(&mut self, member: usize, finished: Finished, now: Timestamp) -> Option<Action> {
        let Finished { run: id, read, outcome, effects, over } = finished;
        let routed = over.as_ref().and_then(Invocation::routed);
        self.keep(member, over);
        let run = self.runs.get_mut(id)?;
        let mut settlement = run.settle(&self.members[member], member, (outcome, effects), (read, now));
        if routed.is_some() {
            settlement.written.get_or_insert_default().routed = routed;
        }
        let action = settlement.action;
        self.send(id, settlement);
        self.work.push_back(Work::Advance(id));
        Some(action)
    }

    /// Keeps the memory of a call for the next one; a large event is not kept in memory for that.
    fn keep(&mut self, member: usize, over: Option<Invocation>) {
        if let Some(over) = over.filter(|over| over.envelope().encoded_bytes() <= KEPT_BYTES) {
            self.members[member].over = Some(over);
        }
    }

    /// As [`finished`](Self::finished), one by one; with strict order, what stands behind a failed event of its key is
    /// given back, so that it is handled after that one.
    fn batch_finished(&mut self, member: usize, batch: Vec<Finished>, now: Timestamp) {
        let mut failed: Vec<u64> = Vec::new();
        for finished in batch {
            let id = finished.run;
            let Some(run) = self.runs.get_mut(id) else { continue };
            let key = run.key.filter(|_| self.lanes.is_strict());
            if key.is_some_and(|key| failed.contains(&key)) {
                let settlement = run.repeat(member);
                self.send(id, settlement);
                self.work.push_back(Work::Advance(id));
                continue;
            }
            self.finished(member, finished, now);
            if let Some(key) = key
                && self.runs.get(id).is_some_and(|run| run.waits)
            {
                failed.push(key);
            }
        }
    }

    /// A call's place is free.
    fn leave_place(&mut self, member: usize) {
        match self.members[member].queue.pop_front() {
            Some(next) => self.work.push_back(Work::Call(next, member)),
            None => self.members[member].running -= 1,
        }
    }

    /// The run has nothing left to start: its lane goes on when its settlements are durable, or now if that does.
    fn end(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.ended = true;
        if run.waits {
            for waiting in self.lanes.park(run.key) {
                self.give_back(waiting);
            }
        } else if self.lanes.is_pipelined() {
            let key = run.key.take();
            self.leave(key);
        }
    }

    /// An event is through: the next one of its key starts.
    fn leave(&mut self, key: Option<u64>) {
        if let Some(next) = self.lanes.leave(key) {
            self.start(next);
            while self.gather.as_ref().is_some_and(Gather::has_room)
                && let Some(next) = self.lanes.join(key)
            {
                self.start(next);
            }
        }
    }

    /// Gives a run back to the transport, nothing of it having started.
    fn give_back(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.ended = true;
        run.given_back = true;
        for settlement in run.release() {
            self.send(id, settlement);
        }
    }
}
