//! Rows 10a to 11: against other libraries, with all that is theirs.

pub(crate) mod durable;
pub(crate) mod ruststream;
mod sqlite;
mod watermill;

use std::path::Path;

use crate::{
    callgrind::{self, Counts},
    measure::{Plan, Result, Rounds, Sample},
    report::{Row, Target},
    walk::Way,
};

/// Events of one timed walk.
const EVENTS: u64 = 65_536;
const AGAINST: &str = "RustStream 0.7.7 on its memory broker, the same";

/// A row of 10: the ways of both sides, and what is to be reached.
struct Compared {
    id: &'static str,
    what: &'static str,
    ours: &'static str,
    theirs: &'static str,
    instructions: Option<f64>,
    nanos: Option<f64>,
    allocations: f64,
    settings: &'static str,
}

const DISPATCHED: &str = "One thread, 28 B of JSON as data, nothing synced. The whole app: events that wait in memory are \
                          read, an async handler is called and returns at once, each event is acknowledged";

const ROWS: [Compared; 3] = [
    Compared {
        id: "10a",
        what: "Dispatch of a built event on the memory transport to an async handler that takes its bytes",
        ours: "dispatch",
        theirs: "ruststream dispatch",
        instructions: Some(400.0),
        nanos: None,
        allocations: 0.0,
        settings: DISPATCHED,
    },
    Compared {
        id: "10b",
        what: "Dispatch of a built event on the memory transport to an async handler that takes two integers from its JSON",
        ours: "dispatch and decode",
        theirs: "ruststream dispatch and decode",
        instructions: Some(1300.0),
        nanos: None,
        allocations: 0.0,
        settings: DISPATCHED,
    },
    Compared {
        id: "10c",
        what: "Publishing one event on the memory transport",
        ours: "publish",
        theirs: "ruststream publish",
        instructions: None,
        nanos: Some(80.0),
        allocations: 1.0,
        settings: "One thread, 28 B of JSON as data, nothing synced; one event after the other, one handler subscribed that \
                   does not run meanwhile. Ours includes a clone of the event and its receipt",
    },
];

/// So many at most, or nothing to reach.
fn at_most(limit: Option<f64>) -> Target {
    Target { less: true, absolute: limit, ..Target::default() }
}

impl Compared {
    fn row(&self, case: &'static str, unit: &'static str, target: Target, rounds: Rounds) -> Row {
        let counted =
            if unit == "ns" { "" } else { "; counted under callgrind, all threads, what happens once taken off" };
        let settings = format!("{}{counted}.", self.settings);
        Row { id: self.id, case, what: self.what, against: AGAINST, unit, target, settings, rounds }
    }

    fn rows(&self, plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
        let (ours, theirs) = (Way::named(self.ours)?, Way::named(self.theirs)?);
        let counted = callgrind::available().and_then(|()| {
            let both =
                callgrind::count(ours, directory).and_then(|ours| Ok((ours, callgrind::count(theirs, directory)?)));
            both.map_err(|error| error.to_string())
        });
        let counts = |part: fn(Counts) -> f64| match &counted {
            Ok((ours, theirs)) => Rounds::counted(Sample::of(part(*ours), part(*theirs))),
            Err(why) => Rounds::skipped(why.clone()),
        };
        let nanos = |way: &Way| Result::Ok(way.timed(EVENTS)? * 1e9 / EVENTS as f64);
        let timed = plan.rounds(self.id, || Ok(Sample::of(nanos(ours)?, nanos(theirs)?)))?;
        Ok(vec![
            self.row("instructions", "instructions", at_most(self.instructions), counts(|counts| counts.instructions)),
            self.row(
                "allocations",
                "allocations",
                at_most(Some(self.allocations)),
                counts(|counts| counts.allocations),
            ),
            self.row("time", "ns", at_most(self.nanos), timed),
        ])
    }
}

/// 10a, 10b or 10c.
pub(crate) fn counted(plan: &Plan, directory: &Path, id: &str) -> Result<Vec<Row>> {
    let compared = ROWS.iter().find(|row| row.id == id).ok_or("no such row")?;
    compared.rows(plan, directory)
}
