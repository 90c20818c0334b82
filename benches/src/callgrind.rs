//! Counting instructions and allocations: this program, run again under callgrind.

use std::{collections::HashMap, fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

use crate::{measure::Result, walk::Way};

/// Events of the shorter walk; the longer one has twice as many.
const EVENTS: u64 = 4096;
/// The functions of the C library that hand out memory.
const ALLOCATORS: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];
/// The C library chooses between versions of `memcpy` and the like by what the processor can do: always the same ones here.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM";

/// What was counted, of one event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

impl Counts {
    fn minus(self, other: Self) -> Self {
        Self { instructions: self.instructions - other.instructions, allocations: self.allocations - other.allocations }
    }

    fn per(self, events: u64) -> Self {
        // What grows now and then comes to some thousandth of an allocation: to hundredths, that is none.
        let rounded = |value: f64, to: f64| (value / events as f64 * to).round() / to;
        Self { instructions: rounded(self.instructions, 10.0), allocations: rounded(self.allocations, 100.0) }
    }
}

/// Whether there is a valgrind; if not, why.
pub(crate) fn available() -> std::result::Result<(), String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("valgrind does not run here ({})", output.status)),
        Err(error) => Err(format!("valgrind cannot be started ({error}): install it to count instructions")),
    }
}

/// Instructions and allocations of one event on this way, in the steady state.
pub(crate) fn count(way: &Way, directory: &Path) -> Result<Counts> {
    let mut counts = more(way, directory)?;
    if let Some(before) = way.after {
        counts = counts.minus(more(Way::named(before)?, directory)?);
    }
    Ok(counts.per(EVENTS))
}

/// What so many events more cost.
fn more(way: &Way, directory: &Path) -> Result<Counts> {
    Ok(run(way, 2 * EVENTS, directory)?.minus(run(way, EVENTS, directory)?))
}

fn run(way: &Way, events: u64, directory: &Path) -> Result<Counts> {
    let out = directory.join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--walk", way.name, "--events", &events.to_string()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}` under callgrind: {}\n{said}", way.name, output.status).into());
    }
    parse(&fs::read_to_string(out)?)
}

/// Reads what callgrind wrote: the sum of instructions, and how often the allocators were called.
fn parse(profile: &str) -> Result<Counts> {
    // A function's name is written once, with a number that stands for it from then on.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut instructions, mut allocations, mut callee) = (None, 0_u64, "");
    for line in profile.lines() {
        if let Some(total) = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")) {
            instructions = total.split(' ').next().and_then(|count| count.parse::<f64>().ok());
        } else if let Some(function) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            callee = names.get(number).copied().unwrap_or_default();
        } else if let Some(calls) = line.strip_prefix("calls=")
            && ALLOCATORS.contains(&callee)
        {
            allocations += calls.split(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    let instructions = instructions.ok_or("callgrind wrote no totals")?;
    Ok(Counts { instructions, allocations: allocations as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read() {
        let profile = "events: Ir\nfn=(1) main\n5 10\ncfn=(2) malloc\ncalls=3 0\n6 40\ncfn=(3) other\ncalls=9 0\n7 1\n\
                       fn=(3)\n1 2\ncfn=(2)\ncalls=4 0\n6 50\ncfn=(4) realloc\ncalls=1 0\n2 2\ntotals: 105\n";
        assert_eq!(parse(profile).unwrap(), Counts { instructions: 105.0, allocations: 8.0 });
        assert!(parse("events: Ir\n").is_err());
    }
}
