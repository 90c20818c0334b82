//! Looking at what a node knows: each method asks it, and stands still until it answers.

use bytes::Bytes;
use oncue::{
    Envelope,
    transport::{
        DeadLetter, EventHandling, EventRef, Inspect, InspectError, Position, Settled, SourceState, StorageInfo,
        SubscriptionInfo, TopicInfo,
    },
};

use super::{
    message::{Page, Question, Reply},
    remote::{Ends, strange},
};

/// The answer of one kind, or an error that tells of another.
macro_rules! answer {
    ($ends:expr, $question:expr, $kind:ident) => {
        match $ends.look($question)? {
            Reply::$kind(answer) => Ok(answer),
            other => Err(InspectError::Storage(strange(&other))),
        }
    };
}

/// What a method gives that cannot fail, when the node cannot be asked.
fn or_nothing<T: Default>(answer: Result<T, InspectError>) -> T {
    answer.unwrap_or_else(|error| {
        tracing::warn!(%error, "the node does not tell what it knows");
        T::default()
    })
}

/// A whole list, page by page.
fn all<T>(mut page_from: impl FnMut(usize) -> Result<Page<T>, InspectError>) -> Result<Vec<T>, InspectError> {
    let mut all = Vec::new();
    loop {
        let page = page_from(all.len())?;
        let last = !page.more || page.items.is_empty();
        all.extend(page.items);
        if last {
            return Ok(all);
        }
    }
}

impl Ends {
    fn count(&self, question: Question) -> Result<u64, InspectError> {
        answer!(self, question, Count)
    }
}

impl Inspect for Ends {
    fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        let answer = || answer!(self, Question::Subscriptions, Subscriptions);
        or_nothing(answer())
    }

    fn unsettled(&self) -> u64 {
        // What is not known is not idle.
        self.count(Question::Unsettled { sessions: self.sessions() }).unwrap_or(1)
    }

    fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>, InspectError> {
        all(|skip| answer!(self, Question::DeadLetters { subscription: subscription.to_owned(), skip }, DeadLetters))
    }

    fn states(&self, subscription: &str) -> Result<Vec<(String, Bytes)>, InspectError> {
        all(|skip| answer!(self, Question::States { subscription: subscription.to_owned(), skip }, States))
    }

    fn browse(&self, topic: &str, from: u64, limit: usize) -> Result<Vec<(Position, Envelope)>, InspectError> {
        let mut next = from;
        all(|have| {
            let question = Question::Browse { topic: topic.to_owned(), from: next, limit: limit - have };
            let page: Page<(Position, Envelope)> = answer!(self, question, Events)?;
            next = page.items.last().map_or(next, |(position, _)| position.offset() + 1);
            Ok(Page { more: page.more && have + page.items.len() < limit, ..page })
        })
    }

    fn settled(&self, event: &EventRef, subscription: &str) -> Result<Option<Settled>, InspectError> {
        answer!(self, Question::Settled { event: event.clone(), subscription: subscription.to_owned() }, Outcome)
    }

    fn source(&self, id: &str) -> SourceState {
        let answer = || answer!(self, Question::Source { id: id.to_owned() }, Source);
        or_nothing(answer())
    }

    fn remembered(&self, subscription: &str) -> Option<Bytes> {
        let answer = || answer!(self, Question::Remembered { subscription: subscription.to_owned() }, Remembered);
        or_nothing(answer())
    }

    fn topics(&self) -> Vec<TopicInfo> {
        let answer = || answer!(self, Question::Topics, Topics);
        or_nothing(answer())
    }

    fn oldest_unsettled(&self, subscription: &str) -> Result<Option<(Position, Envelope)>, InspectError> {
        answer!(self, Question::OldestUnsettled { subscription: subscription.to_owned() }, Oldest)
    }

    fn handling(&self, topic: &str, position: Position) -> Result<Vec<EventHandling>, InspectError> {
        answer!(self, Question::Handling { topic: topic.to_owned(), position }, Handling)
    }

    fn storage(&self) -> StorageInfo {
        let answer = || answer!(self, Question::Storage, Storage);
        let mut storage = or_nothing(answer());
        storage.closed |= self.is_closed();
        storage
    }

    fn given_up(&self) -> u64 {
        or_nothing(self.count(Question::GivenUp))
    }
}
