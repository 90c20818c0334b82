//! Who serves a partition of a subscription: leases are taken, kept up, lost and given up.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;

use super::{
    BrokerError,
    group::Group,
    known::Pending,
    ledger::Writing,
    members::Division,
    share::{Lease, Share},
};
use crate::clock::Timestamp;

/// How long a lease is good for. Who holds it keeps it up at a third of that.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// How long a broker that failed is left alone.
const RETRY: Duration = Duration::from_millis(100);

impl Group {
    /// Keeps its leases up, and looks what others do under theirs.
    pub(super) async fn keep_up(&self) {
        let keeping = self.shares.iter().map(|share| async move {
            let lease = share.serving.lock().lease;
            match lease {
                Lease::Held | Lease::Leaving => self.renew(share).await,
                Lease::Free(_) => self.look_on(share).await,
                Lease::Trying | Lease::Released => Ok(()),
            }
        });
        for kept in join_all(keeping).await {
            if let Err(error) = kept {
                tracing::warn!(%error, url = self.inner.broker.url(), "a lease was not kept up");
            }
        }
    }

    /// Reads what who serves a share writes of it: whoever waits until all is done must know, and whoever serves it next.
    async fn look_on(&self, share: &Share) -> Result<(), BrokerError> {
        let (mut is_free, now) = (true, self.inner.clock.now());
        for ledger in &share.ledgers {
            let writing = ledger.write().await;
            ledger.catch_up(&*self.inner.broker, &writing).await?;
            is_free &= ledger.known().held_until(&self.inner.holder, now).is_none();
        }
        let mut serving = share.serving.lock();
        if is_free && matches!(serving.lease, Lease::Free(_)) {
            serving.lease = Lease::Free(now);
        }
        Ok(())
    }

    /// Begins to serve what is this process's part, and ends to serve what is not.
    pub(super) async fn take_part(&self, division: Division) {
        for share in &self.shares {
            let is_ours = division.has(share.partition);
            share.is_ours.store(is_ours, Ordering::Release);
            let mut serving = share.serving.lock();
            match serving.lease {
                Lease::Held if !is_ours => serving.lease = Lease::Leaving,
                Lease::Leaving if is_ours => serving.lease = Lease::Held,
                _ => {}
            }
        }
        self.hand_over().await;
        self.stirred.notify_waiters();
    }

    /// Gives up shares that are others' now, once nothing of them is handed out.
    pub(super) async fn hand_over(&self) {
        for share in &self.shares {
            let is_through = {
                let mut serving = share.serving.lock();
                let is_through = serving.lease == Lease::Leaving && serving.hand.in_flight.is_empty();
                if is_through {
                    serving.end(&self.spec, Lease::Trying);
                }
                is_through
            };
            if is_through {
                self.give_up(share).await;
                let mut serving = share.serving.lock();
                if serving.lease == Lease::Trying {
                    serving.lease = Lease::Free(Timestamp::default());
                }
            }
        }
    }

    async fn renew(&self, share: &Share) -> Result<(), BrokerError> {
        let broker = &*self.inner.broker;
        let until = self.inner.clock.now().after(LEASE);
        for (member, ledger) in share.ledgers.iter().enumerate() {
            let writing = ledger.write().await;
            loop {
                let held = (self.inner.holder.as_str(), until);
                let mut renewed = ledger.renew(broker, held, &writing).await;
                if renewed.is_ok() && ledger.known().is_checkpoint_due() {
                    renewed = ledger.checkpoint(broker, &writing).await;
                }
                match renewed {
                    Err(BrokerError::Moved) => {
                        if !self.moved(share, member, &mut Pending::new([]), &writing).await? {
                            return Ok(());
                        }
                    }
                    renewed => break renewed?,
                }
            }
        }
        let mut serving = share.serving.lock();
        if serving.lease.is_held() {
            let was_over = serving.until <= self.inner.clock.now();
            serving.until = until;
            drop(serving);
            if was_over {
                self.stirred.notify_waiters();
            }
        }
        Ok(())
    }

    /// A ledger goes on otherwise than was thought: whether its lease is still ours.
    pub(super) async fn moved(
        &self,
        share: &Share,
        member: usize,
        pending: &mut Pending,
        writing: &Writing<'_>,
    ) -> Result<bool, BrokerError> {
        let ledger = &share.ledgers[member];
        let foreign = ledger.catch_up_with(&*self.inner.broker, pending, writing).await?;
        let held = ledger.known().is_held_by(&self.inner.holder);
        let mut serving = share.serving.lock();
        if held {
            let states = share.states();
            serving.notice(&self.spec, &states, &foreign);
        } else if serving.lease != Lease::Released {
            let until = ledger.known().held_until(&self.inner.holder, self.inner.clock.now());
            serving.end(&self.spec, Lease::Free(until.unwrap_or_default()));
        }
        drop(serving);
        self.stirred.notify_waiters();
        Ok(held)
    }

    /// Tries to get a share's lease, and begins to serve it.
    pub(super) async fn acquire(self: Arc<Self>, index: usize) {
        let share = &self.shares[index];
        let taken = self.take_lease(share).await.unwrap_or_else(|error| {
            tracing::warn!(%error, url = self.inner.broker.url(), "a lease cannot be taken: it is tried again");
            Err(self.inner.clock.now().after(RETRY))
        });
        {
            let instances = self.instances.lock();
            let mut serving = share.serving.lock();
            if serving.lease == Lease::Trying {
                match taken {
                    Ok(until) => serving.begin(until, &self.spec, &share.states(), &instances.ids),
                    Err(again) => serving.lease = Lease::Free(again),
                }
            }
        }
        self.stirred.notify_waiters();
    }

    /// Until when the lease is ours now, or else another process's.
    async fn take_lease(&self, share: &Share) -> Result<Result<Timestamp, Timestamp>, BrokerError> {
        let mut first = None;
        let (broker, holder) = (&*self.inner.broker, self.inner.holder.as_str());
        for ledger in &share.ledgers {
            let writing = ledger.write().await;
            loop {
                ledger.catch_up(broker, &writing).await?;
                let now = self.inner.clock.now();
                if let Some(until) = ledger.known().held_until(holder, now) {
                    return Ok(Err(until));
                }
                let until = now.after(LEASE);
                match ledger.lease(broker, (holder, until), &writing).await {
                    Err(BrokerError::Moved) => {}
                    leased => {
                        leased?;
                        // It ends where the first of its ledgers ends.
                        first.get_or_insert(until);
                        break;
                    }
                }
            }
        }
        Ok(Ok(first.unwrap_or_default()))
    }

    /// Gives up all leases, so that others need not wait for their ends.
    pub(super) async fn release(&self) {
        for share in &self.shares {
            let was = {
                let mut serving = share.serving.lock();
                let was = serving.lease;
                serving.end(&self.spec, Lease::Released);
                was
            };
            self.stirred.notify_waiters();
            if was.is_held() {
                self.give_up(share).await;
            }
        }
    }

    /// Gives up the lease of a share that is served no more.
    async fn give_up(&self, share: &Share) {
        for ledger in &share.ledgers {
            let writing = ledger.write().await;
            if ledger.known().is_held_by(&self.inner.holder) {
                // One that moved is another's already; one that fails ends by itself.
                let _ = ledger.release(&*self.inner.broker, &self.inner.holder, &writing).await;
            }
        }
    }
}
