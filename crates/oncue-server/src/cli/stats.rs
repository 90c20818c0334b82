//! `oncue stats`: response times and throughput of every subscription.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use clap::Args;
use oncue::{
    Clock,
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

const HEADING: [Column; 14] = [
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
    Column::Number("LAG"),
    Column::Number("RETRYING"),
    Column::Number("DEAD"),
];

const LEGEND: &str = "\
n: events acked or dead. ART = ΣTᵢ / n, Tᵢ from generation (the event's `time`; publishing, if it has none) to the end.
Waiting and handling make up the average time since publishing; the percentiles are of that time.
Lag: events not looked at or not settled. Retrying: waiting for another attempt. Dead: dead letters.
";

/// Show response times, throughput and lag of every subscription
///
/// All of it is computed from what the log keeps, so it is the same before and after a restart, and needs no running app.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue stats --data ./data\n  \
                        oncue stats --data ./data --watch\n  \
                        oncue stats --data ./data --json | jq '.subscriptions[] | {id, lag, p99: .stats.p99_ms}'\n\n\
                        With --json, times are in ms and sums in µs, so that every average can be computed again.\n\
                        Exit codes: 0 all is done; 1 the log cannot be read; 2 there is no such directory or log.")]
pub(super) struct Stats {
    #[command(flatten)]
    view: View,

    /// Look again every second, until Ctrl-C: in place on a terminal, else one JSON object a line
    #[arg(long)]
    watch: bool,
}

impl Stats {
    pub(super) fn run(self) -> Result<(), CommandError> {
        if self.watch {
            return self.watch();
        }
        let known = self.look()?;
        if self.view.json { print(&format!("{:#}\n", json(&known))) } else { print(&(table(&known) + "\n" + LEGEND)) }
    }

    fn look(&self) -> Result<Vec<SubscriptionInfo>, ViewError> {
        self.view.look(|log: &dyn Inspect| Ok(log.subscriptions()))
    }

    fn watch(&self) -> Result<(), CommandError> {
        let in_place = !self.view.json && io::stdout().is_terminal();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(CommandError::Runtime)?.block_on(async {
            let clock = Clock::system();
            let mut interrupted = std::pin::pin!(interrupted());
            loop {
                let known = self.look()?;
                let text = if in_place {
                    format!("{REDRAW}{}\n{LEGEND}", table(&known))
                } else {
                    format!("{}\n", json(&known))
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

/// All subscriptions' numbers together.
fn together(known: &[SubscriptionInfo]) -> HandlerStats {
    let mut all = HandlerStats::default();
    known.iter().for_each(|known| all.merge(&known.stats));
    all
}

fn json(known: &[SubscriptionInfo]) -> Value {
    let subscription = |known: &SubscriptionInfo| {
        json!({
            "id": known.id,
            "topic": known.topic,
            "lag": known.lag,
            "retrying": known.retrying,
            "dead": known.dead,
            "stats": known.stats,
        })
    };
    let mut out = Map::new();
    out.insert("at".to_owned(), Clock::system().now().to_rfc3339().into());
    out.insert("subscriptions".to_owned(), known.iter().map(subscription).collect());
    out.insert("all".to_owned(), json!(together(known)));
    Value::Object(out)
}

fn table(known: &[SubscriptionInfo]) -> String {
    let mut rows: Vec<_> =
        known.iter().map(|known| row(&known.id, &known.stats, [known.lag, known.retrying, known.dead])).collect();
    if known.len() > 1 {
        let sum = |of: fn(&SubscriptionInfo) -> u64| known.iter().map(of).sum();
        let counts = [sum(|known| known.lag), sum(|known| known.retrying), sum(|known| known.dead)];
        rows.push(row("all", &together(known), counts));
    }
    columns(&HEADING, &rows)
}

fn row(id: &str, stats: &HandlerStats, counts: [u64; 3]) -> Vec<String> {
    let or_dash = |value: Option<Duration>| value.map_or("–".to_owned(), time);
    let sum = Duration::from_micros(u64::try_from(stats.total_us).unwrap_or(u64::MAX));
    let sum = format!("{}.{:03} s", grouped(sum.as_secs()), sum.subsec_millis());
    let mut row = vec![id.to_owned(), grouped(stats.finished()), sum];
    row.extend([stats.art(), stats.average_waiting(), stats.average_handling()].map(or_dash));
    row.extend([0.5, 0.9, 0.99, 1.0].map(|share| or_dash(stats.percentile(share))));
    row.push(stats.throughput().map_or("–".to_owned(), |rate| format!("{rate:.1}/s")));
    row.extend(counts.map(grouped));
    row
}

#[cfg(test)]
mod tests {
    use oncue::{
        Timestamp,
        metrics::{Ended, Sample},
    };

    use super::*;

    fn known(id: &str, millis: &[i64]) -> SubscriptionInfo {
        let mut stats = HandlerStats::default();
        for millis in millis {
            let [published, started, settled] = [0, millis * 400, millis * 1_000].map(Timestamp::from_micros);
            stats.record(&Sample { generated: None, published, started, settled, ended: Ended::Acked });
        }
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
            oldest: None,
            in_flight: 0,
            stats,
            by_type: Vec::new(),
        }
    }

    #[test]
    fn the_table_has_each_and_all() {
        let table = table(&[known("a", &[10, 20]), known("b", &[]), known("c", &[30])]);
        let words = |line: usize| table.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(1), "a 2 0.030 s 15.0 ms 6.00 ms 9.00 ms 10.0 ms 20.0 ms 20.0 ms 20.0 ms 100.0/s 3 2 1");
        assert_eq!(words(2), "b 0 0.000 s – – – – – – – – 3 2 1");
        // A percentile is the middle of its bucket.
        assert_eq!(words(4), "all 3 0.060 s 20.0 ms 8.00 ms 12.0 ms 20.1 ms 30.0 ms 30.0 ms 30.0 ms 100.0/s 9 6 3");
    }

    #[test]
    fn json_has_what_averages_are_made_of() {
        let json = json(&[known("a", &[10, 20])]);
        let stats = &json["subscriptions"][0]["stats"];
        assert_eq!((&stats["n"], &stats["total_us_sum"], &stats["art_ms"]), (&2.into(), &30_000.into(), &15.0.into()));
        assert_eq!(json["all"], *stats);
    }
}
