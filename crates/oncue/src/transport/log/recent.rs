//! The newest events as they were published, for those who keep up: handed over, instead of read from the log.
//!
//! Kept of topics that somebody follows, bounded in bytes over all of them; the oldest goes first. Whoever
//! comes too late for it reads the log, which has all.

use std::collections::VecDeque;

use oncue_log::{Lsn, TopicId};

use super::feed::FedEvent;
use crate::{event::Envelope, number_map::NumberMap};

/// Most bytes of events that are kept, with what an event takes besides its own.
const MAX_BYTES: usize = 20 << 20;
const BESIDES: usize = 192;

/// Locked with the state: events come in here in the order of the log.
#[derive(Default)]
pub(super) struct Recent {
    topics: NumberMap<Line>,
    /// The topic of each event that is kept, oldest first.
    order: VecDeque<TopicId>,
    bytes: usize,
}

/// The events of a topic, one after the other.
#[derive(Default)]
struct Line {
    followers: usize,
    /// The offset of the first event that is kept; where none is, of the next one, if that is known.
    first: Option<u64>,
    events: VecDeque<Kept>,
}

struct Kept {
    /// The log is durable up to here when the event is.
    end: Lsn,
    partition: u16,
    envelope: Envelope,
}

impl Line {
    fn pop(&mut self) -> usize {
        let Some(kept) = self.events.pop_front() else { return 0 };
        self.first = self.first.map(|first| first + 1);
        kept.bytes()
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        self.envelope.encoded_bytes() + BESIDES
    }
}

impl Recent {
    /// Somebody reads the topic as it grows.
    pub(super) fn follow(&mut self, topic: TopicId) {
        self.topics.entry(u64::from(topic.0)).or_default().followers += 1;
    }

    /// One of them does no more.
    pub(super) fn unfollow(&mut self, topic: TopicId) {
        let topic = u64::from(topic.0);
        let Some(line) = self.topics.get_mut(&topic) else { return };
        line.followers -= 1;
        if line.followers == 0 {
            // Its places in the order stay: they let others go a little early.
            self.bytes -= line.events.iter().map(Kept::bytes).sum::<usize>();
            self.topics.remove(&topic);
        }
    }

    /// Whether anything of a topic is kept.
    pub(super) fn is_followed(&self, topic: TopicId) -> bool {
        self.topics.contains_key(&u64::from(topic.0))
    }

    /// Takes in an event that was appended. Without an offset it is the next one of its topic.
    pub(super) fn push(
        &mut self,
        (topic, partition, offset): (TopicId, u16, Option<u64>),
        envelope: Envelope,
        end: Lsn,
    ) {
        let Some(line) = self.topics.get_mut(&u64::from(topic.0)) else { return };
        let next = line.first.map(|first| first + line.events.len() as u64);
        let Some(offset) = offset.or(next) else { return };
        if next != Some(offset) {
            while !line.events.is_empty() {
                self.bytes -= line.pop();
            }
            line.first = Some(offset);
        }
        let kept = Kept { end, partition, envelope };
        self.bytes += kept.bytes();
        line.events.push_back(kept);
        self.order.push_back(topic);
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.topics.get_mut(&u64::from(oldest.0)).map_or(0, Line::pop);
        }
    }

    /// Adds the topic's events from an offset on to `out`, as far as they are durable: at most so many, and no more bytes
    /// but for a single event. Gives how many; nothing where that is not known here.
    pub(super) fn read(
        &self,
        (topic, offset): (TopicId, u64),
        durable: Lsn,
        (most, most_bytes): (usize, usize),
        out: &mut Vec<FedEvent>,
    ) -> Option<usize> {
        let line = self.topics.get(&u64::from(topic.0))?;
        let skip = usize::try_from(offset.checked_sub(line.first?)?).ok()?;
        if skip > line.events.len() {
            return None;
        }
        let (before, mut bytes) = (out.len(), 0);
        for (offset, kept) in (offset..).zip(line.events.range(skip..)).take(most) {
            bytes += kept.envelope.encoded_bytes();
            if kept.end > durable || (bytes > most_bytes && out.len() > before) {
                break;
            }
            let (partition, envelope) = (kept.partition, kept.envelope.clone());
            out.push(FedEvent { offset, partition, envelope, copies: Vec::new() });
        }
        Some(out.len() - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId(1);

    fn event(bytes: usize) -> Envelope {
        Envelope::builder("a").data(vec![7; bytes]).build().unwrap()
    }

    fn push(recent: &mut Recent, topic: TopicId, offset: Option<u64>, end: Lsn) {
        recent.push((topic, 0, offset), event(10), end);
    }

    fn read(recent: &Recent, from: u64, durable: Lsn) -> Option<Vec<u64>> {
        let mut out = Vec::new();
        let read = recent.read((TOPIC, from), durable, (100, usize::MAX), &mut out)?;
        assert_eq!(read, out.len());
        Some(out.iter().map(|event| event.offset).collect())
    }

    #[test]
    fn what_is_followed_is_read_from_any_offset_that_is_kept_as_far_as_it_is_durable() {
        let mut recent = Recent::default();
        recent.follow(TOPIC);
        for offset in 5..9 {
            push(&mut recent, TOPIC, Some(offset), offset + 1);
        }
        assert_eq!(read(&recent, 5, 9), Some(vec![5, 6, 7, 8]));
        assert_eq!(read(&recent, 7, 8), Some(vec![7]), "the log is durable up to 8");
        assert_eq!(read(&recent, 4, 9), None, "it is in the log alone");
        assert_eq!(read(&recent, 9, 9), Some(vec![]), "nothing is there yet");
    }

    #[test]
    fn an_event_without_an_offset_is_the_next_and_a_gap_begins_anew() {
        let mut recent = Recent::default();
        recent.follow(TOPIC);
        push(&mut recent, TOPIC, None, 1);
        assert_eq!(read(&recent, 0, 9), None, "where it stands is not known");
        push(&mut recent, TOPIC, Some(3), 2);
        push(&mut recent, TOPIC, None, 3);
        assert_eq!(read(&recent, 3, 9), Some(vec![3, 4]));
        push(&mut recent, TOPIC, Some(7), 4);
        assert_eq!(read(&recent, 4, 9), None);
        assert_eq!(read(&recent, 7, 9), Some(vec![7]));
    }

    #[test]
    fn what_nobody_follows_takes_no_memory_and_the_oldest_of_all_topics_goes_first() {
        let mut recent = Recent::default();
        push(&mut recent, TOPIC, Some(0), 1);
        assert_eq!((recent.order.len(), recent.bytes), (0, 0));
        recent.follow(TOPIC);
        recent.follow(TopicId(2));
        push(&mut recent, TOPIC, Some(1), 2);
        for offset in 0..3 {
            recent.push((TopicId(2), 0, Some(offset)), event(MAX_BYTES / 3), offset + 3);
        }
        assert_eq!(read(&recent, 1, 9), None, "it was the oldest");
        push(&mut recent, TOPIC, Some(2), 9);
        assert_eq!(read(&recent, 2, 9), Some(vec![2]));
        recent.unfollow(TopicId(2));
        assert_eq!(recent.bytes, event(10).encoded_bytes() + BESIDES);
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for_but_one_event_always() {
        let mut recent = Recent::default();
        recent.follow(TOPIC);
        for offset in 0..3 {
            push(&mut recent, TOPIC, Some(offset), 1);
        }
        let mut out = Vec::new();
        assert_eq!(recent.read((TOPIC, 0), 1, (2, usize::MAX), &mut out), Some(2));
        assert_eq!(recent.read((TOPIC, 0), 1, (9, 1), &mut out), Some(1));
        assert_eq!(recent.read((TOPIC, 0), 1, (9, 2 * event(10).encoded_bytes()), &mut out), Some(2));
    }
}
