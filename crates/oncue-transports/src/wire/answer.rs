//! What a node tells of a log: lists in pages, so that an answer stays below its limit.

use bytes::Bytes;
use oncue::{
    Envelope,
    transport::{DeadLetter, Inspect, InspectError, Position},
};

use super::message::{Page, Question, Reply};

/// A page ends when it has so many bytes.
const PAGE_BYTES: usize = 8 << 20;
/// Most items of a page.
const PAGE_ITEMS: usize = 10_000;

pub(super) fn look(inspect: &dyn Inspect, question: Question) -> Result<Reply, InspectError> {
    Ok(match question {
        Question::Subscriptions => Reply::Subscriptions(inspect.subscriptions()),
        Question::Unsettled { .. } => Reply::Count(inspect.unsettled()),
        Question::DeadLetters { subscription, skip } => {
            Reply::DeadLetters(page(inspect.dead_letters(&subscription)?, skip, dead_letter_bytes))
        }
        Question::States { subscription, skip } => {
            let mut states = inspect.states(&subscription)?;
            // They come in no order, and pages need one.
            states.sort_unstable();
            Reply::States(page(states, skip, |(key, state): &(String, Bytes)| key.len() + state.len()))
        }
        Question::Browse { topic, from, limit } => {
            let events = inspect.browse(&topic, from, limit.min(PAGE_ITEMS))?;
            let cut = events.len() < limit && events.len() == PAGE_ITEMS;
            let mut page = page(events, 0, |(_, event): &(Position, Envelope)| event.encoded_bytes());
            page.more |= cut;
            Reply::Events(page)
        }
        Question::Settled { event, subscription } => Reply::Outcome(inspect.settled(&event, &subscription)?),
        Question::Source { id } => Reply::Source(inspect.source(&id)),
        Question::Remembered { subscription } => Reply::Remembered(inspect.remembered(&subscription)),
        Question::Topics => Reply::Topics(inspect.topics()),
        Question::OldestUnsettled { subscription } => Reply::Oldest(inspect.oldest_unsettled(&subscription)?),
        Question::Handling { topic, position } => Reply::Handling(inspect.handling(&topic, position)?),
        Question::Storage => Reply::Storage(inspect.storage()),
        Question::GivenUp => Reply::Count(inspect.given_up()),
    })
}

fn dead_letter_bytes(letter: &DeadLetter) -> usize {
    letter.envelope.encoded_bytes() + letter.history.iter().map(|failed| failed.error.len() + 64).sum::<usize>()
}

/// What follows after `skip` items, as much as a page takes; at least one item.
fn page<T>(all: Vec<T>, skip: usize, bytes_of: impl Fn(&T) -> usize) -> Page<T> {
    let mut left = all.into_iter().skip(skip).peekable();
    let (mut items, mut bytes) = (Vec::new(), 0);
    while let Some(item) = left.next_if(|item| items.is_empty() || bytes + bytes_of(item) <= PAGE_BYTES) {
        bytes += bytes_of(&item);
        items.push(item);
        if items.len() == PAGE_ITEMS {
            break;
        }
    }
    Page { items, more: left.peek().is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_at_its_bytes_and_always_has_an_item() {
        let large = vec![PAGE_BYTES + 1, 1, PAGE_BYTES - 1, 1];
        let pages = |skip| {
            let page = page(large.clone(), skip, |bytes| *bytes);
            (page.items, page.more)
        };
        assert_eq!(pages(0), (vec![PAGE_BYTES + 1], true));
        assert_eq!(pages(1), (vec![1, PAGE_BYTES - 1], true));
        assert_eq!(pages(3), (vec![1], false));
        assert_eq!(pages(4), (Vec::new(), false));
    }
}
