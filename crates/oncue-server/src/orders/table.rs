//! The report as a person reads it.

use std::fmt;

use oncue::metrics::HandlerStats;

use crate::number::{grouped, money, time};

use super::{
    input::SIMULATION,
    report::{Counts, Details, Report},
};

/// Kinds of dead letters that are shown.
const DEAD_SHOWN: usize = 5;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { details, anomalies, .. } = self;
        writeln!(f, "{} events of {} orders, from {}", grouped(self.events), grouped(self.orders), inputs(details))?;
        let (duplicates, malformed) = (grouped(self.duplicates), grouped(self.malformed));
        write!(f, "{duplicates} duplicates, {malformed} malformed lines")?;
        if self.resumed_from > 0 {
            write!(f, "; this run went on after line {}", grouped(self.resumed_from))?;
        }
        writeln!(f, "\n")?;
        counted(f, "Orders by state", &self.states)?;
        let heading = format!("Anomalies: {} in {} orders", grouped(anomalies.total), grouped(anomalies.orders));
        counted(f, &heading, &anomalies.by_step)?;
        handlers(f, details)?;
        sales(f, details)?;
        dead_letters(f, details)?;
        if let Some(kept) = &details.kept {
            writeln!(f, "\nAll of it is kept in {}: the same command goes on from here.", kept.display())?;
        }
        Ok(())
    }
}

fn inputs(details: &Details) -> String {
    if details.inputs.is_empty() { "nothing".to_owned() } else { details.inputs.join(", ") }
}

fn counted(f: &mut fmt::Formatter<'_>, heading: &str, counts: &Counts) -> fmt::Result {
    writeln!(f, "{heading}")?;
    let rows = counts.0.iter().map(|(name, count)| vec![format!("  {name}"), grouped(*count)]);
    table(f, &rows.collect::<Vec<_>>())?;
    writeln!(f)
}

fn handlers(f: &mut fmt::Formatter<'_>, details: &Details) -> fmt::Result {
    let heading = ["Handlers", "acked", "retried", "dead", "n", "t", "ΣTᵢ", "ART", "p50", "p90", "p99", "Throughput"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(details.stats.iter().map(|(id, stats)| row(id, stats)));
    rows.push(row("all", &details.all));
    table(f, &rows)?;
    writeln!(
        f,
        "  n = acked + dead; t from the first publishing to the last settling; Throughput = n / t; ART = ΣTᵢ / n."
    )?;
    let old = match details.inputs.iter().all(|input| input.starts_with(SIMULATION)) {
        true => "as the times of these events are simulated",
        false => "as these events are years old",
    };
    writeln!(f, "  ART is measured from publish, {old}.")
}

fn row(id: &str, stats: &HandlerStats) -> Vec<String> {
    let sum = std::time::Duration::from_micros(u64::try_from(stats.system_us).unwrap_or(u64::MAX));
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let percentile = |share: f64| or_dash(stats.percentile(share).map(time));
    vec![
        format!("  {id}"),
        grouped(stats.acked),
        grouped(stats.retried),
        grouped(stats.dead),
        grouped(stats.finished()),
        or_dash(stats.span().map(time)),
        time(sum),
        or_dash(stats.art_since_published().map(time)),
        percentile(0.5),
        percentile(0.9),
        percentile(0.99),
        or_dash(stats.throughput().map(|rate| format!("{rate:.0}/s"))),
    ]
}

fn sales(f: &mut fmt::Formatter<'_>, details: &Details) -> fmt::Result {
    let Some((best, most)) = details.sales.iter().max_by_key(|(_, cents)| **cents) else { return Ok(()) };
    let total: u64 = details.sales.values().fold(0, |sum, cents| sum.saturating_add(*cents));
    let days = details.sales.len();
    let plural = if days == 1 { "" } else { "s" };
    writeln!(
        f,
        "\nSales: {} on {} day{plural}, the best {best} with {}",
        money(total),
        grouped(days as u64),
        money(*most)
    )
}

fn dead_letters(f: &mut fmt::Formatter<'_>, details: &Details) -> fmt::Result {
    if details.dead.is_empty() {
        return Ok(());
    }
    let all: u64 = details.dead.values().map(|(count, _)| count).sum();
    writeln!(f, "\nDead letters: {}", grouped(all))?;
    let shown = details.dead.iter().take(DEAD_SHOWN).map(|((handler, reason), (count, sample))| {
        let plural = if sample.attempts == 1 { "" } else { "s" };
        let such_as = format!("  such as {} after {} attempt{plural}", sample.event_id, sample.attempts);
        vec![format!("  {handler}"), grouped(*count), format!("  {reason}"), such_as]
    });
    table(f, &shown.collect::<Vec<_>>())?;
    if let Some(others @ 1..) = details.dead.len().checked_sub(DEAD_SHOWN) {
        writeln!(f, "  and {others} more kinds")?;
    }
    match &details.kept {
        Some(kept) => {
            let kept = kept.display();
            writeln!(f, "  Each is kept with every failed attempt: `oncue dlq list --data {kept}` lists them.")
        }
        None => writeln!(f, "  With --data DIR each is kept, with every failed attempt."),
    }
}

/// Rows in columns: texts (the first column, and those that begin with two blanks) to the left, numbers to the right.
fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_text = column == 0 || cell.starts_with("  ");
            let cell = if is_text { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            line.push_str(&cell);
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
