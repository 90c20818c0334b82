//! Dead letters: seen, handled again, edited, discarded.

use super::Bus;
use crate::{
    error::Result,
    event::{Envelope, EnvelopeBuilder, EnvelopeError, InvalidEvent},
    filter::Filter,
    transport::{Control, ControlError, DeadLetter, InspectError, Position, Resolution},
};

/// Resolved at once, at most: so many, and so many bytes of events (and one more), are one write.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

/// The dead letters of one handler; made by [`Bus::dead_letters`].
///
/// ```
/// # use oncue::prelude::*;
/// # #[tokio::main]
/// # async fn main() -> oncue::Result<()> {
/// # let refuse = (|_: &Envelope| Err::<(), _>("no such account")).named("charge").types(["order.created"]).inline();
/// # let app = App::open("memory:").await?.on(refuse.retry(policy::never())).start().await?;
/// # app.publish(Envelope::builder("order.created").subject("o-1").build().unwrap()).await?;
/// # app.idle().await?;
/// let dead = app.dead_letters("charge");
/// for letter in dead.list()? {
///     println!("{} {}: {}", letter.position, letter.envelope.id(), letter.history.last().unwrap().error);
/// }
/// dead.redrive_matching(&oncue::filter::Filter::exact("subject", "o-1")).await?;
/// # app.idle().await?;
/// # app.shutdown().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    bus: Bus,
    handler: String,
}

impl DeadLetters {
    pub(super) fn of(bus: &Bus, handler: &str) -> Self {
        Self { bus: bus.clone(), handler: handler.to_owned() }
    }

    /// All of them, oldest first.
    ///
    /// # Errors
    /// There is no such subscription, or they cannot be read.
    pub fn list(&self) -> Result<Vec<DeadLetter>, InspectError> {
        self.bus.inspect().dead_letters(&self.handler)
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none at this position, or it cannot be read.
    pub fn get(&self, position: Position) -> Result<DeadLetter> {
        let found = self.list()?.into_iter().find(|letter| letter.position == position);
        let gone = || ControlError::NoDeadLetter { subscription: self.handler.clone(), position };
        Ok(found.ok_or_else(gone)?)
    }

    /// Handles one again: by this handler alone, from the first attempt on. Its key's order is kept: nothing of the key
    /// runs beside it, and if it held its key, the key goes on when it is through.
    ///
    /// # Errors
    /// There is none at this position, or it could not be recorded.
    pub async fn redrive(&self, position: Position) -> Result<()> {
        self.resolve(vec![(position, Resolution::Redrive)]).await
    }

    /// Changes one, and handles it again. Id, source and key stay, the extension `oncueedition` counts the editions. What
    /// was published is not changed.
    ///
    /// # Errors
    /// There is none at this position, the edited event breaks a rule, or it could not be recorded.
    pub async fn edit(&self, position: Position, edit: impl FnOnce(EnvelopeBuilder) -> EnvelopeBuilder) -> Result<()> {
        let letter = self.get(position)?;
        let edited = edit(letter.envelope.into_builder()).build();
        let edited: Envelope = edited.map_err(|error: EnvelopeError| InvalidEvent::from(error))?;
        self.resolve(vec![(position, Resolution::Edit(edited))]).await
    }

    /// Gives one up for good. If it held its key, the key goes on.
    ///
    /// # Errors
    /// There is none at this position, or it could not be recorded.
    pub async fn discard(&self, position: Position) -> Result<()> {
        self.resolve(vec![(position, Resolution::Discard)]).await
    }

    /// Handles all those again whose event matches, oldest first; how many.
    ///
    /// # Errors
    /// There is no such subscription, or they could not be read or recorded; some may be redriven then.
    pub async fn redrive_matching(&self, filter: &Filter) -> Result<usize> {
        self.resolve_matching(filter, Resolution::Redrive).await
    }

    /// Gives up all those whose event matches; how many.
    ///
    /// # Errors
    /// There is no such subscription, or they could not be read or recorded; some may be discarded then.
    pub async fn discard_matching(&self, filter: &Filter) -> Result<usize> {
        self.resolve_matching(filter, Resolution::Discard).await
    }

    /// Handles all of them again, oldest first; how many.
    ///
    /// # Errors
    /// As [`redrive_matching`](Self::redrive_matching).
    pub async fn redrive_all(&self) -> Result<usize> {
        self.resolve_those(self.list()?, &Resolution::Redrive).await
    }

    async fn resolve_matching(&self, filter: &Filter, resolution: Resolution) -> Result<usize> {
        let matching = self.list()?.into_iter().filter(|letter| filter.matches(&letter.envelope));
        self.resolve_those(matching.collect(), &resolution).await
    }

    async fn resolve_those(&self, letters: Vec<DeadLetter>, resolution: &Resolution) -> Result<usize> {
        let count = letters.len();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for letter in letters {
            bytes += letter.envelope.encoded_bytes();
            batch.push((letter.position, resolution.clone()));
            if batch.len() >= BATCH || bytes >= BATCH_BYTES {
                self.resolve(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.resolve(batch).await?;
        }
        Ok(count)
    }

    async fn resolve(&self, letters: Vec<(Position, Resolution)>) -> Result<()> {
        Ok(self.bus.transport().control(&self.handler, Control::Resolve(letters)).await?)
    }
}

#[cfg(test)]
mod tests {
    use crate::{event::MAX_DATA_BYTES, prelude::*};

    #[tokio::test]
    async fn all_are_redriven_however_large_they_are() {
        let refuse = (|_: &Envelope| Err::<(), _>("no")).named("refuse").types(["t"]).inline();
        let app = App::open("memory:").await.unwrap().on(refuse.retry(policy::never())).start().await.unwrap();
        for _ in 0..3 {
            let large = Envelope::builder("t").data(vec![0; MAX_DATA_BYTES]).build().unwrap();
            app.publish(large).await.unwrap();
        }
        app.idle().await.unwrap();
        assert_eq!(app.dead_letters("refuse").redrive_all().await.unwrap(), 3);
        app.idle().await.unwrap();
        let letters = app.dead_letters("refuse").list().unwrap();
        assert!(letters.len() == 3 && letters.iter().all(|letter| letter.history.len() == 2));
        app.shutdown().await.unwrap();
    }
}
