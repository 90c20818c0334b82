//! Dependencies between crates point one way, and some crates must not know some things.

use super::{Breach, Repository};

/// A crate and what it may and must not depend on. Development dependencies are free: tests may use anything.
struct Crate {
    name: &'static str,
    manifest: &'static str,
    /// The crates of this repository that it may use.
    may_use: &'static [&'static str],
    /// Foreign crates (or beginnings of their names, with `*`) that it must not use.
    never: &'static [&'static str],
}

/// What brings tokio, futures or serialisation with it.
const ASYNC_AND_SERDE: &[&str] =
    &["tokio*", "async-*", "futures*", "smol", "serde*", "bincode", "postcard", "tracing*"];
/// What a crate that does nothing but compute has no use for.
const COMPUTES_ALONE: &[&str] = &["tokio*", "async-*", "futures*", "smol", "tracing*", "reqwest", "ureq"];
/// Clients of brokers and anything that opens a socket.
const NETWORK: &[&str] = &[
    "rdkafka*",
    "rskafka",
    "lapin",
    "amqp*",
    "async-nats",
    "nats",
    "zeromq",
    "zmq",
    "redis",
    "rumqttc",
    "pulsar",
    "hyper*",
    "axum*",
    "reqwest",
    "tonic*",
    "warp",
    "actix*",
    "tower-http",
    "ureq",
    "tungstenite",
    "tokio-tungstenite",
    "sqlx",
    "tokio-postgres",
    "rustls*",
    "quinn",
];

/// Every crate of the workspace, from the bottom to the top.
const CRATES: &[Crate] = &[
    Crate { name: "oncue-log", manifest: "crates/oncue-log/Cargo.toml", may_use: &[], never: ASYNC_AND_SERDE },
    Crate { name: "oncue-learn", manifest: "crates/oncue-learn/Cargo.toml", may_use: &[], never: COMPUTES_ALONE },
    Crate { name: "oncue-mdp", manifest: "crates/oncue-mdp/Cargo.toml", may_use: &[], never: COMPUTES_ALONE },
    Crate { name: "oncue-macros", manifest: "crates/oncue-macros/Cargo.toml", may_use: &[], never: NETWORK },
    Crate {
        name: "oncue",
        manifest: "crates/oncue/Cargo.toml",
        may_use: &["oncue-learn", "oncue-log", "oncue-macros", "oncue-mdp"],
        never: NETWORK,
    },
    Crate {
        name: "oncue-conformance",
        manifest: "crates/oncue-conformance/Cargo.toml",
        may_use: &["oncue"],
        never: NETWORK,
    },
    Crate { name: "oncue-transports", manifest: "crates/oncue-transports/Cargo.toml", may_use: &["oncue"], never: &[] },
    Crate {
        name: "oncue-server",
        manifest: "crates/oncue-server/Cargo.toml",
        may_use: &["oncue", "oncue-conformance", "oncue-learn", "oncue-mdp", "oncue-transports"],
        never: &[],
    },
    Crate {
        name: "oncue-examples",
        manifest: "examples/Cargo.toml",
        may_use: &["oncue", "oncue-mdp", "oncue-transports"],
        never: &[],
    },
    Crate {
        name: "oncue-benches",
        manifest: "benches/Cargo.toml",
        may_use: &["oncue", "oncue-log", "oncue-mdp", "oncue-transports"],
        never: &[],
    },
    Crate { name: "oncue-fuzz", manifest: "fuzz/Cargo.toml", may_use: &["oncue", "oncue-log"], never: &[] },
    Crate { name: "xtask", manifest: "xtask/Cargo.toml", may_use: &[], never: NETWORK },
];

/// Dependencies that point the wrong way, or to what must stay unknown.
pub(super) fn wrong(repository: &Repository) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let manifests = repository.files().iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    for file in manifests {
        let Some(rule) = CRATES.iter().find(|known| known.manifest == file.path) else {
            let what = "a crate that the order of crates does not know";
            let mend = "add it to CRATES in xtask/src/rules/dependencies.rs, with a decision record";
            breaches.push(Breach::new(&file.path, 1, what, mend));
            continue;
        };
        for (line, name) in dependencies(&file.text) {
            if CRATES.iter().any(|known| known.name == name) && !rule.may_use.contains(&name) {
                let what = format!("`{}` depends on `{name}`", rule.name);
                let mend = "dependencies point one way: oncue-log ← oncue ← oncue-transports ← oncue-server; move what is \
                            needed down, or pass it in";
                breaches.push(Breach::new(&file.path, line, what, mend));
            }
            if rule.never.iter().any(|never| is_like(name, never)) {
                let what = format!("`{}` depends on `{name}`", rule.name);
                let mend = "oncue-log knows no async and no serialisation, and nothing up to oncue opens a socket: it \
                            belongs into a crate above";
                breaches.push(Breach::new(&file.path, line, what, mend));
            }
        }
    }
    breaches
}

fn is_like(name: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |beginning| name.starts_with(beginning))
}

/// (line, name) of what `[dependencies]`, `[build-dependencies]` and those of targets name.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let is_list = |name: &str| matches!(name, "dependencies" | "build-dependencies");
            let last_two = section.rsplit_once('.');
            inside = is_list(last_two.map_or(section, |(_, last)| last));
            // `[dependencies.name]`
            if let Some((before, name)) = last_two
                && is_list(before.rsplit('.').next().unwrap_or_default())
            {
                found.push((index + 1, name.trim_matches('"')));
            }
        } else if inside && let Some((name, _)) = line.split_once('=') {
            let name = name.trim().split('.').next().unwrap_or_default().trim_matches('"');
            found.push((index + 1, name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_found_however_they_are_written() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\" # c = 1\n\n\
                        [dependencies.d]\nversion = \"1\"\n[target.'cfg(unix)'.dependencies]\ne = { version = \"1\" }\n\
                        [dev-dependencies]\nf = \"1\"\n[build-dependencies]\ng = \"1\"\n";
        let names: Vec<_> = dependencies(manifest).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b", "d", "e", "g"]);
    }

    #[test]
    fn a_dependency_upward_or_to_the_forbidden_is_found() {
        let repository = Repository::of(&[
            (
                "crates/oncue-log/Cargo.toml",
                "[dependencies]\nbytes = \"1\"\ntokio-util = \"1\"\noncue.workspace = true\n",
            ),
            ("crates/oncue/Cargo.toml", "[dependencies]\noncue-log.workspace = true\nreqwest = \"1\"\n"),
            ("crates/oncue-server/Cargo.toml", "[dependencies]\noncue.workspace = true\naxum = \"1\"\n"),
            ("crates/oncue-log2/Cargo.toml", "[dependencies]\n"),
        ]);
        let found: Vec<_> = wrong(&repository).into_iter().map(|breach| (breach.file, breach.line)).collect();
        assert_eq!(
            found,
            [
                ("crates/oncue-log/Cargo.toml".to_owned(), 3),
                ("crates/oncue-log/Cargo.toml".to_owned(), 4),
                ("crates/oncue/Cargo.toml".to_owned(), 3),
                ("crates/oncue-log2/Cargo.toml".to_owned(), 1),
            ]
        );
    }
}
