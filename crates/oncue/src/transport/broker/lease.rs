//! Who serves a partition of a subscription: leases are taken, kept up, lost and given up.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{
    BrokerError,
    group::Group,
    known::Pending,
    ledger::Writing,
    share::{Lease, Share},
};
use crate::clock::Timestamp;

/// How long a lease is good for. Who holds it keeps it up at a third of that.
const LEASE: Duration = Duration::from_secs(3);
/// How long a broker that failed is left alone.
const RETRY: Duration = Duration::from_millis(100);

impl Group {
    /// Keeps its leases up as long as it is there.
    pub(super) fn keep_up(self: &Arc<Self>) {
        let (weak, clock) = (Arc::downgrade(self), self.inner.clock.clone());
        self.inner.broker.runtime().spawn(async move {
            loop {
                clock.sleep(LEASE / 3).await;
                let Some(group) = weak.upgrade() else { return };
                let renewing = group.shares.iter().map(|share| group.renew(share));
                for renewed in join_all(renewing).await {
                    if let Err(error) = renewed {
                        tracing::warn!(%error, url = group.inner.broker.url(), "a lease was not kept up");
                    }
                }
            }
        });
    }

    async fn renew(&self, share: &Share) -> Result<(), BrokerError> {
        if share.serving.lock().lease != Lease::Held {
            return Ok(());
        }
        let broker = &*self.inner.broker;
        for (member, ledger) in share.ledgers.iter().enumerate() {
            let writing = ledger.write().await;
            let until = self.inner.clock.now().after(LEASE);
            loop {
                let held = (self.inner.holder.as_str(), until);
                let mut renewed = ledger.lease(broker, held, &writing).await;
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
        let lease = match self.take_lease(share).await {
            Ok(None) => Lease::Held,
            Ok(Some(until)) => Lease::Free(until),
            Err(error) => {
                tracing::warn!(%error, url = self.inner.broker.url(), "a lease cannot be taken: it is tried again");
                Lease::Free(self.inner.clock.now().after(RETRY))
            }
        };
        {
            let instances = self.instances.lock();
            let mut serving = share.serving.lock();
            if serving.lease == Lease::Trying {
                serving.lease = lease;
                if lease == Lease::Held {
                    serving.begin(&self.spec, &share.states(), &instances.ids);
                }
            }
        }
        self.stirred.notify_waiters();
    }

    /// Nothing if the lease is ours now; else when it may be tried again.
    async fn take_lease(&self, share: &Share) -> Result<Option<Timestamp>, BrokerError> {
        let (broker, holder) = (&*self.inner.broker, self.inner.holder.as_str());
        for ledger in &share.ledgers {
            let writing = ledger.write().await;
            loop {
                ledger.catch_up(broker, &writing).await?;
                let now = self.inner.clock.now();
                if let Some(until) = ledger.known().held_until(holder, now) {
                    return Ok(Some(until));
                }
                match ledger.lease(broker, (holder, now.after(LEASE)), &writing).await {
                    Err(BrokerError::Moved) => {}
                    leased => break leased?,
                }
            }
        }
        Ok(None)
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
            if was != Lease::Held {
                continue;
            }
            for ledger in &share.ledgers {
                let writing = ledger.write().await;
                if ledger.known().is_held_by(&self.inner.holder) {
                    // One that moved is another's already; one that fails ends by itself.
                    let _ = ledger.release(&*self.inner.broker, &self.inner.holder, &writing).await;
                }
            }
        }
    }
}
