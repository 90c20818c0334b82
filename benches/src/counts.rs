//! The gate: no way of ours may take more instructions or allocations than are written down.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

use crate::{
    callgrind::{self, Counts},
    measure::Result,
    walk,
};

/// So many times the instructions that are written down are too many, where that is more than these few. Code that is inlined
/// otherwise, because a function elsewhere in its crate changed, takes up to 3 %.
const INSTRUCTIONS: f64 = 1.04;
const FEW_INSTRUCTIONS: f64 = 2.0;
/// So many allocations more an event are too many: fewer than one, since some come once in several events.
const ALLOCATIONS: f64 = 0.05;
const RENEW: &str = "cargo xtask counts --renew";

/// What was counted, and what it is true for.
#[derive(Serialize, Deserialize)]
struct Baseline {
    /// Another one makes other instructions.
    compiler: String,
    ways: BTreeMap<String, Counts>,
}

/// The compiler's version and the platform.
fn compiler() -> Result<String> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(program).arg("-vV").output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").to_owned();
    Ok(format!("{} for {}", field("release: "), field("host: ")))
}

fn count(directory: &Path) -> Result<Baseline> {
    let mut ways = BTreeMap::new();
    for way in walk::WAYS {
        ways.insert(way.name.to_owned(), callgrind::count(way, directory)?);
    }
    Ok(Baseline { compiler: compiler()?, ways })
}

/// Counts, and writes it down.
pub(crate) fn renew(file: &Path, directory: &Path) -> Result<()> {
    callgrind::available()?;
    let mut text = serde_json::to_string_pretty(&count(directory)?)?;
    text.push('\n');
    fs::write(file, text)?;
    println!("written to {}", file.display());
    Ok(())
}

/// Counts, and fails if it is more than what is written down. Without valgrind it is skipped, but not where `CI` is set.
pub(crate) fn check(file: &Path, directory: &Path) -> Result<()> {
    if let Err(why) = callgrind::available() {
        if std::env::var_os("CI").is_some() {
            return Err(why.into());
        }
        println!("skipped: {why}");
        return Ok(());
    }
    let known: Baseline = serde_json::from_str(&fs::read_to_string(file)?)?;
    let (report, breaches) = compare(&known, &count(directory)?);
    print!("{report}");
    if breaches.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nIf it must be so, say why and write it down: {RENEW}", breaches.join("\n")).into())
}

/// What to print, and what is too much.
fn compare(known: &Baseline, counted: &Baseline) -> (String, Vec<String>) {
    let same = known.compiler == counted.compiler;
    let (mut report, mut breaches) = (String::new(), Vec::new());
    if !same {
        let (here, there) = (&counted.compiler, &known.compiler);
        let _ = writeln!(report, "Counted with {here}, written down with {there}: only allocations are compared.");
    }
    let _ = writeln!(report, "{:<22}{:>22}{:>20}", "way", "instructions (known)", "allocations (known)");
    for (name, now) in &counted.ways {
        let Some(before) = known.ways.get(name) else {
            breaches.push(format!("`{name}` is not written down"));
            continue;
        };
        let instructions = format!("{:.1} ({:.1})", now.instructions, before.instructions);
        let allocations = format!("{:.2} ({:.2})", now.allocations, before.allocations);
        let _ = writeln!(report, "{name:<22}{instructions:>22}{allocations:>20}");
        let most = (before.instructions * INSTRUCTIONS).max(before.instructions + FEW_INSTRUCTIONS);
        if same && now.instructions > most {
            breaches.push(format!("`{name}` takes more instructions: {instructions}"));
        }
        if now.allocations > before.allocations + ALLOCATIONS {
            breaches.push(format!("`{name}` allocates more often: {allocations}"));
        }
    }
    (report, breaches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(compiler: &str, instructions: f64, allocations: f64) -> Baseline {
        let ways = BTreeMap::from([("way".to_owned(), Counts { instructions, allocations })]);
        Baseline { compiler: compiler.to_owned(), ways }
    }

    fn breaches(counted: &Baseline) -> usize {
        compare(&baseline("1", 1000.0, 1.0), counted).1.len()
    }

    #[test]
    fn four_percent_more_or_one_allocation_more_is_too_much() {
        assert_eq!(breaches(&baseline("1", 1040.0, 1.0)), 0);
        assert_eq!(breaches(&baseline("1", 1041.0, 1.0)), 1);
        assert_eq!(breaches(&baseline("1", 900.0, 2.0)), 1);
        assert_eq!(breaches(&baseline("1", 2000.0, 2.0)), 2);
    }

    #[test]
    fn another_compiler_may_need_other_instructions_but_not_more_allocations() {
        assert_eq!(breaches(&baseline("2", 2000.0, 1.0)), 0);
        assert_eq!(breaches(&baseline("2", 900.0, 2.0)), 1);
        assert!(compare(&baseline("1", 1.0, 0.0), &baseline("2", 1.0, 0.0)).0.contains("only allocations"));
    }

    #[test]
    fn a_way_that_is_not_written_down_is_a_breach() {
        let nothing = Baseline { compiler: "1".to_owned(), ways: BTreeMap::new() };
        assert_eq!(compare(&nothing, &baseline("1", 1.0, 0.0)).1, ["`way` is not written down"]);
    }
}
