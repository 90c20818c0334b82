//! Inside `oncue`, too, dependencies point one way.

use super::{Breach, Repository, source};

/// Where the modules are.
const SOURCES: &str = "crates/oncue/src/";

/// The modules of `oncue`, from the bottom to the top: each may use those before it. Those in one row are one layer and
/// may use each other.
const LAYERS: &[&[&str]] = &[
    &["clock", "codec", "number_map"],
    &["event"],
    &["filter"],
    &["policy"],
    &["metrics"],
    &["transport"],
    &["alert"],
    &["handler"],
    &["bridge"],
    &["config"],
    &["graph"],
    &["middleware"],
    &["source"],
    &["dispatch"],
    &["error"],
    // A receipt asks the bus what became of its event.
    &["bus", "receipt"],
    &["observer"],
    &["app"],
    &["testing"],
    &["fuzz"],
    &["prelude"],
];

/// Uses of a module that is not below.
pub(super) fn wrong(repository: &Repository) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in repository.rust() {
        let Some(module) = file.path.strip_prefix(SOURCES).and_then(module_of) else { continue };
        let Some(layer) = layer_of(module) else {
            let what = format!("module `{module}` is not in the order of modules");
            breaches.push(Breach::new(&file.path, 1, what, "add it to LAYERS in xtask/src/rules/modules.rs"));
            continue;
        };
        if file.path.ends_with("tests.rs") || file.path.contains("/tests/") {
            continue;
        }
        for (line, used) in uses(&source::without_tests(&file.code)) {
            // What is no module (a macro, an item of lib.rs) stands above all of them or is re-exported from below.
            if used != module && layer_of(&used).is_some_and(|below| below > layer) {
                let what = format!("`{module}` uses `{used}`, which stands above it");
                let mend = "move what is needed down, or hand it in from above (the order: xtask/src/rules/modules.rs)";
                breaches.push(Breach::new(&file.path, line, what, mend));
            }
        }
    }
    breaches
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top-level module of a file; None for lib.rs.
fn module_of(path: &str) -> Option<&str> {
    let module = path.split('/').next().unwrap_or_default();
    let module = module.strip_suffix(".rs").unwrap_or(module);
    (module != "lib").then_some(module)
}

/// (line, module) of every `crate::module`, `crate::{module…, module…}` and the same through the crate's own name.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate::", "oncue::"] {
        for (at, _) in code.match_indices(root) {
            let part_of_word = |char: char| char.is_alphanumeric() || char == '_';
            if code[..at].chars().next_back().is_some_and(part_of_word) {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + root.len()..];
            let word =
                |text: &str| -> String { text.trim_start().chars().take_while(|char| part_of_word(*char)).collect() };
            match rest.strip_prefix('{') {
                Some(group) => found.extend(heads(group).map(|head| (line, word(head)))),
                None => found.push((line, word(rest))),
            }
        }
    }
    found
}

/// The parts of `a::x, b::{y, z}, c}` between commas of the outermost level.
fn heads(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let mut open = true;
    group.split(move |char: char| {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => open = false,
            '}' => depth -= 1,
            ',' => return depth == 0 && open,
            _ => {}
        }
        // What follows the group's end is cut off as one last part, of which only the first word counts.
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        wrong(&Repository::of(&[(path, text)])).into_iter().map(|breach| breach.line).collect()
    }

    #[test]
    fn a_use_upward_is_found_however_it_is_written() {
        assert_eq!(found("crates/oncue/src/event/key.rs", "use crate::clock::Clock;\nuse crate::policy::Policy;"), [2]);
        assert_eq!(found("crates/oncue/src/policy.rs", "\nuse crate::{\n    event::{A, B}, app::App};"), [2]);
        assert_eq!(found("crates/oncue/src/clock.rs", "fn f(x: crate::event::Event) {}"), [1]);
        assert_eq!(found("crates/oncue/src/clock.rs", "use ::oncue::bus::Bus;"), [1]);
    }

    #[test]
    fn uses_downward_in_tests_and_in_text_are_free() {
        assert_eq!(
            found("crates/oncue/src/dispatch/a.rs", "use crate::{event::{A, app}, clock};\nuse crate::Result;"),
            [0; 0]
        );
        assert_eq!(
            found("crates/oncue/src/clock.rs", "// crate::event\n#[cfg(test)]\nmod tests { use crate::app::App; }"),
            [0; 0]
        );
        assert_eq!(found("crates/oncue/src/bus/mod.rs", "use crate::receipt::Receipt;"), [0; 0]);
        assert_eq!(found("crates/oncue/src/lib.rs", "pub use crate::app::App;"), [0; 0]);
    }

    #[test]
    fn a_module_without_a_place_is_found() {
        assert_eq!(found("crates/oncue/src/misc/mod.rs", ""), [1]);
    }
}
