//! What is offered to a client, and what it holds: a handler whose calls end when the client says so.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use super::{DEFAULT_LEASE, Pulled};
use crate::{
    error::LeaseError,
    handler::{
        Call, ErasedHandler, Invocation, Outcome,
        extract::{Context, EmitError},
    },
    policy::ErrorClass,
    transport::Action,
};

/// Events offered to a client; as many as the handler's concurrency allows.
pub(super) struct Leases {
    offers: Mutex<Offers>,
    /// Somebody may take an event.
    offered: Notify,
    /// Nobody takes or settles any more.
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Offers {
    /// What nobody has taken, in the order it came.
    waiting: VecDeque<String>,
    by_token: HashMap<String, Offer>,
}

/// A call of the handler that waits for a client.
struct Offer {
    invocation: Invocation,
    lease: Duration,
    /// Ends the waiting; nothing once it is taken.
    take: Option<oneshot::Sender<()>>,
    settle: oneshot::Sender<Outcome>,
}

impl Offers {
    /// What a client holds, as long as it may.
    fn held(&self, token: &str) -> Result<&Offer, LeaseError> {
        let offer = self.by_token.get(token).filter(|offer| offer.take.is_none());
        let in_time = |offer: &&Offer| offer.invocation.time_left().is_some_and(|left| !left.is_zero());
        offer.filter(in_time).ok_or(LeaseError::Over)
    }
}

impl Leases {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { offers: Mutex::default(), offered: Notify::new(), closed: watch::Sender::new(false) })
    }

    /// Completes when there may be more to take; it is to be made before [`take`](Self::take) is tried.
    pub(super) fn more(&self) -> tokio::sync::futures::Notified<'_> {
        self.offered.notified()
    }

    /// Takes up to `max` of what is offered: their leases begin.
    pub(super) fn take(&self, max: usize) -> Vec<Pulled> {
        let mut offers = self.offers.lock();
        let offers = &mut *offers;
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(token) = offers.waiting.pop_front()
        {
            let Some(offer) = offers.by_token.get_mut(&token) else { continue };
            offer.invocation.set_timeout(offer.lease);
            // A call that is cancelled at this moment takes its offer with it: the lease is over then.
            let _ = offer.take.take().map(|take| take.send(()));
            taken.push(Pulled {
                token,
                envelope: offer.invocation.envelope().clone(),
                position: offer.invocation.position(),
                attempt: offer.invocation.attempt(),
            });
        }
        if !offers.waiting.is_empty() {
            // Several offers may have been one wake.
            self.offered.notify_one();
        }
        taken
    }

    /// Gives a lease more time.
    pub(super) fn extend(&self, token: &str, time: Duration) -> Result<(), LeaseError> {
        self.offers.lock().held(token)?.invocation.extend(time);
        Ok(())
    }

    /// Ends a lease with an outcome, and with what `effects` leaves behind; who gets the answer learns what follows.
    pub(super) fn settle(
        &self,
        token: &str,
        outcome: Outcome,
        effects: impl FnOnce(&Context) -> Result<(), EmitError>,
    ) -> Result<oneshot::Receiver<Action>, LeaseError> {
        // Without the lock, and apart from the call: it goes on if its effects are refused.
        let apart = self.offers.lock().held(token)?.invocation.apart();
        effects(&Context::of(&apart))?;
        let mut offers = self.offers.lock();
        offers.held(token)?;
        let offer = offers.by_token.remove(token).ok_or(LeaseError::Over)?;
        drop(offers);
        let (told, follows) = oneshot::channel();
        *offer.invocation.effects() = apart.take_effects();
        offer.invocation.effects().told = Some(told);
        offer.settle.send(outcome).map_err(|_| LeaseError::Lost)?;
        Ok(follows)
    }

    /// Nobody takes or settles any more: what is offered goes back when the handler is stopped.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Offers an event, and waits for its outcome.
    async fn lend(self: Arc<Self>, invocation: Invocation) -> Outcome {
        // The handler's timeout is the lease: it begins when the event is taken.
        let lease = invocation.binding().timeout.unwrap_or(DEFAULT_LEASE);
        invocation.set_timeout(Duration::MAX);
        let ((take, taken), (settle, mut settled)) = (oneshot::channel(), oneshot::channel());
        let offer = Offer { invocation: invocation.clone(), lease, take: Some(take), settle };
        let offered = Offered::new(Arc::clone(&self), offer);
        tokio::select! {
            biased;
            _ = taken => {}
            () = invocation.binding().draining.begun() => if offered.withdraw() {
                return given_back();
            },
        }
        let mut closed = self.closed.subscribe();
        let outcome = tokio::select! {
            biased;
            outcome = &mut settled => return outcome.unwrap_or_else(|_| given_back()),
            () = over(&invocation) => expired(lease),
            // It is offered once more, to nobody, until the handler is stopped.
            _ = closed.wait_for(|closed| *closed) => given_back(),
        };
        // Who takes the offer away decides: the client may have settled it at this very moment.
        if offered.withdraw() { outcome } else { settled.await.unwrap_or_else(|_| given_back()) }
    }
}

/// Completes when the time is over, as long as it may be extended.
async fn over(invocation: &Invocation) {
    while let Some(left) = invocation.time_left().filter(|left| !left.is_zero()) {
        invocation.binding().clock.sleep(left).await;
    }
}

fn expired(lease: Duration) -> Outcome {
    let error = format!("its lease of {lease:?} is over: whoever pulled it neither settled nor extended it in time");
    Outcome::Fail { class: ErrorClass::Timeout, error }
}

/// Counts as no attempt.
fn given_back() -> Outcome {
    Outcome::Defer(Duration::ZERO)
}

/// An offer; it is gone when its call is.
struct Offered {
    leases: Arc<Leases>,
    token: String,
}

impl Offered {
    fn new(leases: Arc<Leases>, offer: Offer) -> Self {
        let token = Uuid::new_v4().simple().to_string();
        {
            let mut offers = leases.offers.lock();
            offers.waiting.push_back(token.clone());
            offers.by_token.insert(token.clone(), offer);
        }
        leases.offered.notify_one();
        Self { leases, token }
    }

    /// Takes the offer away; whether it was there.
    fn withdraw(&self) -> bool {
        let mut offers = self.leases.offers.lock();
        let withdrawn = offers.by_token.remove(&self.token);
        if withdrawn.as_ref().is_some_and(|offer| offer.take.is_some()) {
            offers.waiting.retain(|token| *token != self.token);
        }
        withdrawn.is_some()
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// The handler that offers what it is called with.
pub(super) struct Lender(pub(super) Arc<Leases>);

impl ErasedHandler for Lender {
    fn call(&self, invocation: &Invocation) -> Call {
        Call::Future(Box::pin(Arc::clone(&self.0).lend(invocation.clone())))
    }
}
