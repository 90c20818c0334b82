//! Messages that wait, up to a high-water mark.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Most messages that wait in a queue, as in ZeroMQ's own sockets.
pub const HIGH_WATER_MARK: usize = 1_000;
/// Most bytes of them, and one message more if it is larger.
pub const HIGH_WATER_BYTES: usize = 32 << 20;
/// What a message costs beside the bytes of its parts, and a part beside its own.
const EACH: usize = 64;

/// A message that waited.
pub(super) struct Queued {
    pub(super) parts: Vec<Bytes>,
    /// Told once it is written, if somebody wants to know.
    pub(super) written: Option<oneshot::Sender<()>>,
    /// Given back with the message.
    _room: OwnedSemaphorePermit,
}

impl Queued {
    /// Whether it is still to be written: nobody has given up on it.
    pub(super) fn is_wanted(&self) -> bool {
        self.written.as_ref().is_none_or(|written| !written.is_closed())
    }

    pub(super) fn bytes(&self) -> usize {
        bytes(&self.parts)
    }
}

fn bytes(parts: &[Bytes]) -> usize {
    parts.iter().map(|part| part.len() + EACH).sum::<usize>() + EACH
}

/// Where messages are put in.
#[derive(Clone)]
pub(super) struct Queue {
    messages: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

impl Queue {
    /// A queue of at most so many messages, and where they are taken.
    pub(super) fn new(most: usize) -> (Self, mpsc::Receiver<Queued>) {
        let (messages, taken) = mpsc::channel(most);
        (Self { messages, room: Arc::new(Semaphore::new(HIGH_WATER_BYTES)) }, taken)
    }

    /// Waits until there is room; false once nobody takes anything any more. Nothing is put in if it is dropped before.
    pub(super) async fn put(&self, parts: Vec<Bytes>, written: Option<oneshot::Sender<()>>) -> bool {
        let Ok(place) = self.messages.reserve().await else { return false };
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(Self::room_of(&parts)).await else { return false };
        place.send(Queued { parts, written, _room: room });
        true
    }

    /// Puts a message in if there is room; whether there was.
    pub(super) fn offer(&self, parts: &[Bytes]) -> bool {
        let room = Arc::clone(&self.room).try_acquire_many_owned(Self::room_of(parts));
        let (Ok(place), Ok(room)) = (self.messages.try_reserve(), room) else { return false };
        place.send(Queued { parts: parts.to_vec(), written: None, _room: room });
        true
    }

    fn room_of(parts: &[Bytes]) -> u32 {
        u32::try_from(bytes(parts).min(HIGH_WATER_BYTES)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt as _;

    use super::*;

    #[test]
    fn who_puts_in_more_waits_until_some_is_taken_and_who_offers_more_is_told() {
        let small = || vec![Bytes::from_static(b"topic"), Bytes::from_static(b"body")];
        let (queue, mut taken) = Queue::new(2);
        assert!(queue.offer(&small()) && queue.offer(&small()) && !queue.offer(&small()));
        let mut putting = std::pin::pin!(queue.put(small(), None));
        assert_eq!(putting.as_mut().now_or_never(), None);
        taken.try_recv().unwrap();
        assert_eq!(putting.now_or_never(), Some(true));
        // What is given up takes no place.
        assert_eq!(queue.put(small(), None).now_or_never(), None);
        assert!(taken.try_recv().is_ok() && taken.try_recv().is_ok() && taken.try_recv().is_err());
        drop(taken);
        assert_eq!(queue.put(small(), None).now_or_never(), Some(false));
    }

    #[test]
    fn bytes_count_too_and_a_message_larger_than_all_room_goes_alone() {
        let large = |bytes: usize| vec![Bytes::from(vec![0; bytes])];
        let (queue, mut taken) = Queue::new(HIGH_WATER_MARK);
        assert!(queue.offer(&large(HIGH_WATER_BYTES / 2)) && !queue.offer(&large(HIGH_WATER_BYTES / 2)));
        assert_eq!(queue.put(large(HIGH_WATER_BYTES * 2), None).now_or_never(), None);
        drop(taken.try_recv().unwrap());
        assert!(queue.offer(&large(HIGH_WATER_BYTES * 2)) && !queue.offer(&large(0)));
    }

    #[test]
    fn what_somebody_gave_up_on_is_not_wanted() {
        let (queue, mut taken) = Queue::new(2);
        let (written, told) = oneshot::channel();
        assert_eq!(queue.put(Vec::new(), Some(written)).now_or_never(), Some(true));
        let queued = taken.try_recv().unwrap();
        assert!(queued.is_wanted());
        drop(told);
        assert!(!queued.is_wanted());
    }
}
