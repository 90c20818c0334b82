//! The processes that serve subscriptions of a broker, and how they divide partitions among them.
//!
//! Each process tells in one ledger, again and again, what it serves. All read the same records, so all come to the same
//! division. Who serves a partition that is another's now hands out no more of it, and gives its lease up as soon as
//! what it has handed out is settled. While they do not know of each other yet, leases keep them apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::future::{join_all, select};
use parking_lot::Mutex;

use super::{Broker, BrokerError, Inner, LedgerName, group::Group, lease::LEASE};
use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
    event::partition_of,
};

/// The ledger that all processes tell in.
pub(super) const MEMBERS: &str = "~members";
/// Records that are read at once.
const READ_RECORDS: usize = 512;
/// Records after which those that are of no use any more are dropped.
const KEPT_RECORDS: u64 = 1_024;

/// Who serves what, as far as it was read.
pub(super) struct Members {
    ledger: LedgerName,
    heard: Mutex<Heard>,
    /// Who appends: one at a time, so that each knows what it follows.
    telling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Heard {
    /// The offset of the last record that was read.
    last: u64,
    /// Records that were read since some were dropped.
    records: u64,
    /// By the name of each.
    members: BTreeMap<String, Member>,
}

/// What a process told last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    /// How long that is good for.
    until: Timestamp,
    /// The subscriptions that it serves.
    serves: BTreeSet<String>,
    /// The offset of its record.
    told: u64,
}

/// Which partitions of a subscription are one process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Division {
    /// Its place among those that serve it.
    place: usize,
    members: usize,
    /// Who has the first partition: not the same for all subscriptions, of which many have one.
    first: usize,
}

impl Division {
    pub(super) fn has(self, partition: u16) -> bool {
        (self.first + usize::from(partition)) % self.members == self.place
    }
}

impl Default for Members {
    fn default() -> Self {
        let ledger = LedgerName { subscription: MEMBERS.to_owned(), partition: 0 };
        Self { ledger, heard: Mutex::default(), telling: tokio::sync::Mutex::default() }
    }
}

impl Members {
    /// Tells what a process serves; nothing, if it leaves.
    async fn tell(
        &self,
        broker: &dyn Broker,
        (name, until): (&str, Timestamp),
        serves: &BTreeSet<String>,
    ) -> Result<(), BrokerError> {
        let _telling = self.telling.lock().await;
        let record = encode(name, until, serves);
        loop {
            self.read_on(broker).await?;
            let after = self.heard.lock().last;
            match broker.append(&self.ledger, record.clone(), after).await {
                Err(BrokerError::Moved) => {}
                appended => {
                    self.heard.lock().take(appended?, &record).map_err(malformed)?;
                    break;
                }
            }
        }
        let wanted_from = self.heard.lock().wanted_from();
        if let Some(before) = wanted_from {
            broker.purge(&self.ledger, before).await?;
        }
        Ok(())
    }

    async fn read_on(&self, broker: &dyn Broker) -> Result<(), BrokerError> {
        loop {
            let from = self.heard.lock().last + 1;
            let records = broker.records(&self.ledger, from, READ_RECORDS).await?;
            if records.is_empty() {
                return Ok(());
            }
            let mut heard = self.heard.lock();
            for (offset, record) in records {
                heard.take(offset, &record).map_err(malformed)?;
            }
        }
    }

    /// Which partitions of a subscription `name` is to serve, which serves it.
    fn division(&self, subscription: &str, name: &str, now: Timestamp) -> Division {
        let heard = self.heard.lock();
        let serves = |member: &Member| member.until > now && member.serves.contains(subscription);
        let others = heard.members.iter().filter(|(other, member)| *other != name && serves(member));
        let (mut place, mut members) = (0, 1);
        for (other, _) in others {
            members += 1;
            place += usize::from(rank(other).lt(rank(name)));
        }
        let first = partition_of(Some(subscription), u16::try_from(members).unwrap_or(u16::MAX));
        Division { place, members, first: usize::from(first) }
    }
}

/// Names begin with when they were given, and end at random. By their ends, so who comes has any place: where processes die
/// and come again and again, and the dead still count, each partition is somebody's in turn.
fn rank(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().rev()
}

fn malformed(error: Malformed) -> BrokerError {
    BrokerError::Failed(format!("ledger `{MEMBERS}`: {error}"))
}

impl Heard {
    fn take(&mut self, offset: u64, record: &Bytes) -> Result<(), Malformed> {
        let (name, until, serves) = decode(record)?;
        (self.last, self.records) = (offset, self.records + 1);
        self.members.insert(name, Member { until, serves, told: offset });
        Ok(())
    }

    /// The first record that is of use still, when there are many that are not.
    fn wanted_from(&mut self) -> Option<u64> {
        if self.records < KEPT_RECORDS {
            return None;
        }
        self.records = 0;
        let newest = self.members.values().map(|member| member.until).max()?;
        // All that count have told later than that.
        self.members.retain(|_, member| !member.serves.is_empty() && member.until.after(LEASE) > newest);
        self.members.values().map(|member| member.told).min()
    }
}

fn encode(name: &str, until: Timestamp, serves: &BTreeSet<String>) -> Bytes {
    let mut record = Writer::default();
    record.bytes(name.as_bytes());
    record.signed(until.as_micros());
    record.varint(serves.len() as u64);
    serves.iter().for_each(|id| record.bytes(id.as_bytes()));
    record.into_bytes()
}

fn decode(record: &[u8]) -> Result<(String, Timestamp, BTreeSet<String>), Malformed> {
    let mut from = Reader::new(record);
    let (name, until) = (from.text()?.to_owned(), Timestamp::from_micros(from.signed()?));
    let serves = (0..from.count(1)?).map(|_| from.text().map(str::to_owned)).collect::<Result<_, _>>()?;
    Ok((name, until, serves))
}

impl Inner {
    /// Tells others what is served here, keeps its leases up and has no more than its part, as long as it is there.
    pub(super) fn attend(self: &Arc<Self>) {
        if self.attends.swap(true, Ordering::AcqRel) {
            return;
        }
        let (weak, clock) = (Arc::downgrade(self), self.clock.clone());
        self.broker.runtime().spawn(async move {
            loop {
                clock.sleep(LEASE / 3).await;
                let Some(inner) = weak.upgrade().filter(|inner| !inner.is_closed()) else { return };
                join_all(inner.groups().iter().map(|group| group.keep_up())).await;
                if let Err(error) = inner.divide().await {
                    tracing::warn!(%error, url = inner.broker.url(), "partitions are not divided anew");
                }
                inner.progress.notify_waiters();
            }
        });
    }

    /// Tells what is served here, and begins or ends to serve what that changes.
    pub(super) async fn divide(self: &Arc<Self>) -> Result<(), BrokerError> {
        if self.is_closed() {
            return Err(BrokerError::Closed);
        }
        let serves = self.served.lock().keys().cloned().collect();
        let until = self.clock.now().after(LEASE);
        self.members.tell(&*self.broker, (&self.holder, until), &serves).await?;
        for group in self.groups() {
            let division = self.members.division(&group.spec.members[0].id, &self.holder, self.clock.now());
            group.take_part(division).await;
        }
        Ok(())
    }

    /// Tells others that this one goes.
    pub(super) async fn leave(&self) {
        if self.attends.load(Ordering::Acquire) {
            let nothing = BTreeSet::new();
            let left = self.members.tell(&*self.broker, (&self.holder, Timestamp::default()), &nothing);
            // What it told last ends by itself.
            select(std::pin::pin!(left), self.clock.sleep(LEASE)).await;
        }
    }

    /// All that is served here.
    pub(super) fn groups(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<Arc<Group>> = Vec::new();
        for group in self.served.lock().values().filter_map(Weak::upgrade) {
            if !groups.iter().any(|known| Arc::ptr_eq(known, &group)) {
                groups.push(group);
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn of(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn told(heard: &mut Heard, offset: u64, name: &str, until: Timestamp, ids: &[&str]) {
        heard.take(offset, &encode(name, until, &of(ids))).unwrap();
    }

    #[test]
    fn each_partition_is_one_members_and_none_has_more_than_one_more_than_another() {
        let members = Members::default();
        let names = ["a", "b", "c", "d", "e"];
        for count in 1..=names.len() {
            told(&mut members.heard.lock(), count as u64, names[count - 1], at(10), &["charge", "mail"]);
            for (id, partitions) in [("charge", 1), ("mail", 4), ("mail", 12)] {
                let has = |name: &&str| {
                    let division = members.division(id, name, at(9));
                    (0..partitions).filter(|partition| division.has(*partition)).collect::<Vec<u16>>()
                };
                let parts: Vec<_> = names[..count].iter().map(has).collect();
                let mut all = parts.concat();
                all.sort_unstable();
                assert_eq!(all, (0..partitions).collect::<Vec<_>>(), "{count} members");
                let sizes = || parts.iter().map(Vec::len);
                assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1, "{parts:?}");
            }
        }
    }

    #[test]
    fn where_each_dies_before_the_next_one_comes_all_partitions_are_served_in_turn() {
        let members = Members::default();
        let mut served = BTreeSet::new();
        for count in 0..200 {
            let name = crate::event::fresh_id();
            // The last four of them still count.
            told(&mut members.heard.lock(), count, &name, at(5 + count.cast_signed()), &["mail"]);
            let division = members.division("mail", &name, at(1 + count.cast_signed()));
            if count > 4 {
                served.extend((0..4_u16).filter(|partition| division.has(*partition)));
            }
        }
        assert_eq!(served, (0..4).collect());
    }

    #[test]
    fn who_serves_something_else_or_is_not_heard_of_any_more_has_no_part() {
        let members = Members::default();
        told(&mut members.heard.lock(), 1, "a", at(10), &["mail"]);
        told(&mut members.heard.lock(), 2, "b", at(5), &["charge"]);
        let has_all = |now| (0..8).all(|partition| members.division("charge", "c", at(now)).has(partition));
        assert!(!has_all(4), "b serves it");
        assert!(has_all(5), "b was not heard of");
        told(&mut members.heard.lock(), 3, "b", at(15), &["charge"]);
        assert!(!has_all(6));
        told(&mut members.heard.lock(), 4, "b", at(0), &[]);
        assert!(has_all(6), "b left");
    }

    #[test]
    fn what_is_of_no_use_is_dropped_and_nothing_else() {
        let mut heard = Heard::default();
        told(&mut heard, 1, "gone", at(1), &["mail"]);
        told(&mut heard, 2, "slow", at(1_000), &["mail"]);
        for offset in 3..KEPT_RECORDS {
            assert_eq!(heard.wanted_from(), None);
            told(&mut heard, offset, "a", at(1_002), &["mail"]);
        }
        told(&mut heard, KEPT_RECORDS, "left", at(1_002), &[]);
        assert_eq!(heard.wanted_from(), Some(2));
        assert_eq!(heard.members.keys().collect::<Vec<_>>(), ["a", "slow"]);
        assert_eq!(heard.wanted_from(), None, "until there are as many again");
    }

    #[test]
    fn what_is_malformed_is_no_member() {
        let record = encode("a", at(1), &of(&["mail", "charge"]));
        assert_eq!(decode(&record).unwrap(), ("a".to_owned(), at(1), of(&["mail", "charge"])));
        for length in 0..record.len() {
            assert!(decode(&record[..length]).is_err(), "{length}");
        }
    }
}
