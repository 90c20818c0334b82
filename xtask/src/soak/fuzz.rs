//! Decoders and parsers under libFuzzer.

use std::process::Command;

use clap::Args;

use crate::step::{Failed, root, timed};

/// Hands any bytes to every decoder and parser, each for a time, under libFuzzer and `AddressSanitizer`
///
/// Needs a nightly toolchain and cargo-fuzz (`rustup toolchain install nightly`, `cargo install cargo-fuzz`). What a target
/// learns is kept in `fuzz/corpus`, what breaks it in `fuzz/artifacts`: make that a case of the tests in the `fuzz.rs` of
/// its crate. These run the same functions for a moment each time the tests are run.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
                        cargo xtask soak fuzz\n  \
                        cargo xtask soak fuzz directory state --seconds 3600")]
pub(crate) struct Fuzz {
    /// Decoders, as `fuzz/fuzz_targets` names them. Without any: all
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// How long each is run
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
}

impl Fuzz {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let known = targets()?;
        let chosen = if self.targets.is_empty() { known.clone() } else { self.targets };
        if let Some(unknown) = chosen.iter().find(|target| !known.contains(target)) {
            let what = format!("there is no target {unknown}; there are {}", known.join(", "));
            return Err(Failed::new(what, "cargo xtask soak fuzz"));
        }
        let limit = format!("-max_total_time={}", self.seconds);
        for target in &chosen {
            let name = format!("fuzz {target}");
            let arguments = ["run", target, "--", &limit, "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"];
            timed(&name, || cargo_fuzz(&arguments))?;
        }
        Ok(())
    }
}

/// The names of all targets.
fn targets() -> Result<Vec<String>, Failed> {
    let folder = root().join("fuzz/fuzz_targets");
    let failed = |error| Failed::new(format!("{}: {error}", folder.display()), "cargo xtask soak fuzz");
    let entries = std::fs::read_dir(&folder).map_err(failed)?;
    let name = |entry: std::fs::DirEntry| Some(entry.path().file_stem()?.to_str()?.to_owned());
    let mut names: Vec<_> = entries.flatten().filter_map(name).collect();
    names.sort_unstable();
    Ok(names)
}

fn cargo_fuzz(arguments: &[&str]) -> Result<(), Failed> {
    let repeat = format!("cargo +nightly fuzz {}", arguments.join(" "));
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz"]).args(arguments).current_dir(root());
    // Those of the toolchain that runs this task.
    let status = command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC").status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed::new(format!("it does not hold, or cannot be built ({status}), see above"), repeat)),
        Err(error) => Err(Failed::new(format!("cannot be started: {error}"), repeat)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_program_and_one_that_is_none_is_refused() {
        let known = targets().map_err(|failed| failed.to_string()).unwrap();
        assert!(known.len() > 10, "{known:?}");
        let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        for target in &known {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        }
        let failed = Fuzz { targets: vec!["nothing".to_owned()], seconds: 1 }.run().unwrap_err();
        assert!(failed.to_string().contains("there is no target nothing; there are change, checkpoint"), "{failed}");
    }
}
