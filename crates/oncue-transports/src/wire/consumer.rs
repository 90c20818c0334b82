//! The client's end of a subscription: [`Hand`] says what is held, this asks the node.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use oncue::transport::{
    Action, BoxFuture, ConsumeError, Consumer, Delivered, Limit, OnDeadLetter, SettleError, Settlement, Stage,
    SubscriptionSpec,
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Notify};

use super::{
    caller::CallError,
    hand::{Fate, Hand, Keyed, Told},
    message::{Question, Refusal, Reply, Request, Session},
    remote::{Ends, WAIT_MILLIS, consume_error, new_session, strange},
};

/// How often an outcome is looked for whose session is over; within one lease.
const LOOKS: u32 = 10;
/// What is asked for on the side, to find such outcomes' events.
const ASIDE: Limit = Limit { events: 64, bytes: 4 << 20 };
/// Most events of one answer: what comes next is on its way while these are decoded, handled and settled.
const AT_ONCE: usize = 512;
/// Most events that are kept for whoever takes them next.
const MOST_READY: usize = 256;

pub(super) struct RemoteConsumer(Arc<Shared>);

struct Shared {
    ends: Arc<Ends>,
    spec: SubscriptionSpec,
    hand: Mutex<Hand>,
    /// Whose turn it is to ask for events.
    turn: Turn<Answered>,
    /// One at a time begins a new session.
    renewing: Turn<()>,
    /// Something may be handed out.
    freed: Notify,
    /// Outcomes that wait for their events are being looked for.
    looking: AtomicBool,
    /// Nobody takes events any more: no new session is begun.
    gone: AtomicBool,
    sent: Mutex<Sent>,
    /// A settle batch has its answer.
    answered: Notify,
}

/// The number of the last answer that came in a session.
struct Answered {
    session: Session,
    last: u64,
}

/// Settle batches that were sent: the last number, and those without an answer, by session.
#[derive(Default)]
struct Sent(HashMap<Session, (u64, BTreeSet<u64>)>);

impl Sent {
    fn begin(&mut self, session: Session, batch: Vec<Settlement>) -> (u64, Request) {
        // A session that is over needs no numbers once all of it is answered.
        self.0.retain(|known, (_, unanswered)| *known == session || !unanswered.is_empty());
        let (last, unanswered) = self.0.entry(session).or_default();
        *last += 1;
        let number = *last;
        unanswered.insert(number);
        let answered = unanswered.first().copied().unwrap_or(number);
        (number, Request::Settle { session, number, answered, batch })
    }

    fn is_answered(&mut self, session: Session, number: u64) {
        if let Some((_, unanswered)) = self.0.get_mut(&session) {
            unanswered.remove(&number);
        }
    }

    fn all_answered(&self) -> bool {
        self.0.values().all(|(_, unanswered)| unanswered.is_empty())
    }
}

impl RemoteConsumer {
    pub(super) fn new(ends: Arc<Ends>, session: Session, spec: SubscriptionSpec) -> Self {
        ends.hold(session);
        Self(Arc::new(Shared {
            ends,
            spec,
            hand: Mutex::new(Hand::new(session)),
            turn: Turn::new(Answered { session, last: 0 }),
            renewing: Turn::default(),
            freed: Notify::new(),
            looking: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            sent: Mutex::default(),
            answered: Notify::new(),
        }))
    }
}

impl Shared {
    /// Asks for events once.
    async fn fetch(self: &Arc<Self>, limit: Limit, wait: u64) -> Result<(), ConsumeError> {
        let mut turn = self.turn.lock().await;
        let session = {
            let hand = self.hand.lock();
            if hand.ready() > 0 {
                return Ok(());
            }
            hand.session
        };
        if turn.session != session {
            *turn = Answered { session, last: 0 };
        }
        let limit = Limit { events: limit.events.min(AT_ONCE), ..limit };
        let request = Request::Next { session, limit, last: turn.last, wait };
        match self.ends.caller.call(&request, None).await {
            Ok(Reply::Delivered { number, events }) if number != turn.last => {
                turn.last = number;
                self.give(session, number, events);
                Ok(())
            }
            Ok(Reply::Delivered { .. }) => Ok(()),
            Ok(other) => Err(ConsumeError::Storage(strange(&other))),
            Err(CallError::Refused(Refusal::UnknownSession(_))) => self.renew(session).await,
            Err(error) => Err(consume_error(error)),
        }
    }

    /// Takes in an answer of a session, and settles those events whose outcome is known already.
    fn give(self: &Arc<Self>, session: Session, answer: u64, events: Vec<Delivered>) {
        let (settled, back) = {
            let mut hand = self.hand.lock();
            if hand.session != session {
                return;
            }
            hand.give(answer, events)
        };
        self.freed.notify_one();
        self.give_back(session, back);
        if settled.is_empty() {
            return;
        }
        let (batch, told): (Vec<Keyed>, Vec<Told>) = settled.into_iter().unzip();
        let shared = Arc::clone(self);
        self.ends.caller.spawn(async move {
            let settled = shared.send(session, batch).await;
            for told in told {
                // Who does not wait any more needs no answer.
                let _ = told.send(settled.clone());
            }
        });
    }

    /// Gives events back unhandled.
    fn give_back(self: &Arc<Self>, session: Session, back: Vec<Keyed>) {
        if !back.is_empty() {
            let batch = back.into_iter().map(|(settlement, _)| settlement).collect();
            let (number, request) = self.sent.lock().begin(session, batch);
            let shared = Arc::clone(self);
            self.ends.caller.spawn(async move {
                // With the session, its events go back too.
                let answer = shared.ends.caller.call(&request, None).await;
                shared.is_answered(session, number);
                if let Err(error) = answer {
                    tracing::debug!(%error, "events that wait for their key were given back with their session");
                }
            });
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn is_answered(&self, session: Session, number: u64) {
        self.sent.lock().is_answered(session, number);
        self.answered.notify_one();
    }

    /// Until what was settled has its answer.
    async fn all_answered(&self) {
        while !self.sent.lock().all_answered() {
            self.answered.notified().await;
        }
    }

    /// Begins a new session in the place of one that is over.
    async fn renew(self: &Arc<Self>, over: Session) -> Result<(), ConsumeError> {
        let _one = self.renewing.lock().await;
        if self.is_gone() {
            return Err(ConsumeError::Closed);
        }
        if self.hand.lock().session != over {
            return Ok(());
        }
        let session = new_session();
        let subscription = self.spec.members.first().map_or("", |member| &*member.id);
        tracing::info!(subscription, "a new session: the node knows the old one no more");
        let request = Request::Subscribe { session, spec: self.spec.clone() };
        match self.ends.caller.call(&request, None).await {
            Ok(_) => {
                self.ends.hold(session);
                self.ends.lost(over);
                self.hand.lock().renew(over, session);
                if self.is_gone() {
                    // It was dropped meanwhile, and may have said goodbye to the old session.
                    self.ends.leave(session, std::future::ready(()));
                }
                Ok(())
            }
            Err(CallError::Refused(Refusal::Subscribe(error))) => Err(ConsumeError::Storage(error.to_string())),
            Err(error) => Err(consume_error(error)),
        }
    }

    /// Settles a batch in a session. If that is over, its outcomes wait for their events.
    fn send(self: &Arc<Self>, session: Session, batch: Vec<Keyed>) -> BoxFuture<'static, Result<(), SettleError>> {
        let settlements = batch.iter().map(|(settlement, _)| settlement.clone()).collect();
        // Counted from here on: who leaves waits for its answer.
        let (number, request) = self.sent.lock().begin(session, settlements);
        let shared = Arc::clone(self);
        Box::pin(async move {
            let answer = shared.ends.caller.call(&request, None).await;
            shared.is_answered(session, number);
            if let Err(CallError::Refused(Refusal::UnknownSession(_))) = answer {
                return shared.resettle(session, batch).await;
            }
            let (back, ready) = {
                let mut hand = shared.hand.lock();
                hand.answered(session, &batch);
                let back = match &answer {
                    Ok(Reply::Settled { given }) => hand.park(session, &shared.waiting_keys(&batch), *given),
                    _ => Vec::new(),
                };
                (back, hand.ready() > 0)
            };
            if ready {
                shared.freed.notify_one();
            }
            shared.give_back(session, back);
            match answer {
                Ok(Reply::Settled { .. }) => Ok(()),
                Ok(other) => Err(SettleError::Fenced(strange(&other))),
                Err(CallError::Refused(Refusal::Settle(error))) => Err(error),
                Err(error) => Err(SettleError::Fenced(error.to_string())),
            }
        })
    }

    /// The keys that wait because of their outcomes: what was given of them before goes back.
    fn waiting_keys(&self, batch: &[Keyed]) -> Vec<u32> {
        let holds = |member: u8| {
            self.spec.members.get(usize::from(member)).is_some_and(|member| member.on_dead_letter == OnDeadLetter::Hold)
        };
        let waits = |settlement: &Settlement| match settlement.action {
            Action::Retry(_) | Action::Release => true,
            Action::DeadLetter => holds(settlement.member),
            Action::Ack | Action::Skip | Action::Expire => false,
        };
        batch.iter().filter(|(settlement, _)| waits(settlement)).filter_map(|(_, key)| *key).collect()
    }

    /// Settles what was sent in a session that is over in the next one, as far as its events are there already.
    async fn resettle(self: &Arc<Self>, over: Session, batch: Vec<Keyed>) -> Result<(), SettleError> {
        if self.is_gone() {
            tracing::warn!(outcomes = batch.len(), "dropped: nobody takes their events any more");
            return Ok(());
        }
        self.settle_in_hand(|hand| batch.into_iter().map(|keyed| hand.resettle(over, keyed)).collect()).await
    }

    /// Sends outcomes that have a session, and waits for the events of those that have none.
    fn settle_in_hand(
        self: &Arc<Self>,
        fates: impl FnOnce(&mut Hand) -> Vec<Fate>,
    ) -> BoxFuture<'static, Result<(), SettleError>> {
        let (fates, session, ready) = {
            let mut hand = self.hand.lock();
            let fates = fates(&mut hand);
            (fates, hand.session, hand.ready() > 0)
        };
        if ready {
            self.freed.notify_one();
        }
        let (mut now, mut late, mut dropped) = (Vec::new(), Vec::new(), 0_usize);
        for fate in fates {
            match fate {
                Fate::Now(keyed) => now.push(keyed),
                Fate::Late(told) => late.push(told),
                Fate::Dropped => dropped += 1,
            }
        }
        if dropped > 0 {
            tracing::warn!(
                outcomes = dropped,
                "dropped: their session was over, and their events went on without them"
            );
        }
        if !late.is_empty() {
            self.look_for_late();
        }
        let sending = (!now.is_empty()).then(|| self.send(session, now));
        Box::pin(async move {
            if let Some(sending) = sending {
                sending.await?;
            }
            join_all(late).await.into_iter().try_for_each(|told| told.unwrap_or(Ok(())))
        })
    }

    /// Looks for the events that outcomes wait for, until none does.
    fn look_for_late(self: &Arc<Self>) {
        if self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        self.ends.caller.spawn(async move {
            let pause = shared.ends.lease / LOOKS;
            loop {
                // The dispatcher may have its hands full and ask for nothing: then this does.
                let look = shared.look(pause);
                if tokio::time::timeout(pause, look).await.is_ok() {
                    tokio::time::sleep(pause / 10).await;
                }
                let waiting = shared.hand.lock().has_late();
                if shared.ends.is_closed() || shared.is_gone() {
                    shared.looking.store(false, Ordering::Release);
                    // Who waits for them is told that they count no more.
                    shared.hand.lock().forget_late();
                    return;
                }
                if !waiting {
                    shared.looking.store(false, Ordering::Release);
                    // One may have come meanwhile.
                    if !shared.hand.lock().has_late() || shared.looking.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
                shared.ask_for_late().await;
            }
        });
    }

    async fn look(self: &Arc<Self>, wait: Duration) {
        let ready = self.hand.lock().ready();
        if ready < MOST_READY
            && let Err(error) = self.fetch(ASIDE, wait.as_millis().try_into().unwrap_or(WAIT_MILLIS)).await
        {
            tracing::debug!(%error, "events whose outcomes are known do not come");
        }
    }

    /// Whether the node has got outcomes that wait: its answer may have been lost.
    async fn ask_for_late(&self) {
        let waiting = self.hand.lock().look_for(LOOKS);
        for (position, member) in waiting {
            let Some(id) = self.spec.members.get(usize::from(member)).map(|member| &member.id) else { continue };
            let question = Question::Handling { topic: self.spec.topic.clone(), position };
            let answer = self.ends.caller.call(&Request::Inspect(question), Some(self.ends.lease / LOOKS)).await;
            let Ok(Reply::Handling(handling)) = answer else { return };
            let through = |stage| matches!(stage, Stage::Settled | Stage::Skipped | Stage::Expired | Stage::Dead);
            if handling.iter().any(|known| known.subscription == *id && through(known.stage)) {
                self.hand.lock().is_settled(position, member);
            }
        }
    }
}

impl Consumer for RemoteConsumer {
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>> {
        Box::pin(async move {
            let (shared, before) = (&self.0, out.len());
            loop {
                if shared.ends.is_closed() {
                    return Err(ConsumeError::Closed);
                }
                shared.hand.lock().take(limit, out);
                if out.len() > before {
                    return Ok(());
                }
                tokio::select! {
                    fetched = shared.fetch(limit, WAIT_MILLIS) => fetched?,
                    () = shared.freed.notified() => {}
                }
            }
        })
    }

    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        if self.0.ends.is_closed() {
            return Box::pin(std::future::ready(Err(SettleError::Closed)));
        }
        let settling = self.0.settle_in_hand(|hand| batch.into_iter().map(|outcome| hand.settle(outcome)).collect());
        // The settling does not depend on anybody waiting for it.
        let settled = self.0.ends.caller.spawn(settling);
        Box::pin(async move { settled.await.unwrap_or(Err(SettleError::Closed)) })
    }

    fn state(
        &self,
        member: usize,
        partition: u16,
        key: &str,
    ) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let (shared, key) = (Arc::clone(&self.0), key.to_owned());
        Box::pin(async move {
            loop {
                let session = shared.hand.lock().session;
                let request = Request::State { session, member, partition, key: key.clone() };
                match shared.ends.caller.call(&request, None).await {
                    Ok(Reply::State(state)) => return Ok(state),
                    Ok(other) => return Err(ConsumeError::Storage(strange(&other))),
                    Err(CallError::Refused(Refusal::UnknownSession(_))) => shared.renew(session).await?,
                    Err(error) => return Err(consume_error(error)),
                }
            }
        })
    }
}

impl Drop for RemoteConsumer {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
        let session = self.0.hand.lock().session;
        let shared = Arc::clone(&self.0);
        self.0.ends.leave(session, async move { shared.all_answered().await });
    }
}
