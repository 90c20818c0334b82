//! The laws of the gate.

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(1_000);

fn passed(health: &mut Health, now: Duration) -> Pass {
    match health.enter(now, true) {
        Entry::Pass(pass) => pass,
        other => panic!("{other:?}"),
    }
}

fn down() -> Health {
    let mut health = Health::default();
    for _ in 0..3 {
        let pass = passed(&mut health, NOW);
        health.leave(pass, Verdict::Fails, true, NOW);
    }
    assert!(health.is_down());
    health
}

#[test]
fn one_event_that_fails_again_and_again_is_no_outage_and_no_overload() {
    let mut health = Health::default();
    for attempt in 1..50 {
        let pass = passed(&mut health, NOW);
        health.leave(pass, Verdict::Fails, attempt == 1, NOW);
    }
    assert!(!health.is_down());
    assert!(health.pace.is_none_or(|pace| !pace.helps()));
}

#[test]
fn first_attempts_that_fail_slow_others_down_though_nothing_is_down() {
    let mut health = Health::default();
    for call in 0..64 {
        let pass = passed(&mut health, NOW);
        health.leave(pass, if call % 4 == 0 { Verdict::Works } else { Verdict::Fails }, true, NOW);
        if health.is_down() {
            health = Health { pace: health.pace, ..Health::default() };
        }
        if health.pace.is_some_and(|pace| pace.helps()) {
            return;
        }
    }
    panic!("three of four fail: {:?}", health.pace);
}

#[test]
fn one_call_tries_and_what_it_finds_decides() {
    let mut health = down();
    let Entry::Later(wait) = health.enter(NOW, true) else { panic!("it is down") };
    assert_eq!(health.rest, Some(wait));
    let then = NOW + wait;
    let tries = passed(&mut health, then);
    assert!(tries.probes && health.enter(then, true) == Entry::Others);
    health.leave(tries, Verdict::Fails, true, then);
    let Entry::Later(longer) = health.enter(then, true) else { panic!("it is still down") };
    let tries = passed(&mut health, then + longer);
    health.leave(tries, Verdict::Unknown, true, then + longer);
    let tries = passed(&mut health, then + longer);
    health.leave(tries, Verdict::Works, true, then + longer);
    assert!(!health.is_down() && health.rest.is_none());
    assert!(!passed(&mut health, then + longer).probes);
}

#[test]
fn after_a_restart_during_an_outage_one_tries_at_once() {
    let mut odds = Odds::default();
    (0..3).for_each(|_| odds.fails());
    let mut health = Health::default();
    health.begin(odds, Some(Duration::from_secs(90)), NOW);
    assert!(passed(&mut health, NOW).probes && health.enter(NOW, true) == Entry::Others);
}

proptest! {
    #[test]
    fn while_it_is_down_no_more_than_one_call_is_made_at_a_time_and_none_before_its_time(
        story in proptest::collection::vec((0_u64..4_000, 0_usize..6, 0_u8..4), 1..200),
    ) {
        let mut health = Health::default();
        let (mut now, mut running): (Duration, Vec<Pass>) = (NOW, Vec::new());
        for (millis, which, verdict) in story {
            now += Duration::from_millis(millis);
            let (down, next) = (health.is_down(), health.outage.map(|outage| outage.next));
            match health.enter(now, true) {
                Entry::Pass(pass) => {
                    prop_assert_eq!(pass.probes, down);
                    prop_assert!(next.is_none_or(|next| next <= now));
                    running.push(pass);
                }
                Entry::Later(wait) => {
                    let paced = health.pace.is_some_and(|pace| pace.helps());
                    prop_assert!((down || paced) && !wait.is_zero());
                }
                Entry::Others => prop_assert!(running.iter().any(|pass| pass.probes && pass.term == health.term), "nobody tries"),
            }
            let trying = running.iter().filter(|pass| pass.probes && pass.term == health.term).count();
            prop_assert!(trying <= 1);
            if which < running.len() {
                let pass = running.swap_remove(which);
                let verdict = [Verdict::Works, Verdict::Fails, Verdict::Fails, Verdict::Unknown][usize::from(verdict)];
                health.leave(pass, verdict, which % 2 == 0, now);
            }
        }
    }
}
