//! Who subscribes to what at a PUB socket.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    queue::{HIGH_WATER_MARK, Queue, Queued},
    zmtp::ZmtpError,
};

/// Most subscriptions of one peer.
const MAX_SUBSCRIPTIONS: usize = 1_024;

/// What a peer says of what it wants: this, and then the beginning of first parts.
const CANCEL: u8 = 0;
pub(super) const SUBSCRIBE: u8 = 1;

/// Whether a message is one of those that these subscribe to: its first part begins with one of them.
pub(super) fn begins_with_any(parts: &[Bytes], prefixes: &[Bytes]) -> bool {
    let first = parts.first().map_or(&[][..], |first| &first[..]);
    prefixes.iter().any(|prefix| first.starts_with(prefix))
}

#[derive(Default)]
pub(super) struct Subscribers(Mutex<Known>);

#[derive(Default)]
struct Known {
    last: u64,
    peers: HashMap<u64, Peer>,
}

struct Peer {
    queue: Queue,
    /// One that was subscribed to twice stands here twice, and is cancelled twice.
    prefixes: Vec<Bytes>,
}

impl Subscribers {
    /// A peer that wants nothing yet, and what it is to be sent.
    pub(super) fn join(subscribers: &Arc<Self>) -> (Seat, mpsc::Receiver<Queued>) {
        let (queue, queued) = Queue::new(HIGH_WATER_MARK);
        let mut known = subscribers.0.lock();
        known.last += 1;
        let number = known.last;
        known.peers.insert(number, Peer { queue, prefixes: Vec::new() });
        (Seat { subscribers: Arc::clone(subscribers), number }, queued)
    }

    /// Gives a message to those that want it: how many have room for it, and how many have none.
    pub(super) fn offer(&self, parts: &[Bytes]) -> (u64, u64) {
        let (mut taken, mut missed) = (0, 0);
        for Peer { queue, prefixes } in self.0.lock().peers.values() {
            if begins_with_any(parts, prefixes) {
                *if queue.offer(parts) { &mut taken } else { &mut missed } += 1;
            }
        }
        (taken, missed)
    }
}

/// One peer's place, until it is dropped.
pub(super) struct Seat {
    subscribers: Arc<Subscribers>,
    number: u64,
}

impl Seat {
    /// Takes in what the peer says. What is neither of the two is an XSUB socket's own, and means nothing here.
    pub(super) fn take(&self, mut said: Vec<Bytes>) -> Result<(), ZmtpError> {
        let said = said.pop().unwrap_or_default();
        let mut known = self.subscribers.0.lock();
        let Some(Peer { prefixes, .. }) = known.peers.get_mut(&self.number) else { return Ok(()) };
        match said.first() {
            Some(&SUBSCRIBE) if prefixes.len() == MAX_SUBSCRIPTIONS => {
                return Err(ZmtpError::Malformed("more subscriptions than a peer may have"));
            }
            Some(&SUBSCRIBE) => prefixes.push(said.slice(1..)),
            Some(&CANCEL) => {
                if let Some(at) = prefixes.iter().position(|prefix| *prefix == said[1..]) {
                    prefixes.swap_remove(at);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.subscribers.0.lock().peers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(kind: u8, prefix: &[u8]) -> Vec<Bytes> {
        vec![[&[kind], prefix].concat().into()]
    }

    fn offered(subscribers: &Subscribers, topic: &'static str) -> (u64, u64) {
        subscribers.offer(&[Bytes::from(topic), Bytes::from_static(b"{}")])
    }

    #[test]
    fn a_message_goes_once_to_each_that_subscribed_to_a_beginning_of_it() {
        let subscribers = Arc::default();
        let ((one, mut of_one), (two, _of_two)) = (Subscribers::join(&subscribers), Subscribers::join(&subscribers));
        assert_eq!(offered(&subscribers, "order.paid"), (0, 0), "nobody has said anything");
        for prefix in ["order.", "order.", "order.p", ""] {
            one.take(said(SUBSCRIBE, prefix.as_bytes())).unwrap();
        }
        two.take(said(SUBSCRIBE, b"stock.")).unwrap();
        assert_eq!((offered(&subscribers, "order.paid"), offered(&subscribers, "stock.low")), ((1, 0), (2, 0)));
        assert_eq!(of_one.try_recv().unwrap().parts[0], "order.paid");
        for prefix in ["order.", "order.p", "", "never said"] {
            one.take(said(CANCEL, prefix.as_bytes())).unwrap();
        }
        assert_eq!(offered(&subscribers, "order.paid"), (1, 0), "it was subscribed to twice");
        one.take(said(CANCEL, b"order.")).unwrap();
        assert_eq!((offered(&subscribers, "order.paid"), offered(&subscribers, "stock.low")), ((0, 0), (1, 0)));
        drop(two);
        assert_eq!(offered(&subscribers, "stock.low"), (0, 0));
    }

    #[test]
    fn who_is_too_slow_misses_messages_and_the_others_do_not() {
        let subscribers = Arc::default();
        let ((slow, _of_slow), (quick, mut of_quick)) =
            (Subscribers::join(&subscribers), Subscribers::join(&subscribers));
        slow.take(said(SUBSCRIBE, b"")).unwrap();
        quick.take(said(SUBSCRIBE, b"")).unwrap();
        for _ in 0..HIGH_WATER_MARK {
            assert_eq!(offered(&subscribers, "a"), (2, 0));
            of_quick.try_recv().unwrap();
        }
        assert_eq!(offered(&subscribers, "a"), (1, 1));
    }

    #[test]
    fn subscriptions_of_a_peer_have_a_limit() {
        let subscribers = Arc::default();
        let (seat, _queued) = Subscribers::join(&subscribers);
        for _ in 0..MAX_SUBSCRIPTIONS {
            seat.take(said(SUBSCRIBE, b"a")).unwrap();
        }
        assert!(seat.take(said(SUBSCRIBE, b"a")).is_err());
        seat.take(said(CANCEL, b"a")).unwrap();
        seat.take(said(SUBSCRIBE, b"a")).unwrap();
    }

    proptest! {
        /// Whatever a peer says, it is subscribed to what a list of its words says.
        #[test]
        fn subscriptions_are_those_that_were_not_cancelled(
            words in proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..4), 0..40),
        ) {
            let subscribers = Arc::default();
            let (seat, _queued) = Subscribers::join(&subscribers);
            let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
            for word in words {
                if let Some((kind, prefix)) = word.split_first() {
                    let count = counts.entry(prefix.to_vec()).or_default();
                    *count = match kind { 0 => count.saturating_sub(1), 1 => *count + 1, _ => *count };
                }
                seat.take(vec![word.into()]).unwrap();
            }
            for topic in [&b""[..], &[0], &[1, 2], &[2, 2, 2, 2]] {
                let wanted = counts.iter().any(|(prefix, count)| *count > 0 && topic.starts_with(prefix));
                let (taken, missed) = subscribers.offer(&[Bytes::copy_from_slice(topic)]);
                prop_assert_eq!((taken, missed), (u64::from(wanted), 0));
            }
        }
    }
}
