//! The catalogue: every case, in order, whether the suite has it yet or not.

use oncue::transport::Capabilities;

use crate::{
    Case, Needs,
    cases::{
        alerts, batches, deadline, disturbed, envelope, failure, filter, flow, graph, groups, health, kill, lifecycle,
        order, outcome, parallel, publish, pull, redrive, replay, request, restart, run_time, schedule, secured, size,
        state,
    },
};

/// How many cases there are.
pub const CATALOGUE_LEN: usize = 46;

fn nothing(_: &Capabilities) -> Option<&'static str> {
    None
}

fn durable(capabilities: &Capabilities) -> Option<&'static str> {
    (!capabilities.durable).then_some("it keeps nothing when it is closed")
}

fn history(capabilities: &Capabilities) -> Option<&'static str> {
    (!capabilities.history).then_some("it has no history")
}

fn deduplicates(capabilities: &Capabilities) -> Option<&'static str> {
    (!capabilities.deduplicates).then_some("it does not recognise duplicates: use the inbox")
}

macro_rules! case {
    ($number:literal $name:literal [$($clause:literal)*] $needs:ident $run:path) => {
        Case {
            number: $number,
            name: $name,
            clauses: &[$($clause),*],
            needs: $needs as Needs,
            run: Some(|bench| Box::pin($run(bench))),
        }
    };
}

/// Every case of the delivery contract, by number.
pub static CATALOGUE: [Case; CATALOGUE_LEN] = [
    case!(1 "connect, ping, stop before start" ["P1" "D12"] nothing lifecycle::connect),
    case!(2 "round trip of payload and headers" ["D14"] nothing envelope::round_trip),
    case!(3 "topics are isolated, and run in parallel" ["D1"] nothing publish::topics),
    case!(4 "many publishers, many subscribers, nothing lost" ["D1" "P1"] nothing publish::many),
    case!(5 "close: idempotent, while blocked, while unread, concurrently" ["D12"] nothing lifecycle::close),
    case!(6 "publish, then close, loses nothing" ["P1" "S1"] nothing lifecycle::publish_then_close),
    case!(7 "a retry is a redelivery, with its attempt counted" ["D4"] nothing failure::retry),
    case!(8 "retry storm, then success" ["D4" "D5"] nothing failure::storm),
    case!(9 "no next event of a key until the last is settled" ["D2"] nothing order::settled_first),
    case!(10 "retry on schedule, dead letter intact" ["D5" "D6" "D7"] nothing failure::schedule_and_dead_letter),
    case!(11 "a cancelled handler neither acks nor retries" ["D4" "D12"] nothing failure::cancelled),
    case!(12 "deadline extension" ["D7"] nothing deadline::extended),
    case!(13 "order per key, one instance and ten" ["D2"] nothing order::per_key),
    case!(14 "groups: each group all, members share" ["D1" "D2"] nothing groups::groups),
    case!(15 "resume after a restart" ["D1" "S1"] durable restart::resume),
    case!(16 "history for a new subscriber" ["D9"] history flow::history),
    case!(17 "broker restart, connection cut, rebalance" ["S2" "D2"] nothing disturbed::disturbed),
    case!(18 "receiver down when it is published" ["D1"] history flow::receiver_down),
    case!(19 "in flight is bounded: busy, then stop, then resume" ["D8"] nothing flow::busy),
    case!(20 "pause, resume" ["D11"] nothing run_time::pause),
    case!(21 "request and reply" ["D15"] nothing request::requests),
    case!(22 "delay, time to live, priority, LIFO" ["D3" "D13"] nothing schedule::schedule),
    case!(23 "batches: published, consumed, one failing item" ["P4" "D2"] nothing batches::batches),
    case!(24 "subscribe and unsubscribe at run time" ["D11"] nothing run_time::subscribe),
    case!(25 "source, correlation, trace" ["D14"] nothing envelope::lineage),
    case!(26 "filters" ["D1" "D11"] nothing filter::filters_hold),
    case!(27 "CloudEvents: binary, structured, malformed, foreign" ["P5" "D18"] nothing envelope::cloud_events),
    case!(28 "oversized is rejected, large is delivered" ["P5"] nothing size::large),
    case!(29 "health" ["D16"] nothing health::health),
    case!(30 "TLS and credentials" ["P1"] nothing secured::secured),
    case!(31 "graceful shutdown under load" ["D12" "S1"] nothing lifecycle::shutdown_under_load),
    case!(32 "the suite ten times in parallel" ["D1"] nothing parallel::in_parallel),
    case!(33 "kill at random points" ["S1" "D19"] durable kill::kill),
    case!(34 "replay from a time" ["D9"] history replay::replay),
    case!(35 "memory is bounded with a stalled consumer" ["P6" "D8"] nothing flow::stalled),
    case!(36 "order across redelivery, held dead letter, redrive" ["D2" "D6"] nothing redrive::dead_letters),
    case!(37 "a hot key does not slow others" ["D3"] nothing order::hot_key),
    case!(38 "`after`: diamond, failing branch, dead-lettered branch" ["D10" "D2"] nothing graph::after),
    case!(39 "published twice, delivered once" ["P3"] deduplicates publish::twice),
    case!(40 "receipts tell outcomes" ["P7"] nothing outcome::receipts),
    case!(41 "pull: leases, extension, expiry" ["D17"] nothing pull::pull),
    case!(42 "alerts" ["D16"] nothing alerts::alerts),
    case!(43 "crash during a delayed retry" ["D4" "S1"] durable restart::during_a_retry),
    case!(44 "each key's first event fails once: order holds" ["D2" "D3"] nothing order::first_fails),
    case!(45 "a slow key does not stall others" ["D3"] nothing order::slow_key),
    case!(46 "keyed state counts each event once" ["D19"] nothing state::counts_once),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_stand_at_their_numbers_and_name_clauses() {
        for (case, number) in CATALOGUE.iter().zip(1..) {
            assert_eq!(case.number, number, "{}", case.name);
            assert!(!case.name.is_empty() && !case.clauses.is_empty(), "{number}");
        }
    }
}
