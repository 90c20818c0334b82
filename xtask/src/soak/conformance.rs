//! The full tier of the conformance suite, again and again.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{build, new_seed};
use crate::step::Failed;

/// What is tested if nothing is named.
const URLS: [&str; 2] = ["memory:", "file:"];

/// Runs the conformance suite with the sizes of the catalogue, as many times as it is told to
///
/// Each case is a process of its own, told of when it ends, so that one that hangs or breaks everything leaves the others
/// alone. A failure says its seed and the command that repeats it.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
                        cargo xtask soak conformance\n  \
                        cargo xtask soak conformance file: --rounds 10 --case 33,46\n  \
                        cargo xtask soak conformance file:/mnt/disk --json > soak.json")]
pub(crate) struct Conformance {
    /// Transports, as `oncue conformance` takes them. Without any: `memory:` and `file:`
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// How many times each case is run
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: u32,

    /// Cases to run, such as `3` or `3,7`; without it, all
    #[arg(long = "case", value_name = "N", value_delimiter = ',')]
    cases: Vec<u8>,

    /// Sizes: `full` those of the catalogue, `fast` small ones
    #[arg(long, value_enum, default_value_t = Tier::Full)]
    tier: Tier,

    /// What random choices follow from, one more in each round; a new one each time without it
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Tier {
    Fast,
    Full,
}

/// What became of a case in all rounds.
#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
    /// The longest.
    seconds: f64,
    /// Why it was skipped, or what it remarked, the last time.
    reason: String,
}

/// All cases of all transports, by URL and number.
type Tallies = BTreeMap<String, BTreeMap<u8, Tally>>;

impl Conformance {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let program = build("--bin", "oncue", false)?;
        let urls = if self.urls.is_empty() { URLS.map(str::to_owned).to_vec() } else { self.urls.clone() };
        let cases = if self.cases.is_empty() { all_cases(&program)? } else { self.cases.clone() };
        let seed = self.seed.unwrap_or_else(new_seed);
        let (mut tallies, mut failures) = (Tallies::new(), Vec::new());
        for round in 1..=self.rounds {
            for url in &urls {
                for case in &cases {
                    let seed = seed.wrapping_add(u64::from(round) - 1);
                    let arguments = self.arguments(url, *case, seed);
                    let ended = run(&program, &arguments)?;
                    let (result, reason) = (text(&ended["result"]), text(&ended["reason"]));
                    let seconds = ended["seconds"].as_f64().unwrap_or_default();
                    let rounds = self.rounds;
                    eprintln!("round {round:>2} of {rounds}  {url:8}  case {case:>2}  {result:7}  {seconds:7.3} s");
                    if result == "failed" {
                        let repeat = format!("target/release/oncue {}", arguments.join(" "));
                        eprintln!("    seed {seed}: {reason}\n    repeat it with: {repeat}");
                        failures.push(json!({
                            "transport": url, "case": case, "round": round, "seed": seed, "reason": reason,
                            "repeat": repeat,
                        }));
                    }
                    let tally = tallies.entry(url.clone()).or_default().entry(*case).or_default();
                    tally.add(result, reason, seconds);
                }
            }
        }
        self.tell(seed, &tallies, &failures);
        let repeat = format!("cargo xtask soak conformance {} --seed {seed}", urls.join(" "));
        match failures.len() {
            0 => Ok(()),
            count => Err(Failed::new(format!("{count} runs of cases failed, see above"), repeat)),
        }
    }

    fn arguments(&self, url: &str, case: u8, seed: u64) -> Vec<String> {
        let (case, seed) = (case.to_string(), seed.to_string());
        let tier = match self.tier {
            Tier::Fast => "fast",
            Tier::Full => "full",
        };
        ["conformance", url, "--case", &case, "--tier", tier, "--seed", &seed].map(str::to_owned).to_vec()
    }

    fn tell(&self, seed: u64, tallies: &Tallies, failures: &[Value]) {
        if self.json {
            let cases = |cases: &BTreeMap<u8, Tally>| -> BTreeMap<String, Value> {
                cases.iter().map(|(number, tally)| (number.to_string(), tally.json())).collect()
            };
            let transports: BTreeMap<_, _> = tallies.iter().map(|(url, all)| (url, cases(all))).collect();
            let told = json!({ "rounds": self.rounds, "seed": seed, "transports": transports, "failures": failures });
            println!("{told:#}");
            return;
        }
        for (url, cases) in tallies {
            println!("\n{url}, {} rounds, seed {seed}\n  case  passed  failed  skipped  longest", self.rounds);
            for (number, tally) in cases {
                let Tally { passed, failed, skipped, seconds, reason } = tally;
                println!("  {number:>4}  {passed:>6}  {failed:>6}  {skipped:>7}  {seconds:6.1} s  {reason}");
            }
            let sum = |count: fn(&Tally) -> u32| cases.values().map(count).sum::<u32>();
            let (passed, failed, skipped) = (sum(|t| t.passed), sum(|t| t.failed), sum(|t| t.skipped));
            println!("{passed} passed, {failed} failed, {skipped} skipped");
        }
    }
}

impl Tally {
    fn add(&mut self, result: &str, reason: &str, seconds: f64) {
        match result {
            "passed" => self.passed += 1,
            "skipped" => self.skipped += 1,
            _ => self.failed += 1,
        }
        self.seconds = self.seconds.max(seconds);
        reason.clone_into(&mut self.reason);
    }

    fn json(&self) -> Value {
        let Self { passed, failed, skipped, seconds, reason } = self;
        json!({ "passed": passed, "failed": failed, "skipped": skipped, "longest_s": seconds, "reason": reason })
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The numbers of all cases: the report names each, asked for or not.
fn all_cases(program: &Path) -> Result<Vec<u8>, Failed> {
    let arguments = ["conformance", "memory:", "--case", "1"].map(str::to_owned);
    let cases = report(program, &arguments)?;
    let mut numbers: Vec<u8> = cases.keys().filter_map(|number| number.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Runs one case: what the report says of it. A process that ends without a report is a case that failed.
fn run(program: &Path, arguments: &[String]) -> Result<Value, Failed> {
    let case = arguments.get(3).map(String::as_str).unwrap_or_default();
    Ok(match report(program, arguments) {
        Ok(mut cases) => cases.remove(case).unwrap_or_default(),
        Err(failed) => json!({ "result": "failed", "reason": failed.to_string(), "seconds": 0 }),
    })
}

/// The cases of a report, by number.
fn report(program: &Path, arguments: &[String]) -> Result<serde_json::Map<String, Value>, Failed> {
    let failed = |what: String| Failed::new(what, format!("target/release/oncue {}", arguments.join(" ")));
    let output = Command::new(program).args(arguments).arg("--json").stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(format!("{}: cannot be started: {error}", program.display())))?;
    let report = serde_json::from_slice::<BTreeMap<String, serde_json::Map<String, Value>>>(&output.stdout);
    match report.ok().and_then(|report| report.into_values().next()) {
        Some(cases) => Ok(cases),
        None => Err(failed(format!("no report ({}): {}", output.status, String::from_utf8_lossy(&output.stderr)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_tells_nothing_is_a_case_that_failed() {
        let arguments = ["conformance", "file:", "--case", "7"].map(str::to_owned);
        let ended = run(Path::new("/bin/false"), &arguments).map_err(|failed| failed.to_string()).unwrap();
        assert_eq!(ended["result"], "failed");
        assert!(text(&ended["reason"]).contains("target/release/oncue conformance file: --case 7"), "{ended}");
        let mut tally = Tally::default();
        tally.add(text(&ended["result"]), text(&ended["reason"]), 0.5);
        tally.add("passed", "", 0.25);
        assert_eq!((tally.failed, tally.passed, tally.skipped, tally.seconds), (1, 1, 0, 0.5));
    }
}
