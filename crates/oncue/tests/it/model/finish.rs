//! The end of a program: everything is settled, and as the model knows it.

use oncue::transport::Settled;

use super::{
    handler::number_of,
    known::Number,
    program::{Operation, Resolve},
    world::World,
};

impl World {
    /// All is resumed and redriven: in the end everything is settled.
    pub(super) async fn finish(&mut self) {
        self.storage.power_off_at(u64::MAX / 2);
        for which in 0..self.program.subscriptions.len() {
            self.operate(&Operation::Subscribe(which)).await;
            self.operate(&Operation::Resume(which)).await;
        }
        for _ in 0..20 {
            self.operate(&Operation::Idle).await;
            let mut dead = false;
            for which in 0..self.program.subscriptions.len() {
                while !self.dead(which).is_empty() {
                    dead = true;
                    self.operate(&Operation::Resolve(which, 0, Resolve::Redrive)).await;
                    self.operate(&Operation::Idle).await;
                    if self.model.lock().is_broken() {
                        return;
                    }
                }
            }
            if !dead {
                self.all_is_settled();
                return;
            }
        }
        self.broken("dead letters without end");
    }

    fn all_is_settled(&self) {
        let mut model = self.model.lock();
        let mut broken = Vec::new();
        for (number, known) in model.events.iter().filter(|(_, known)| known.certain) {
            for which in (0..self.program.subscriptions.len()).filter(|which| model.takes_type(*which, *number)) {
                let track = model.tracks.get(&(which, *number)).cloned().unwrap_or_default();
                let ended = match model.settled(which, *number) {
                    _ if model.is_passed(which, *number) => true,
                    Some(Settled::Acked) => track.acked || track.discarded || model.is_passed_by(which, *number),
                    Some(Settled::Expired) => known.expires.is_some(),
                    Some(Settled::Skipped) => model.may_be_skipped(which, *number),
                    _ => false,
                };
                if model.is_said_to_be_taken(which, *number) != model.takes(which, *number)
                    && !model.is_passed(which, *number)
                {
                    broken.push(format!("s{which} is not said to take {number} as it does"));
                }
                if !ended {
                    broken.push(format!("s{which} and {number}: {:?} {track:?}", model.settled(which, *number)));
                }
            }
        }
        for what in broken {
            model.broken(&what);
        }
        drop(model);
        self.nothing_is_left();
        self.each_emitted_once();
    }

    /// What is counted of each subscription says the same.
    fn nothing_is_left(&self) {
        let Some(app) = &self.app else { return };
        for info in app.bus.inspect().subscriptions() {
            let left = (info.lag, info.retrying, info.dead, info.in_flight, info.parked_keys);
            if left != (0, 0, 0, 0, 0) || info.oldest.is_some() {
                self.broken(&format!("{} has still (lag, retrying, dead, in flight, parked): {left:?}", info.id));
            }
        }
    }

    fn each_emitted_once(&self) {
        let Some(app) = self.app.as_ref().filter(|_| self.program.forever) else { return };
        let events = app.bus.inspect().browse("events", 0, usize::MAX).unwrap_or_default();
        let mut emitted: Vec<Number> = events.iter().map(|(_, event)| number_of(event)).collect();
        let count = emitted.len();
        emitted.sort_unstable();
        emitted.dedup();
        if emitted.len() != count {
            self.broken("an event was emitted twice");
        }
        let must_be = self.model.lock().must_be_emitted();
        for number in must_be {
            if emitted.binary_search(&number).is_err() {
                self.broken(&format!("{number} was emitted, and is lost"));
            }
        }
    }
}
