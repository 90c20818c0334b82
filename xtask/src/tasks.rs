//! The tasks, each a list of steps.

use std::{fs, time::Duration};

use crate::{
    brokers::{self, Broker},
    rules::{self, Repository},
    soak::Kill,
    step::{Failed, built, cargo, program, quiet_cargo, root, timed},
};

/// Longest time that an example may take.
const EXAMPLE_LIMIT: Duration = Duration::from_secs(60);

/// Everything, the quickest first.
pub(crate) fn ci() -> Result<(), Failed> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    rules()?;
    let features = brokers::features()?;
    cargo(
        &[&["clippy", "--workspace", "--all-targets", "--locked"], features, &["--", "-D", "warnings"]].concat(),
        &[],
    )?;
    test(&[])?;
    interleavings()?;
    // With what the tests have built.
    timed("200 kills of the order system", || Kill::in_ci().run())?;
    cargo(&["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    examples()?;
    counts(&[])?;
    println!("everything holds");
    Ok(())
}

/// All tests, with the brokers that transports are tested against.
pub(crate) fn test(arguments: &[String]) -> Result<(), Failed> {
    let features = brokers::features()?;
    let mut command = [&["test", "--workspace", "--locked"], features].concat();
    command.extend(arguments.iter().map(String::as_str));
    let wanted = [Broker::Nats, Broker::Rabbitmq, Broker::Kafka];
    let started = brokers::for_tests(&wanted[..if features.is_empty() { 2 } else { 3 }])?;
    let tested = cargo(&command, &[]);
    started.into_iter().try_for_each(Broker::down)?;
    tested
}

/// The hand-over between the log's threads, in many orders: its own code, on locks that choose who goes on.
pub(crate) fn interleavings() -> Result<(), Failed> {
    // Apart, so that nothing else is compiled anew because of the flag.
    let command = ["test", "--locked", "--package", "oncue-log", "--test", "it", "--target-dir", "target/shuttle"];
    cargo(&[&command[..], &["--", "interleavings"]].concat(), &[("RUSTFLAGS", "--cfg shuttle")])
}

/// The house rules.
pub(crate) fn rules() -> Result<(), Failed> {
    let repeat = "cargo xtask rules";
    timed("house rules", || {
        let repository = Repository::read(root()).map_err(|error| Failed::new(error, repeat))?;
        let report = rules::check(&repository);
        for warning in &report.warnings {
            println!("warning: {warning}");
        }
        for violation in &report.violations {
            eprintln!("{violation}");
        }
        match report.violations.len() {
            0 => Ok(()),
            count => Err(Failed::new(format!("{count} breaches of house rules, listed above"), repeat)),
        }
    })
}

/// Rows of the benchmarks that need no crates of others: the rest is compiled with what it compares with.
const OUR_OWN_ROWS: [&str; 5] = ["1", "2", "3", "7", "9"];

/// The benchmarks. What is compared with other libraries is compiled only if it is asked for.
pub(crate) fn bench(arguments: &[String]) -> Result<(), Failed> {
    let mut command = vec!["run", "--release", "--locked", "--package", "oncue-benches"];
    let is_own = |id: &&String| OUR_OWN_ROWS.iter().any(|own| id.trim_end_matches(char::is_alphabetic) == *own);
    let mut ids =
        arguments.iter().filter(|argument| argument.starts_with(|char: char| char.is_ascii_digit())).peekable();
    if ids.peek().is_none() || !ids.all(|id| is_own(&id)) {
        command.extend(["--features", "rivals"]);
    }
    command.push("--");
    command.extend(arguments.iter().map(String::as_str));
    // With `--json`, what it prints is for programs: nothing else may stand between.
    if arguments.iter().any(|argument| argument == "--json") { quiet_cargo(&command) } else { cargo(&command, &[]) }
}

/// Instructions and allocations of an event, against what is written down.
pub(crate) fn counts(arguments: &[String]) -> Result<(), Failed> {
    let mut command = vec!["run", "--release", "--locked", "--package", "oncue-benches", "--"];
    command.extend(["--counts", "benches/counts.json"]);
    command.extend(arguments.iter().map(String::as_str));
    // Flags of the machine's owner make other instructions: the ones that are written down are of the plain build.
    cargo(&command, &[("RUSTFLAGS", "")])
}

/// Builds the examples, then runs each.
pub(crate) fn examples() -> Result<(), Failed> {
    cargo(&["build", "--locked", "--package", "oncue-examples", "--bins"], &[])?;
    let folder = root().join("examples/src/bin");
    let names = fs::read_dir(&folder).map_err(|error| error.to_string()).map(|entries| {
        let mut names: Vec<_> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort_unstable();
        names
    });
    let names = match names {
        Ok(names) if !names.is_empty() => names,
        // None at all is a mistake, not a success.
        Ok(_) => return Err(Failed::new(format!("no examples in {}", folder.display()), "cargo xtask examples")),
        Err(error) => return Err(Failed::new(format!("{}: {error}", folder.display()), "cargo xtask examples")),
    };
    for name in names {
        let repeat = format!("cargo run --package oncue-examples --bin {name}");
        timed(&format!("example {name}"), || program(&built(&name)?, EXAMPLE_LIMIT, &repeat))?;
    }
    Ok(())
}
