//! What a run found, as a table for people and as JSON for tools.

use std::{fmt, time::Duration};

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use crate::Case;

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The promise held.
    Passed,
    /// It did not.
    Failed,
    /// It was not asked for, or only in part: the reason says why.
    Skipped,
}

impl Verdict {
    /// As reports write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// The result of one case.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which case.
    pub case: &'static Case,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed or was skipped; a remark, or nothing, if it passed.
    pub reason: String,
    /// How long it took.
    pub took: Duration,
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Entry", 3)?;
        out.serialize_field("result", self.verdict.as_str())?;
        out.serialize_field("reason", &self.reason)?;
        // Milliseconds are all that a reader can use.
        out.serialize_field("seconds", &((self.took.as_secs_f64() * 1e3).round() / 1e3))?;
        out.end()
    }
}

impl fmt::Display for Entry {
    /// A line of the table, and one for the reason if there is any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, verdict, reason, took } = self;
        let (verdict, seconds, clauses) = (verdict.as_str(), took.as_secs_f64(), case.clauses.join(" "));
        write!(f, "{:>4}  {verdict:7}  {seconds:6.3} s  {clauses:12}  {}", case.number, case.name)?;
        if reason.is_empty() { Ok(()) } else { write!(f, "\n{:25}{reason}", "") }
    }
}

/// The results of all cases on one transport, by number.
#[derive(Clone, Debug)]
pub struct Report {
    /// The transport, as the suite was told: `file:`.
    pub transport: String,
    /// One for each case of the catalogue.
    pub entries: Vec<Entry>,
}

impl Report {
    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.verdict == Verdict::Failed)
    }

    /// How many cases ended so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.entries.iter().filter(|entry| entry.verdict == verdict).count()
    }

    /// `{"file:": {"1": {"result": …, "reason": …, "seconds": …}, …}}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        Reports(std::slice::from_ref(self)).to_json()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.transport)?;
        for entry in &self.entries {
            writeln!(f, "{entry}")?;
        }
        let count = |verdict| self.count(verdict);
        let (passed, failed, skipped) = (count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Skipped));
        writeln!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Several transports' reports in one JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Reports<'a>(pub &'a [Report]);

impl Reports<'_> {
    /// One JSON object: transports by name, in each the cases by number, in order.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts and numbers always are JSON.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl Serialize for Reports<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(Some(self.0.len()))?;
        for report in self.0 {
            out.serialize_entry(&report.transport, &ByNumber(&report.entries))?;
        }
        out.end()
    }
}

struct ByNumber<'a>(&'a [Entry]);

impl Serialize for ByNumber<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|entry| (entry.case.number.to_string(), entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CATALOGUE;

    fn report() -> Report {
        let entry = |case: &'static Case| Entry {
            case,
            verdict: if case.number == 2 { Verdict::Failed } else { Verdict::Passed },
            reason: if case.number == 2 { "lost \"one\"".into() } else { String::new() },
            took: Duration::from_micros(1_234_567),
        };
        Report { transport: "file:".into(), entries: CATALOGUE.iter().map(entry).collect() }
    }

    #[test]
    fn json_has_every_case_in_the_order_of_its_number() {
        let json = report().to_json();
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["file:"]["2"]["reason"], "lost \"one\"");
        assert_eq!(
            (&read["file:"]["46"]["result"], &read["file:"]["46"]["seconds"]),
            (&"passed".into(), &1.235.into())
        );
        let at = |number: u8| json.find(&format!("\"{number}\": {{")).unwrap();
        assert!((1..46).all(|number| at(number) < at(number + 1)));
    }

    #[test]
    fn the_table_shows_the_reason_and_the_sum() {
        let table = report().to_string();
        assert!(table.contains("lost \"one\"") && table.contains("45 passed, 1 failed, 0 skipped"), "{table}");
    }
}
