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

/// Rows of the benchmarks that need more than this repository: what they are compiled with, and the brokers that they are
/// measured on. The rest is compiled without.
const ROWS_WITH: [(&[&str], &str, &[Broker]); 3] = [
    (&["5", "5s"], "brokers", &[Broker::Nats, Broker::Rabbitmq, Broker::Kafka]),
    (&["10a", "10b", "10c", "11"], "rivals", &[]),
    (&["12"], "broker-rivals", &[Broker::Nats, Broker::Kafka]),
];

/// The benchmarks. What is compared with other libraries is compiled only if it is asked for.
pub(crate) fn bench(arguments: &[String]) -> Result<(), Failed> {
    let ids: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| argument.starts_with(|char: char| char.is_ascii_digit()))
        .collect();
    let is_asked = |rows: &[&str]| ids.is_empty() || rows.iter().any(|row| ids.contains(row));
    let asked = ROWS_WITH.iter().filter(|(rows, ..)| is_asked(rows));
    let (mut features, mut wanted): (Vec<&str>, Vec<Broker>) = (Vec::new(), Vec::new());
    // The client of Kafka is built from its source, where that can be done.
    let has_kafka = brokers::missing_for_kafka().is_none();
    for (_, feature, brokers) in asked {
        match *feature {
            "brokers" if has_kafka => features.push("kafka"),
            "broker-rivals" if !has_kafka => {}
            feature => features.push(feature),
        }
        wanted.extend(brokers.iter().filter(|broker| has_kafka || **broker != Broker::Kafka));
    }
    let features = features.join(",");
    let mut command =
        vec!["run", "--profile=dist", "--locked", "--package", "oncue-benches", "--features", &features, "--"];
    command.extend(arguments.iter().map(String::as_str));
    if arguments.iter().any(|argument| argument == "--json") {
        // What it prints is for programs, nothing else may stand between: brokers are those that run.
        return quiet_cargo(&command);
    }
    let started = brokers::for_tests(&wanted)?;
    let measured = cargo(&command, &[]);
    started.into_iter().try_for_each(Broker::down)?;
    measured
}

/// Instructions and allocations of an event, against what is written down.
pub(crate) fn counts(arguments: &[String]) -> Result<(), Failed> {
    let mut command = vec!["run", "--profile=dist", "--locked", "--package", "oncue-benches", "--"];
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
