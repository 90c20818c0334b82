//! How long a subscription lets its events wait.

use oncue_log::{Record, TopicId};

use super::{Inner, consumer::Core, inspect::storage, records::SubscriptionNumber, state::SubscriptionState};
use crate::{clock::Timestamp, event::Envelope, transport::InspectError};

/// Events that are read, at most, to find the oldest one of a subscription that nobody serves.
const MAX_PASSED: usize = 10_000;
/// Events read at once.
const READ_RECORDS: usize = 512;

impl Inner {
    /// Since when the oldest event waits that a subscription should be through with; `core` is who serves it. See
    /// [`SubscriptionInfo::oldest`](crate::transport::SubscriptionInfo::oldest).
    pub(super) fn waits_since(
        &self,
        number: SubscriptionNumber,
        topic: TopicId,
        core: Option<&Core>,
    ) -> Result<Option<Timestamp>, InspectError> {
        let Some(core) = core else { return self.left_alone_since(number, topic) };
        let (_, next) = self.offsets(topic);
        let oldest = {
            // What is handed out is locked before.
            let hand = core.hand.lock();
            let shared = self.shared.lock();
            let state = &shared.state.subscriptions[number as usize];
            let waits = |offset: &u64| waits(state, *offset);
            // It may also wait for a handler that it comes after.
            let members = core.numbers.iter().map(|member| &shared.state.subscriptions[*member as usize]);
            let failing = members.filter_map(|member| member.failing.keys().copied().find(waits));
            failing.chain(hand.oldest(self.clock.now(), next, waits)).min()
        };
        // Without the locks: it is read from the log.
        let Some(oldest) = oldest else { return Ok(None) };
        Ok(self.first_event(topic, oldest)?.as_ref().map(since))
    }

    /// The same of one that nobody serves: nobody has looked at what it wants, so its first events are.
    fn left_alone_since(&self, number: SubscriptionNumber, topic: TopicId) -> Result<Option<Timestamp>, InspectError> {
        let (first, _) = self.offsets(topic);
        let low = self.shared.lock().state.subscriptions[number as usize].settled.low();
        let mut cursor = self.log.cursor(topic, low.max(first));
        let mut records: Vec<Record> = Vec::new();
        for _ in 0..MAX_PASSED.div_ceil(READ_RECORDS) {
            records.clear();
            if self.log.read(&mut cursor, READ_RECORDS, usize::MAX, &mut records).map_err(storage)? == 0 {
                break;
            }
            let shared = self.shared.lock();
            let state = &shared.state.subscriptions[number as usize];
            for record in records.iter().filter(|record| waits(state, record.offset)) {
                let envelope = Envelope::from_stored(&record.data).map_err(storage)?;
                if state.about.wants(&envelope) {
                    return Ok(Some(since(&envelope)));
                }
            }
        }
        Ok(None)
    }
}

/// Whether an event is one that a subscription should be through with, as far as its offset tells.
fn waits(state: &SubscriptionState, offset: u64) -> bool {
    !(state.settled.contains(offset) || state.dead.contains_key(&offset) || state.redriven.contains_key(&offset))
}

/// Since when an event waits to be handled.
fn since(event: &Envelope) -> Timestamp {
    event.due().map_or(event.published(), |due| due.max(event.published()))
}
