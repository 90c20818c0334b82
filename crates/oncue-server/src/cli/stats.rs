//! `oncue stats`: response times and throughput of every subscription.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use clap::Args;
use oncue::{
    Clock, Timestamp,
    metrics::HandlerStats,
    transport::{Inspect, SubscriptionInfo},
};
use serde_json::{Map, Value, json};

use super::{
    CommandError,
    interrupt::interrupted,
    print, print_on,
    view::{View, ViewError},
};
use crate::{
    columns::{Column, columns},
    number::{grouped, time},
};

/// How often a watch looks again.
const EVERY: Duration = Duration::from_secs(1);
/// To the upper left corner of the terminal, and from there on nothing.
const REDRAW: &str = "\x1b[H\x1b[J";

const TIMES: [Column; 12] = [
    Column::Text("SUBSCRIPTION"),
    Column::Number("n"),
    Column::Number("ΣTᵢ"),
    Column::Number("ART"),
    Column::Number("WAITING"),
    Column::Number("HANDLING"),
    Column::Number("p50"),
    Column::Number("p90"),
    Column::Number("p99"),
    Column::Number("MAX"),
    Column::Number("THROUGHPUT"),
    Column::Number("EXPIRED"),
];

/// As narrow as a terminal: how they stand is a table of its own.
const STANDING: [Column; 7] = [
    Column::Text("SUBSCRIPTION"),
    Column::Number("LAG"),
    Column::Number("IN FLIGHT"),
    Column::Number("RETRYING"),
    Column::Number("DEAD"),
    Column::Number("MISSED"),
    Column::Number("OLDEST"),
];

const LEGEND: &str = "\
n: events acked or dead. ART = ΣTᵢ / n, Tᵢ from generation (the event's `time`; publishing, if it has none) to the end.
Waiting and handling make up the average time since publishing; the percentiles are of that time.
Expired: not handled, as their time to live was over; they count nowhere else. Lag: events not looked at or not settled.
In flight: handed out and not settled, which only the process knows that serves the subscription (–: another one, or none).
Retrying: waiting for another attempt. Dead: dead letters. Missed: dropped by retention before they were settled.
Oldest: how long the oldest event has waited that could be settled: since it was published, or since its time came.
";

/// Show response times, throughput and lag of every subscription
///
/// All of it is computed from what the log keeps, so it is the same before and after a restart, and needs no running app.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue stats --data ./data\n  \
                        oncue stats --data ./data --watch\n  \
                        oncue stats --data ./data --by-type\n  \
                        oncue stats --data ./data --json | jq '.subscriptions[] | {id, lag, p99: .stats.p99_ms}'\n\n\
                        With --json, times are in ms and sums in µs, so that every average can be computed again.\n\
                        Exit codes: 0 all is done; 1 the log cannot be read; 2 there is no such directory or log.")]
pub(super) struct Stats {
    #[command(flatten)]
    view: View,

    /// Look again every second, until Ctrl-C: in place on a terminal, else one JSON object a line
    #[arg(long)]
    watch: bool,

    /// Show the numbers of each event type, too
    #[arg(long)]
    by_type: bool,
}

impl Stats {
    pub(super) fn run(self) -> Result<(), CommandError> {
        if self.watch {
            return self.watch();
        }
        let looked = self.look()?;
        print(&if self.view.json { format!("{:#}\n", looked.json()) } else { looked.table() + "\n" + LEGEND })
    }

    fn look(&self) -> Result<Looked, ViewError> {
        let known = self.view.look(|log: &dyn Inspect| Ok(log.subscriptions()))?;
        Ok(Looked { known, at: Clock::system().now(), by_type: self.by_type })
    }

    fn watch(&self) -> Result<(), CommandError> {
        let in_place = !self.view.json && io::stdout().is_terminal();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(CommandError::Runtime)?.block_on(async {
            let clock = Clock::system();
            let mut interrupted = std::pin::pin!(interrupted());
            loop {
                let looked = self.look()?;
                let text = if in_place {
                    format!("{REDRAW}{}\n{LEGEND}", looked.table())
                } else {
                    format!("{}\n", looked.json())
                };
                if !print_on(&text)? {
                    return Ok(());
                }
                tokio::select! {
                    () = &mut interrupted => return Ok(()),
                    () = clock.sleep(EVERY) => {}
                }
            }
        })
    }
}

/// What there was to be seen, and when.
struct Looked {
    known: Vec<SubscriptionInfo>,
    at: Timestamp,
    /// Whether it is shown by event type, too.
    by_type: bool,
}

impl Looked {
    /// All subscriptions' numbers together.
    fn together(&self) -> HandlerStats {
        let mut all = HandlerStats::default();
        self.known.iter().for_each(|known| all.merge(&known.stats));
        all
    }

    fn age(&self, oldest: Option<Timestamp>) -> Option<Duration> {
        Some(self.at.since(oldest?))
    }

    fn json(&self) -> Value {
        let subscription = |known: &SubscriptionInfo| {
            let mut subscription = json!({
                "id": known.id,
                "topic": known.topic,
                "lag": known.lag,
                "in_flight": known.attached.then_some(known.in_flight),
                "retrying": known.retrying,
                "dead": known.dead,
                "missed": known.missed,
                "oldest": known.oldest.map(Timestamp::to_rfc3339),
                "oldest_age_s": self.age(known.oldest).map(|age| age.as_secs_f64()),
                "stats": known.stats,
            });
            if self.by_type {
                let by_type = known.by_type.iter().map(|(name, stats)| json!({"type": name, "stats": stats}));
                subscription["by_type"] = by_type.collect();
            }
            subscription
        };
        let mut out = Map::new();
        out.insert("at".to_owned(), self.at.to_rfc3339().into());
        out.insert("subscriptions".to_owned(), self.known.iter().map(subscription).collect());
        out.insert("all".to_owned(), json!(self.together()));
        Value::Object(out)
    }

    fn table(&self) -> String {
        let (mut times, mut standing) = (Vec::new(), Vec::new());
        for known in &self.known {
            times.push(numbers(&known.id, &known.stats));
            standing.push(self.standing(&known.id, std::slice::from_ref(known)));
            if self.by_type {
                times.extend(known.by_type.iter().map(|(name, stats)| numbers(&format!("  {name}"), stats)));
            }
        }
        if self.known.len() > 1 {
            times.push(numbers("all", &self.together()));
            standing.push(self.standing("all", &self.known));
        }
        columns(&TIMES, &times) + "\n" + &columns(&STANDING, &standing)
    }

    /// How these subscriptions stand.
    fn standing(&self, name: &str, known: &[SubscriptionInfo]) -> Vec<String> {
        let sum = |of: fn(&SubscriptionInfo) -> u64| grouped(known.iter().map(of).sum());
        let attached: Vec<_> = known.iter().filter(|known| known.attached).map(|known| known.in_flight).collect();
        let in_flight = if attached.is_empty() { "–".to_owned() } else { grouped(attached.into_iter().sum()) };
        let oldest = self.age(known.iter().filter_map(|known| known.oldest).min());
        let [lag, retrying, dead] = [sum(|known| known.lag), sum(|known| known.retrying), sum(|known| known.dead)];
        let missed = sum(|known| known.missed);
        vec![name.to_owned(), lag, in_flight, retrying, dead, missed, or_dash(oldest)]
    }
}

fn or_dash(value: Option<Duration>) -> String {
    value.map_or("–".to_owned(), time)
}

/// A rate in the unit that suits it: what is seldom, by the hour.
fn per_second(rate: f64) -> String {
    match rate {
        ..1.0 => format!("{:.1}/h", rate * 3_600.0),
        _ => format!("{rate:.1}/s"),
    }
}

fn numbers(name: &str, stats: &HandlerStats) -> Vec<String> {
    let sum = Duration::from_micros(u64::try_from(stats.total_us).unwrap_or(u64::MAX));
    let sum = format!("{}.{:03} s", grouped(sum.as_secs()), sum.subsec_millis());
    let mut row = vec![name.to_owned(), grouped(stats.finished()), sum];
    row.extend([stats.art(), stats.average_waiting(), stats.average_handling()].map(or_dash));
    row.extend([0.5, 0.9, 0.99, 1.0].map(|share| or_dash(stats.percentile(share))));
    row.push(stats.throughput().map_or("–".to_owned(), per_second));
    row.push(grouped(stats.expired));
    row
}

#[cfg(test)]
mod tests {
    use oncue::metrics::{Ended, Sample};

    use super::*;

    fn looked(known: impl IntoIterator<Item = SubscriptionInfo>, by_type: bool) -> Looked {
        Looked { known: known.into_iter().collect(), at: Timestamp::from_micros(5_000_000), by_type }
    }

    fn words(table: &str, line: usize) -> String {
        table.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn known(id: &str, millis: &[i64]) -> SubscriptionInfo {
        let mut stats = HandlerStats::default();
        for millis in millis {
            let [published, started, settled] = [0, millis * 400, millis * 1_000].map(Timestamp::from_micros);
            stats.record(&Sample { generated: None, published, started, settled, ended: Ended::Acked, again: false });
        }
        let by_type = vec![("order.created".to_owned(), stats.clone())];
        let (id, topic) = (id.to_owned(), "events".to_owned());
        SubscriptionInfo {
            id,
            topic,
            types: Vec::new(),
            filter: None,
            emits: Vec::new(),
            after: Vec::new(),
            attached: false,
            lag: 3,
            retrying: 2,
            dead: 1,
            holding: 0,
            parked_keys: 0,
            full: false,
            oldest: None,
            missed: 0,
            in_flight: 0,
            stats,
            by_type,
        }
    }

    #[test]
    fn the_table_has_each_and_all() {
        let table = looked([known("a", &[10, 20]), known("b", &[]), known("c", &[30])], false).table();
        let (a, b, all) = (words(&table, 1), words(&table, 2), words(&table, 4));
        assert_eq!(a, "a 2 0.030 s 15.0 ms 6.00 ms 9.00 ms 10.0 ms 20.0 ms 20.0 ms 20.0 ms 100.0/s 0");
        assert_eq!(b, "b 0 0.000 s – – – – – – – – 0");
        assert_eq!((words(&table, 7), words(&table, 10)), ("a 3 – 2 1 0 –".to_owned(), "all 9 – 6 3 0 –".to_owned()));
        // A percentile is the middle of its bucket.
        let numbers = "3 0.060 s 20.0 ms 8.00 ms 12.0 ms 20.1 ms 30.0 ms 30.0 ms 30.0 ms 100.0/s";
        assert_eq!(all, format!("all {numbers} 0"));
    }

    #[test]
    fn what_waits_has_an_age_and_what_is_served_is_in_flight() {
        let mut served = SubscriptionInfo { attached: true, in_flight: 4, missed: 5, ..known("a", &[10]) };
        served.stats.expired = 7;
        let old = SubscriptionInfo { oldest: Some(Timestamp::from_micros(2_000_000)), ..known("b", &[10]) };
        let looked = looked([served, old], false);
        let table = looked.table();
        assert!(words(&table, 1).ends_with("/s 7") && words(&table, 3).ends_with("/s 7"), "{table}");
        assert_eq!(words(&table, 6), "a 3 4 2 1 5 –", "{table}");
        assert_eq!(words(&table, 7), "b 3 – 2 1 0 3.00 s", "{table}");
        assert_eq!(words(&table, 8), "all 6 4 4 2 5 3.00 s", "{table}");
        let json = looked.json();
        let [a, b] = [&json["subscriptions"][0], &json["subscriptions"][1]];
        assert_eq!((&a["in_flight"], &a["oldest_age_s"]), (&4.into(), &Value::Null));
        assert_eq!((&b["in_flight"], &b["oldest_age_s"]), (&Value::Null, &3.0.into()));
        assert_eq!(a.get("by_type"), None);
    }

    #[test]
    fn types_stand_below_their_subscription() {
        let looked = looked([known("a", &[10, 20])], true);
        let table = looked.table();
        assert!(
            words(&table, 2).starts_with("order.created 2 0.030 s") && words(&table, 2).ends_with("/s 0"),
            "{table}"
        );
        assert_eq!(looked.json()["subscriptions"][0]["by_type"][0]["stats"]["n"], 2);
    }

    #[test]
    fn json_has_what_averages_are_made_of() {
        let json = looked([known("a", &[10, 20])], false).json();
        let stats = &json["subscriptions"][0]["stats"];
        assert_eq!((&stats["n"], &stats["total_us_sum"], &stats["art_ms"]), (&2.into(), &30_000.into(), &15.0.into()));
        assert_eq!(json["all"], *stats);
    }
}
