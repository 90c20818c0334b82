//! The laws of the pace.

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

/// Something that answers so many calls a second, may be behind by so many, and pays this for each that it turns away; or turns
/// so many away by chance.
struct Server {
    capacity: f64,
    behind: f64,
    turning_away: f64,
    by_chance: f64,
    /// Whether it says why.
    says_so: bool,
    room: f64,
    at: f64,
}

impl Server {
    fn new(capacity: f64, behind: f64, turning_away: f64) -> Self {
        Self { capacity, behind, turning_away, by_chance: 0.0, says_so: true, room: behind, at: 0.0 }
    }

    fn answers(&mut self, at: f64, rng: &mut Rng) -> bool {
        if self.by_chance > 0.0 {
            return rng.f64() >= self.by_chance;
        }
        let room = (self.room + (at - self.at) * self.capacity).min(self.behind);
        let answers = room >= 1.0;
        (self.room, self.at) = ((room - if answers { 1.0 } else { self.turning_away }).max(0.0), at);
        answers
    }
}

/// Calls that are answered and turned away, per second.
type Rates = (f64, f64);

/// Calls want to go at this rate (a Poisson process; those that were turned away come again), for so many seconds, of which
/// the second half is told.
fn call(pace: &mut Pace, server: &mut Server, demand: f64, seconds: f64, rng: &mut Rng) -> Rates {
    let (mut waiting, mut at, mut comes) = (0_u32, 0.0, 0.0);
    let (mut answered, mut throttled) = (0.0, 0.0);
    let began = server.at;
    while at < seconds {
        while comes <= at {
            waiting += 1;
            comes -= (1.0 - rng.f64()).ln() / demand;
        }
        let now = Duration::from_secs_f64(began + at);
        let waited = waiting > 1;
        if waiting == 0 {
            at = comes;
        } else if let Some(wait) = pace.enter(now) {
            at += wait.as_secs_f64().max(1e-6);
        } else {
            let half = f64::from(u8::from(at > seconds / 2.0));
            if server.answers(began + at, rng) {
                waiting -= 1;
                pace.answered(waited && pace.helps());
                answered += half;
            } else {
                pace.turned_away((waited && pace.helps(), server.says_so), now);
                throttled += half;
            }
            // Nobody calls faster than a call takes.
            at += 0.1 / demand;
        }
    }
    (2.0 * answered / seconds, 2.0 * throttled / seconds)
}

#[test]
fn who_is_asked_for_too_much_is_asked_for_what_it_answers() {
    for (capacity, behind, turning_away, demand) in [
        (8.0, 8.0, 0.3, 12.0),
        (8.0, 1.0, 1.0, 12.0),
        (8.0, 100.0, 0.0, 80.0),
        (1_000.0, 10.0, 0.3, 3_000.0),
        (0.7, 2.0, 0.3, 2.0),
    ] {
        let mut server = Server::new(capacity, behind, turning_away);
        let (answered, throttled) =
            call(&mut Pace::default(), &mut server, demand, 2_000.0 / capacity, &mut Rng::with_seed(7));
        let told = format!("{answered} of {capacity} a second, {throttled} turned away");
        assert!(answered > 0.85 * capacity && throttled < 0.2 * answered, "{told}");
    }
}

#[test]
fn who_does_not_say_that_there_are_too_many_is_asked_for_what_it_answers_all_the_same() {
    let mut server = Server { says_so: false, ..Server::new(8.0, 8.0, 0.3) };
    let (answered, failed) = call(&mut Pace::default(), &mut server, 24.0, 250.0, &mut Rng::with_seed(7));
    assert!(answered > 0.85 * 8.0 && failed < 0.2 * answered, "{answered} of 8 a second, {failed} failed");
}

#[test]
fn what_answers_more_or_less_than_before_is_asked_for_that() {
    let (mut pace, mut server, mut rng) = (Pace::default(), Server::new(8.0, 8.0, 0.3), Rng::with_seed(7));
    for capacity in [8.0, 2.0, 40.0, 4.0] {
        server.capacity = capacity;
        let (answered, throttled) = call(&mut pace, &mut server, 100.0, 240.0, &mut rng);
        assert!(
            answered > 0.85 * capacity && throttled < 0.2 * answered,
            "{answered} of {capacity} a second, {throttled} turned away"
        );
        server.at += 240.0;
    }
}

#[test]
fn calls_do_not_wait_where_waiting_does_not_help() {
    for (by_chance, says_so) in
        [0.05, 0.1, 0.2, 0.5, 0.8].into_iter().flat_map(|chance| [(chance, true), (chance, false)])
    {
        let mut server = Server { by_chance, says_so, ..Server::new(0.0, 0.0, 0.0) };
        let (answered, _) = call(&mut Pace::default(), &mut server, 4.0, 2_000.0, &mut Rng::with_seed(7));
        assert!((3.6..4.4).contains(&answered), "{answered} of 4 a second, {by_chance} turned away");
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_call_waits_for_longer_than_a_bout(
        story in proptest::collection::vec((0_u64..100_000, 0_u8..8, any::<bool>()), 0..300),
    ) {
        let (mut pace, mut now) = (Pace::default(), Duration::from_secs(1_000));
        for (millis, what, paced) in story {
            now += Duration::from_millis(if what % 2 == 0 { millis } else { millis / 1_000 });
            match what {
                0 | 1 => pace.answered(paced),
                2 => pace.interrupted(),
                _ => pace.turned_away((paced, true), now),
            }
            let longest = Duration::from_secs_f64(BOUT_S * 1.001);
            if let Some(wait) = pace.enter(now) {
                prop_assert!(wait <= longest, "{wait:?}");
                now += wait;
                prop_assert_eq!(pace.enter(now), None);
            }
            prop_assert!(pace.next <= now + longest);
        }
    }
}
