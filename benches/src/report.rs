//! Rows: what was compared with what, and whether the target is met.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    machine::Machine,
    measure::{Rounds, Sample, median},
};

/// One comparison.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    /// Which of several with one id; empty if there is one.
    pub(crate) case: &'static str,
    /// Ours: what is measured.
    pub(crate) what: &'static str,
    /// The other side.
    pub(crate) against: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) target: Target,
    /// Payload, concurrency, what was synced, what each side includes.
    pub(crate) settings: String,
    pub(crate) rounds: Rounds,
}

/// What is to be reached. Every part that is given must be.
#[derive(Clone, Copy, Default)]
pub(crate) struct Target {
    /// Less is better, of ratio and absolute alike.
    pub(crate) less: bool,
    pub(crate) ratio: Option<f64>,
    pub(crate) absolute: Option<f64>,
    /// In microseconds; less is better.
    pub(crate) p99: Option<f64>,
    /// So much more than the other side at most, in the row's unit.
    pub(crate) more: Option<f64>,
}

impl Target {
    /// The ratio must be so much or more.
    pub(crate) fn at_least(ratio: f64) -> Self {
        Self { ratio: Some(ratio), ..Self::default() }
    }

    /// The ratio must be so much or less.
    pub(crate) fn at_most(ratio: f64) -> Self {
        Self { ratio: Some(ratio), less: true, ..Self::default() }
    }

    pub(crate) fn absolute(self, absolute: f64) -> Self {
        Self { absolute: Some(absolute), ..self }
    }

    /// So much more than the other side at most.
    #[cfg(any(feature = "brokers", test))]
    pub(crate) fn at_most_more(more: f64) -> Self {
        Self { more: Some(more), less: true, ..Self::default() }
    }

    fn met_by(&self, sample: &Sample) -> bool {
        let good = |value: Option<f64>, limit: Option<f64>, less: bool| match (value, limit) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(value), Some(limit)) => {
                if less {
                    value <= limit
                } else {
                    value >= limit
                }
            }
        };
        good(sample.ratio(), self.ratio, self.less)
            && good(Some(sample.ours), self.absolute, self.less)
            && good(sample.p99, self.p99, true)
            && good(sample.against.map(|against| sample.ours - against), self.more, true)
    }

    fn text(&self, unit: &str) -> String {
        let sign = if self.less { '≤' } else { '≥' };
        let ratio = self.ratio.map(|ratio| format!("{sign} {ratio}×"));
        let absolute = self.absolute.map(|absolute| format!("{sign} {} {unit}", amount(absolute)));
        let p99 = self.p99.map(|p99| format!("p99 ≤ {p99:.0} µs"));
        let more = self.more.map(|more| format!("≤ {} {unit} more", amount(more)));
        let parts: Vec<String> = [ratio, absolute, p99, more].into_iter().flatten().collect();
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    }
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    case: &'a str,
    what: &'a str,
    ours: Option<f64>,
    against: Option<f64>,
    ratio: Option<f64>,
    p99_us: Option<f64>,
    target: String,
    unit: &'a str,
    verdict: &'a str,
    rounds: usize,
    void: usize,
    settings: String,
}

impl Row {
    fn name(&self) -> String {
        if self.case.is_empty() { self.id.to_owned() } else { format!("{}, {}", self.id, self.case) }
    }

    fn samples(&self) -> &[Sample] {
        &self.rounds.samples
    }

    fn median_of(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        Some(median(self.samples().iter().filter_map(value))).filter(|median| median.is_finite())
    }

    /// Met or missed if four of five rounds say so; between them, noise hides on which side of the target it is.
    pub(crate) fn verdict(&self) -> &'static str {
        let all = self.samples().len();
        let met = self.samples().iter().filter(|sample| self.target.met_by(sample)).count();
        match () {
            () if self.rounds.skipped.is_some() => "skipped",
            () if all == 0 => "void: the machine was not quiet",
            () if self.target.text("") == "none" => "for information",
            () if 5 * met >= 4 * all => "met",
            () if 5 * met <= all => "missed",
            () => "indistinguishable",
        }
    }

    fn settings(&self) -> String {
        let Rounds { samples, void, noise, skipped } = &self.rounds;
        if let Some(why) = skipped {
            return format!("{}. Skipped: {why}.", self.what);
        }
        let (count, noise) = (samples.len(), noise * 100.0);
        let against = if self.against.is_empty() { String::new() } else { format!(" Against: {}.", self.against) };
        format!("{}.{against} {} Rounds: {count}, void: {void}, others at most {noise:.1} %.", self.what, self.settings)
    }

    pub(crate) fn json(&self) -> String {
        let line = Line {
            id: self.id,
            case: self.case,
            what: self.what,
            ours: self.median_of(|sample| Some(sample.ours)),
            against: self.median_of(|sample| sample.against),
            ratio: self.median_of(Sample::ratio),
            p99_us: self.median_of(|sample| sample.p99),
            target: self.target.text(self.unit),
            unit: self.unit,
            verdict: self.verdict(),
            rounds: self.samples().len(),
            void: self.rounds.void,
            settings: self.settings(),
        };
        serde_json::to_string(&line).unwrap_or_default()
    }

    fn cells(&self) -> [String; 8] {
        let all: Vec<f64> = self.samples().iter().filter_map(Sample::ratio).filter(|ratio| ratio.is_finite()).collect();
        let spread = all.iter().copied().reduce(f64::min).zip(all.iter().copied().reduce(f64::max));
        let spread = spread.map_or_else(String::new, |(least, most)| format!(" ({least:.2}–{most:.2})"));
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), amount);
        let ratio =
            self.median_of(Sample::ratio).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}×{spread}"));
        [
            self.name(),
            ratio,
            shown(self.median_of(|sample| Some(sample.ours))),
            shown(self.median_of(|sample| sample.against)),
            self.unit.to_owned(),
            self.median_of(|sample| sample.p99).map_or_else(|| "–".to_owned(), |p99| format!("{p99:.0} µs")),
            self.target.text(self.unit),
            self.verdict().to_owned(),
        ]
    }
}

/// With as many digits as can be believed.
fn amount(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

const COLUMNS: [&str; 8] = ["id", "ratio (spread)", "ours", "against", "unit", "p99", "target", "verdict"];

/// All rows as a markdown table, with what was measured on and, below, how.
pub(crate) fn markdown(rows: &[Row], machine: &Machine) -> String {
    let mut out = format!("# Results\n\nWritten by `cargo xtask bench --results`; do not edit.\n\n{machine}\n");
    out.push_str(&table(rows));
    out.push_str(
        "\nMedians over the rounds; the ratio is the median of the rounds' ratios, ours to the other side's. A round\n",
    );
    out.push_str("measures one side, then the other. Met or missed: at least four of five rounds say so.\n\n");
    for row in rows {
        let _ = writeln!(out, "- **{}** {}", row.name(), row.settings());
    }
    out
}

/// The rows as a table that reads well as text too.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut out = String::new();
    for (at, cells) in lines.iter().enumerate() {
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(out, "| {cell:width$} ");
        }
        out.push_str("|\n");
        if at == 0 {
            for width in widths {
                let _ = write!(out, "|{:-<1$}", "", width + 2);
            }
            out.push_str("|\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(target: Target, ratios: &[f64]) -> &'static str {
        let samples = ratios.iter().map(|ratio| Sample::of(*ratio, 1.0)).collect();
        let rounds = Rounds { samples, ..Rounds::default() };
        let (what, settings) = ("", String::new());
        Row { id: "x", case: "", what, against: "", unit: "ns", target, settings, rounds }.verdict()
    }

    #[test]
    fn a_verdict_needs_four_of_five_rounds() {
        let target = Target::at_least(1.0);
        assert_eq!(verdict(target, &[1.1, 1.2, 1.1, 1.3, 0.9]), "met");
        assert_eq!(verdict(target, &[1.1, 1.2, 1.1, 0.9, 0.9]), "indistinguishable");
        assert_eq!(verdict(target, &[1.1, 0.8, 0.9, 0.9, 0.9]), "missed");
        assert_eq!(verdict(Target::at_most(1.0), &[0.5, 0.8, 0.9, 0.9, 0.9]), "met");
        assert_eq!(verdict(target.absolute(2.0), &[1.1; 5]), "missed", "the ratio is met, the absolute is not");
        assert_eq!(verdict(Target::at_most_more(2.0), &[2.9; 5]), "met");
        assert_eq!(verdict(Target::at_most_more(2.0), &[3.1; 5]), "missed");
        assert_eq!(verdict(target, &[]), "void: the machine was not quiet");
    }

    #[test]
    fn amounts_are_readable() {
        assert_eq!([0.5, 12.34, 345.6, 1_234_567.0].map(amount), ["0.50", "12.3", "346", "1,234,567"]);
    }
}
