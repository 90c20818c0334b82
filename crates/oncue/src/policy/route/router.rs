//! What was learned of the handlers of a route, and which is given an event.

pub(crate) use oncue_learn::Choice;
use oncue_learn::{Arm, Bandit, Comparison, Features, StateError};

use super::LearnedRoute;
use crate::codec::{Malformed, Reader, Writer};

/// What a route knows of its handlers: a contextual bandit (`LinUCB` with a floor of exploration) and their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    arms: Vec<String>,
    bandit: Bandit,
}

/// An attempt that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct RouteAsked<'a> {
    /// Which attempt at the event: 1 is the first.
    pub attempt: u32,
    /// What is looked at of it.
    pub features: &'a Features,
    /// A number of the event's own, as likely any.
    pub draw: u64,
    /// Which handlers can be called.
    pub there: &'a [bool],
}

/// A first attempt that was made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Routed {
    pub(crate) choice: Choice,
    /// How long it took.
    pub(crate) micros: u64,
    pub(crate) features: Features,
}

impl Router {
    /// One that knows nothing. Nothing, if the rules make none: they were checked before.
    pub(crate) fn new(rules: &LearnedRoute) -> Option<Self> {
        let bandit = Bandit::new(rules.arms().len(), rules.explored()).ok()?;
        Some(Self { arms: rules.arms().to_vec(), bandit })
    }

    /// The same under other rules that learn the same: handlers that stay know what they knew.
    pub(crate) fn follow(&self, rules: &LearnedRoute) -> Option<Self> {
        let mut bandit = self.bandit.clone();
        if rules.arms() != self.arms {
            let before = |arm: &String| self.arms.iter().position(|known| known == arm);
            bandit = bandit.with_arms(&rules.arms().iter().map(before).collect::<Vec<_>>()).ok()?;
        }
        bandit.set_floor(rules.explored()).ok()?;
        Some(Self { arms: rules.arms().to_vec(), bandit })
    }

    /// The handler for an attempt, of those that can be called; nothing if none can. A later attempt goes to the next one: what
    /// failed is not asked again before the others were.
    pub(crate) fn choose(&self, asked: &RouteAsked<'_>) -> Option<Choice> {
        let is_there = |arm: usize| asked.there.get(arm).copied().unwrap_or(false);
        let first = self.bandit.choose(asked.features, is_there, asked.draw)?;
        if asked.attempt <= 1 {
            return Some(first);
        }
        let there: Vec<usize> = (0..self.arms.len()).filter(|arm| is_there(*arm) && *arm != first.arm).collect();
        let others = self.bandit.ranked(asked.features, &there);
        let place = (asked.attempt as usize - 1) % (others.len() + 1);
        let arm = place.checked_sub(1).and_then(|place| others.get(place).copied()).unwrap_or(first.arm);
        Some(Choice { arm, ..first })
    }

    /// What a first attempt brought.
    pub(crate) fn learn(&mut self, tried: &Routed, reward: f64) {
        // It refuses what was chosen of other handlers, and rewards that are none, of which there are none.
        let _ = self.bandit.learn(&tried.features, tried.choice, reward);
    }

    /// The handlers in order: their names, and what is known of each.
    pub fn arms(&self) -> impl Iterator<Item = (&str, &Arm)> {
        self.arms.iter().map(String::as_str).zip(self.bandit.arms())
    }

    /// The reward that is expected of each handler, in order.
    #[must_use]
    pub fn expected(&self, features: &Features) -> Vec<f64> {
        self.bandit.expected(features)
    }

    /// The share of events that explore.
    #[must_use]
    pub fn explored(&self) -> f64 {
        self.bandit.floor()
    }

    /// How it compares with the best handler alone, and with giving events to any.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        self.bandit.comparison()
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(self.arms.len() as u64);
        self.arms.iter().for_each(|arm| out.bytes(arm.as_bytes()));
        out.bytes(&self.bandit.encode());
    }

    /// One out of a checkpoint. What another version of `oncue-learn` wrote is left behind: all is learned anew.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let mut arms = Vec::new();
        for _ in 0..from.count(1)? {
            arms.push(from.text()?.to_owned());
        }
        match Bandit::decode(from.bytes()?) {
            Ok(bandit) if bandit.arms().len() == arms.len() => Ok(Some(Self { arms, bandit })),
            Ok(_) => Err(Malformed("a route has other handlers than it knows of")),
            Err(error @ StateError::Version { .. }) => {
                tracing::warn!(%error, "what was learned of a subscription's route cannot be read");
                Ok(None)
            }
            Err(StateError::Malformed(what)) => Err(Malformed(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(arms: &[&str]) -> LearnedRoute {
        LearnedRoute::default().with_arms(arms.iter().map(|arm| (*arm).to_owned()).collect())
    }

    fn features(bank: &str) -> Features {
        let mut features = Features::default();
        features.category("bank", bank);
        features
    }

    /// South is good at the south, north at the north; east at nothing.
    fn taught() -> Router {
        let mut router = Router::new(&rules(&["north", "south", "east"])).unwrap();
        for number in 0..600_usize {
            let (bank, arm) = (["north", "south"][number % 2], number / 2 % 3);
            let choice = Choice { arm, best: 0, explores: true, among: 3 };
            let reward = [["north", "south", "east"][arm] == bank, arm == 1].iter().filter(|yes| **yes).count();
            router.learn(&Routed { choice, micros: 1, features: features(bank) }, reward.min(1) as f64 * 0.5);
        }
        router
    }

    fn asked<'a>(attempt: u32, features: &'a Features, there: &'a [bool]) -> RouteAsked<'a> {
        // It explores nothing.
        RouteAsked { attempt, features, draw: u64::MAX, there }
    }

    #[test]
    fn later_attempts_go_to_the_others_in_their_order_and_begin_again() {
        let (router, south) = (taught(), features("south"));
        let arms = |there: &[bool]| -> Vec<usize> {
            (1..=5).map(|attempt| router.choose(&asked(attempt, &south, there)).unwrap().arm).collect()
        };
        let all = arms(&[true; 3]);
        assert_eq!(all[0], 1);
        assert_ne!(all[1], all[2]);
        assert_eq!(all[3..], all[..2]);
        assert_eq!(arms(&[true, false, false]), [0; 5]);
        assert_eq!(router.choose(&asked(1, &south, &[false; 3])), None);
        assert_eq!(router.choose(&asked(1, &south, &[])), None);
        // One that explores is no exception.
        let explores = |attempt| router.choose(&RouteAsked { draw: 0, ..asked(attempt, &south, &[true; 3]) }).unwrap();
        assert!(explores(1).explores && explores(1).arm == 0);
        assert_eq!(explores(2).arm, 1, "the best of the others");
    }

    #[test]
    fn handlers_that_stay_know_what_they_knew() {
        let before = taught();
        let other = before.follow(&rules(&["south", "west"]).explore(0.2)).unwrap();
        let names: Vec<&str> = other.arms().map(|(name, _)| name).collect();
        assert_eq!((names, other.explored()), (vec!["south", "west"], 0.2));
        let (south, west) = (features("south"), &other.arms().nth(1).unwrap().1.rewards);
        assert_eq!((other.expected(&south)[0], west.count()), (before.expected(&south)[1], 0.0));
        assert_eq!(before.follow(&rules(&["north", "south", "east"])), Some(before.clone()));
        assert_eq!(before.follow(&rules(&["north"])), None);
    }

    #[test]
    fn it_goes_there_and_back_and_another_version_learns_anew() {
        let router = taught();
        let mut out = Writer::default();
        router.encode(&mut out);
        let bytes = out.into_bytes();
        assert_eq!(Router::decode(&mut Reader::new(&bytes)), Ok(Some(router)));
        let version = bytes.len() - taught().bandit.encode().len();
        let mut other = bytes.to_vec();
        other[version] = 200;
        assert_eq!(Router::decode(&mut Reader::new(&other)), Ok(None));
        other.truncate(version + 9);
        assert!(Router::decode(&mut Reader::new(&other)).is_err());
        let mut fewer = Writer::default();
        Router { arms: vec!["north".into(), "south".into()], ..taught() }.encode(&mut fewer);
        assert!(Router::decode(&mut Reader::new(fewer.as_slice())).is_err());
    }
}
