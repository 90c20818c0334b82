//! A topic: the parts that it has in streams, as one.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::{join_all, try_join_all};
use oncue::{
    Envelope,
    clock::Timestamp,
    event::partition_of,
    transport::{
        Position, Published,
        broker::{BrokerError, Extent},
    },
};
use tokio::sync::watch;

use super::{Division, Stream, part::Part, stamps::Stamps};

pub(super) struct Topic<S> {
    pub(super) division: Division,
    /// One, or one for each partition.
    parts: Vec<Part<S>>,
    stamps: Arc<Stamps>,
}

/// How offsets of a part are told from those of others: they take turns, so that no two events of a topic have the same.
#[derive(Clone, Copy, Debug)]
struct Numbering {
    part: u16,
    parts: u16,
}

impl Numbering {
    /// The topic's offset of a part's.
    fn offset(self, own: u64) -> u64 {
        own.saturating_mul(u64::from(self.parts)).saturating_add(u64::from(self.part))
    }

    /// The topic's offset after all that is before a part's.
    fn end(self, own: u64) -> u64 {
        own.checked_sub(1).map_or(0, |last| self.offset(last) + 1)
    }

    /// The part's first offset that is not before a topic's.
    fn own(self, offset: u64) -> u64 {
        offset.saturating_sub(u64::from(self.part)).div_ceil(u64::from(self.parts))
    }

    fn position(self, own: Position) -> Position {
        // What is alone has all partitions, and any other just its own.
        let partition = if self.parts == 1 { own.partition() } else { self.part };
        Position::new(partition, self.offset(own.offset()), own.epoch())
    }

    fn positions(self, mut events: Vec<(Position, Envelope)>) -> Vec<(Position, Envelope)> {
        if self.parts > 1 {
            events.iter_mut().for_each(|(position, _)| *position = self.position(*position));
        }
        events
    }
}

impl<S: Stream> Topic<S> {
    pub(super) async fn open(
        streams: Vec<Arc<S>>,
        name: &str,
        (division, is_new): (Division, bool),
        stamps: &Arc<Stamps>,
        growth: &watch::Sender<u64>,
    ) -> Result<Self, BrokerError> {
        let opening = streams.into_iter().map(|stream| Part::open(stream, name, (division, is_new), growth.clone()));
        Ok(Self { division, parts: try_join_all(opening).await?, stamps: Arc::clone(stamps) })
    }

    /// The part that has a partition, which one it is there, and how that is numbered.
    fn part(&self, partition: u16) -> Result<(&Part<S>, u16, Numbering), BrokerError> {
        let part = if self.is_in_one_order() { 0 } else { partition };
        let Some(found) = self.parts.get(usize::from(part)) else {
            return Err(BrokerError::Refused(format!("there is no partition {partition}")));
        };
        Ok((found, partition - part, self.numbering(part)))
    }

    fn numbering(&self, part: u16) -> Numbering {
        Numbering { part, parts: self.division.streams }
    }

    /// Somebody reads what comes from now on: it is kept for a while, as the broker need not be asked for it then.
    pub(super) fn keep_recent(&self) {
        self.parts.iter().for_each(Part::keep_recent);
    }

    pub(super) fn heard(&self, partition: u16) -> u64 {
        self.part(partition).map_or(0, |(part, partition, numbering)| numbering.end(part.heard(partition)))
    }

    /// Whether offsets say which of two events of different partitions came first.
    fn is_in_one_order(&self) -> bool {
        self.division.streams == 1
    }

    pub(super) async fn publish(&self, mut events: Vec<(u16, Envelope)>) -> Result<Vec<Published>, BrokerError> {
        let stamp = self.stamps.take(events.len());
        for (index, (_, event)) in events.iter_mut().enumerate() {
            *event = event.clone().published_at(stamp.of(index));
        }
        if let [only] = &self.parts[..] {
            return only.publish(&events).await;
        }
        let events = &events;
        let mut of_parts: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, (partition, event)) in events.iter().enumerate() {
            of_parts.entry(self.spread(*partition, event)).or_default().push(index);
        }
        let publishing = of_parts.into_iter().map(|(partition, indices)| async move {
            let (part, own, numbering) = self.part(partition)?;
            let of_part: Vec<_> = indices.iter().map(|index| (own, events[*index].1.clone())).collect();
            let published = part.publish(&of_part).await?.into_iter();
            let published = published.map(|one| Published { position: numbering.position(one.position), ..one });
            Ok(indices.into_iter().zip(published).collect::<Vec<_>>())
        });
        // What one broker does not take, another one may have taken.
        let published: Result<Vec<_>, BrokerError> = join_all(publishing).await.into_iter().collect();
        let mut published: Vec<_> = published?.into_iter().flatten().collect();
        published.sort_unstable_by_key(|(index, _)| *index);
        Ok(published.into_iter().map(|(_, published)| published).collect())
    }

    /// Events without a key have no order, and are for all partitions: what is published again finds itself there.
    fn spread(&self, partition: u16, event: &Envelope) -> u16 {
        if event.key().is_some() { partition } else { partition_of(Some(event.id()), self.division.partitions) }
    }

    pub(super) async fn events(
        &self,
        partition: Option<u16>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(Position, Envelope)>, BrokerError> {
        if let Some(partition) = partition {
            let (part, partition, numbering) = self.part(partition)?;
            return Ok(numbering.positions(part.events(Some(partition), numbering.own(from), limit).await?));
        }
        let reading = self.parts.iter().zip(0..).map(|(part, index)| async move {
            let numbering = self.numbering(index);
            Ok::<_, BrokerError>(numbering.positions(part.events(None, numbering.own(from), limit).await?))
        });
        let mut found = try_join_all(reading).await?.concat();
        found.sort_by_key(|(position, _)| position.offset());
        found.truncate(limit);
        Ok(found)
    }

    /// Those from an offset on, if they were all kept as they came.
    pub(super) fn recent(&self, partition: u16, from: u64, limit: usize) -> Option<Vec<(Position, Envelope)>> {
        let (part, partition, numbering) = self.part(partition).ok()?;
        Some(numbering.positions(part.recent(Some(partition), numbering.own(from), limit)?))
    }

    pub(super) async fn extent(&self, partition: u16) -> Result<Extent, BrokerError> {
        let (part, partition, numbering) = self.part(partition)?;
        let Extent { first, next, events } = part.extent(partition).await?;
        let end = numbering.end(next);
        let first = if events == 0 { end } else { numbering.offset(first) };
        Ok(Extent { first, next: end, events })
    }

    pub(super) async fn end(&self, partition: u16) -> Result<u64, BrokerError> {
        let (part, partition, numbering) = self.part(partition)?;
        Ok(numbering.end(part.end(partition).await?))
    }

    pub(super) async fn since(&self, partition: u16, time: Timestamp) -> Result<Option<u64>, BrokerError> {
        let (part, partition, numbering) = self.part(partition)?;
        Ok(part.since(partition, time).await?.map(|offset| numbering.offset(offset)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_two_events_have_an_offset_and_each_is_found_by_its_own(parts in 1_u16..2000, own in 0_u64..1 << 40) {
            for part in [0, parts / 2, parts - 1] {
                let numbering = Numbering { part, parts };
                let offset = numbering.offset(own);
                prop_assert_eq!((offset / u64::from(parts), offset % u64::from(parts)), (own, u64::from(part)));
                prop_assert_eq!([numbering.own(offset), numbering.own(offset + 1)], [own, own + 1]);
                prop_assert_eq!(numbering.own(numbering.end(own)), own);
                prop_assert!(numbering.end(own) <= offset && numbering.end(own + 1) == offset + 1);
            }
        }
    }
}
