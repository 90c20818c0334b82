//! One of the instances that share a subscription: its end of it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{FutureExt as _, select};

use super::group::Group;
use crate::transport::{
    BoxFuture, ConsumeError, Consumer, Delivered, Limit, SettleError, Settlement,
    log::{giving::Giving, hand::ConsumerId},
};

/// What it was given is left to the others when it goes, and that is when also its last settling is through.
struct Instance {
    group: Arc<Group>,
    id: ConsumerId,
}

/// One instance's end.
pub(super) struct BrokerConsumer {
    instance: Arc<Instance>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        let group = &self.group;
        let mut instances = group.instances.lock();
        instances.ids.retain(|known| *known != self.id);
        for share in &group.shares {
            share.serving.lock().leave(self.id);
        }
        if instances.ids.is_empty() {
            instances.gone = true;
            let mut served = group.inner.served.lock();
            served.retain(|_, known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(group)));
            drop(served);
            // What it was not through with is not waited for any more.
            group.inner.progress.notify_waiters();
            let releasing = Arc::clone(group);
            group.inner.broker.runtime().spawn(async move {
                releasing.release().await;
                // Others learn of it within moments anyhow.
                let _ = releasing.inner.divide().await;
            });
        }
        drop(instances);
        group.stirred.notify_waiters();
    }
}

impl BrokerConsumer {
    pub(super) fn new(group: Arc<Group>, id: ConsumerId) -> Self {
        Self { instance: Arc::new(Instance { group, id }) }
    }
}

impl Consumer for BrokerConsumer {
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>> {
        let Instance { group, id } = &*self.instance;
        async move {
            let mut growth = group.inner.broker.growth();
            loop {
                // Before it is looked: what comes meanwhile wakes us at once.
                let stirred = group.stirred.notified();
                let mut stirred = std::pin::pin!(stirred);
                stirred.as_mut().enable();
                growth.borrow_and_update();
                let mut giving = Giving { to: *id, now: group.inner.clock.now(), room: limit, out };
                let due = group.hand_out(&mut giving);
                if !out.is_empty() {
                    group.inner.progress.notify_waiters();
                    return Ok(());
                }
                group.inner.progress.notify_waiters();
                let grown = std::pin::pin!(growth.changed());
                let woken = select(stirred, grown);
                // Whatever it was: it is looked again.
                match due {
                    None => {
                        woken.await;
                    }
                    Some(due) => {
                        select(woken, group.inner.clock.sleep_until(due)).await;
                    }
                }
            }
        }
        .boxed()
    }

    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        let instance = Arc::clone(&self.instance);
        instance.group.hold(instance.id, &batch);
        let runtime = self.instance.group.inner.broker.runtime().clone();
        let settling = runtime.spawn(async move { instance.group.settle(instance.id, &batch).await });
        async move { settling.await.unwrap_or(Err(SettleError::Closed)) }.boxed()
    }

    fn state(
        &self,
        member: usize,
        partition: u16,
        key: &str,
    ) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let (group, key) = (Arc::clone(&self.instance.group), key.to_owned());
        async move {
            let value = group.value(member, partition, &key).await;
            value.map_err(|error| ConsumeError::Storage(error.to_string()))
        }
        .boxed()
    }
}
