//! A program whose power is lost at each of its writes, one after another: at every settle, and at all that is written
//! besides.

use oncue::handler::{OnDeadLetter, Order, Ordered};

use super::{
    filters::LeftOut,
    program::{Act, End, From, New, Operation, Orders, Program, Resolve, Subscription, Way},
    run,
};

fn subscription(ordered: Ordered, on_dead_letter: OnDeadLetter) -> Subscription {
    Subscription {
        orders: Orders { order: Order::Fifo, ordered, on_dead_letter },
        concurrency: 2,
        batch: None,
        retry_after: 1,
        max_attempts: 2,
        timeout: false,
        echoes: false,
        after: false,
        keyed: false,
        pipelined: false,
        left_out: LeftOut::default(),
    }
}

/// An event of a key, and what each subscription makes of it.
fn event(key: u8, ends: [&[End]; 3]) -> New {
    let acts = ends.map(|ends| ends.iter().map(|end| Act { way: Way::Now, end: *end }).collect());
    New { key: Some(key), delay: None, time_to_live: None, priority: None, kind: None, acts: acts.to_vec() }
}

/// Dead letters that hold their key and keyed states; what is emitted; batches; retries; and the ends of all of these.
fn program(power_off_at: u64) -> Program {
    let held = Subscription { keyed: true, ..subscription(Ordered::Strict, OnDeadLetter::Hold) };
    let echoing =
        Subscription { echoes: true, pipelined: true, ..subscription(Ordered::Relaxed, OnDeadLetter::Continue) };
    let batches = Subscription { batch: Some(3), ..subscription(Ordered::Strict, OnDeadLetter::Continue) };
    let late = New { delay: Some(2), ..event(1, [&[], &[], &[]]) };
    let first = vec![
        event(0, [&[End::Emit], &[End::Fail], &[End::Fail]]),
        event(0, [&[End::Reject], &[End::Emit], &[]]),
        event(1, [&[End::Defer(1)], &[End::Reject], &[End::Reject]]),
        late,
    ];
    let operations = vec![
        Operation::PowerOffAt(power_off_at),
        Operation::Publish(first),
        Operation::Advance(1),
        Operation::Resolve(0, 0, Resolve::Edit),
        Operation::Publish(vec![event(0, [&[End::Fail, End::Fail], &[], &[]])]),
        Operation::Advance(1),
        Operation::Resolve(0, 0, Resolve::Redrive),
        Operation::Resolve(1, 0, Resolve::Discard),
        Operation::Pause(2),
        Operation::Reset(1, From::Earliest),
        Operation::Resume(2),
    ];
    let subscriptions = vec![held, echoing, batches];
    Program {
        seed: power_off_at,
        forever: true,
        twin: false,
        fed: false,
        slow_states: false,
        subscriptions,
        operations,
    }
}

#[test]
fn the_laws_hold_wherever_the_power_is_lost() {
    let mut writes = 0;
    loop {
        let story = run(&program(writes), None, false);
        assert!(story.broken.is_empty(), "at write {writes}: {:#?}\n{}", story.broken, story.trace);
        if !story.trace.contains("crash") {
            break;
        }
        writes += 1;
    }
    println!("power was lost at each of {writes} writes");
    assert!(writes > 30, "it writes as it should: {writes}");
}
