//! What is done to subscriptions from outside: dead letters resolved, a new beginning, removal.

use std::sync::Arc;

use bytes::Bytes;

use super::{BrokerError, Inner, known::Known, ledger::Ledger};
use crate::{
    event::Envelope,
    transport::{
        Control, ControlError, Position, PublishError, Resolution,
        log::{
            control::edit,
            records::{Change, Discard, Redrive, RedriveAbout, Remember, Remove, Reset},
        },
    },
};

fn failed(error: BrokerError) -> ControlError {
    ControlError::Publish(PublishError::from(error))
}

impl Inner {
    pub(super) async fn control(self: Arc<Self>, subscription: String, control: Control) -> Result<(), ControlError> {
        let topic = self.topic_of(&subscription).await?;
        let partitions = self.partitions(&topic).await.map_err(ControlError::Publish)?;
        if self.group(&subscription).is_some() && matches!(control, Control::Reset(_) | Control::Remove) {
            return Err(ControlError::Served(subscription));
        }
        match control {
            Control::Resolve(letters) => self.resolve(&subscription, letters).await?,
            Control::Reset(start) => {
                for partition in 0..partitions {
                    let from = self.start(&topic, partition, start).await.map_err(ControlError::Publish)?.0;
                    let reset = Change::Reset(Reset { subscription: 0, from });
                    self.append(&self.ledger(&subscription, partition), vec![reset]).await.map_err(failed)?;
                }
            }
            Control::Remove => {
                for partition in 0..partitions {
                    let remove = Change::Remove(Remove { subscription: 0 });
                    let ledger = self.ledger(&subscription, partition);
                    self.append(&ledger, vec![remove]).await.map_err(failed)?;
                    self.shorten(&ledger, &ledger.write().await).await.map_err(failed)?;
                }
            }
            Control::Remember(what) => self.remember(&subscription, what).await?,
        }
        self.progress.notify_waiters();
        Ok(())
    }

    async fn topic_of(self: &Arc<Self>, subscription: &str) -> Result<String, ControlError> {
        let ledger = self.ledger(subscription, 0);
        let writing = ledger.write().await;
        ledger.catch_up(&*self.broker, &writing).await.map_err(failed)?;
        let topic = ledger.known().subscription().and_then(|state| state.about.topic_name.clone());
        topic.ok_or_else(|| ControlError::UnknownSubscription(subscription.to_owned()))
    }

    async fn remember(self: &Arc<Self>, subscription: &str, what: Bytes) -> Result<(), ControlError> {
        let remember = Change::Remember(Remember { subscription: 0, what });
        self.append(&self.ledger(subscription, 0), vec![remember]).await.map_err(failed)
    }

    /// All of them, as far as one partition's go together.
    async fn resolve(
        self: &Arc<Self>,
        subscription: &str,
        letters: Vec<(Position, Resolution)>,
    ) -> Result<(), ControlError> {
        let mut changes: Vec<(u16, Vec<Change>)> = Vec::new();
        for (position, resolution) in letters {
            let ledger = self.ledger(subscription, position.partition());
            let change = self.resolution(&ledger, position, resolution).await?;
            match changes.iter_mut().find(|(partition, _)| *partition == position.partition()) {
                Some((_, known)) => known.push(change),
                None => changes.push((position.partition(), vec![change])),
            }
        }
        for (partition, changes) in changes {
            let ledger = self.ledger(subscription, partition);
            self.append(&ledger, changes.clone()).await.map_err(failed)?;
            if let Some(group) = self.group(subscription)
                && let Some(share) = group.shares.get(usize::from(partition))
            {
                let mut serving = share.serving.lock();
                let states = share.states();
                serving.notice(&group.spec, &states, &changes);
                group.stirred.notify_waiters();
            }
        }
        Ok(())
    }

    async fn resolution(
        &self,
        ledger: &Ledger,
        position: Position,
        resolution: Resolution,
    ) -> Result<Change, ControlError> {
        let offset = position.offset();
        {
            let writing = ledger.write().await;
            ledger.catch_up(&*self.broker, &writing).await.map_err(failed)?;
        }
        let subscription = ledger.name.subscription.clone();
        let pointer = |known: &Known| known.subscription()?.dead.get(&offset).map(|dead| dead.lsn);
        let read = ledger.pointed(&*self.broker, pointer).await;
        let dead = match read.map_err(|error| ControlError::Storage(error.to_string()))? {
            Some(Change::DeadLetter(dead)) => dead,
            _ => return Err(ControlError::NoDeadLetter { subscription, position }),
        };
        let envelope: Envelope = match resolution {
            Resolution::Discard => return Ok(Change::Discard(Discard { subscription: 0, offset })),
            Resolution::Redrive => dead.envelope,
            Resolution::Edit(edited) => edit(&dead.envelope, &edited)?,
        };
        let about =
            RedriveAbout { subscription: 0, partition: dead.about.partition, offset, history: dead.about.history };
        Ok(Change::Redrive(Redrive { about, envelope }))
    }
}
