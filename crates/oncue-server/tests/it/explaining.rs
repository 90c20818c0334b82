//! `oncue policy explain`, `oncue policy report` and `oncue config check`.

use serde_json::{Value, json};

use crate::program::{Scratch, oncue};

fn explained(arguments: &[&str]) -> Value {
    oncue(&[&["policy", "explain", "--json"], arguments].concat()).report()
}

/// When each attempt starts, in ms: earliest and latest.
fn at(plan: &Value) -> Vec<(f64, f64)> {
    let attempts = plan["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| (attempt["at_ms"][0].as_f64().unwrap(), attempt["at_ms"][1].as_f64().unwrap())).collect()
}

#[test]
fn a_plan_is_what_the_options_say() {
    let plan = explained(&["--kind", "exponential", "--initial", "1s", "--jitter", "0", "--max-attempts", "4"]);
    assert_eq!(at(&plan), [0.0, 1e3, 3e3, 7e3].map(|at| (at, at)));
    assert_eq!((&plan["then"], &plan["class"]), (&"dead_letter".into(), &"transient".into()));
    let plan = explained(&["--kind", "list", "--delays", "1s,10s", "--jitter", "0.5"]);
    assert_eq!(at(&plan), [(0.0, 0.0), (500.0, 1e3), (5.5e3, 11e3)]);
    let plan = explained(&["--kind", "fixed", "--delay", "2s", "--deadline", "5s"]);
    assert_eq!(at(&plan), [0.0, 2e3, 4e3].map(|at| (at, at)));
    assert_eq!(at(&explained(&["--kind", "never"])).len(), 1);
    assert_eq!(at(&explained(&["--kind", "exponential", "--class", "permanent"])).len(), 1);
    let cut = explained(&["--kind", "exponential", "--limit", "3"]);
    assert_eq!((at(&cut).len(), &cut["then"]), (3, &"more".into()));
    let human = oncue(&["policy", "explain", "--kind", "fixed", "--delay", "2s", "--max-attempts", "2"]);
    let expected = "fixed (delay = \"2s\", max_attempts = 2), when each attempt fails (transient):\n  attempt 1 at once\n  \
                    attempt 2 after 2s, 2s from publishing\n  then a dead letter\n";
    assert_eq!((human.code, human.stdout.as_str()), (Some(0), expected));
}

#[test]
fn a_policy_of_a_file_is_explained_by_its_name() {
    let scratch = Scratch::new();
    let file = scratch.write("oncue.toml", "[policies.bank]\nkind = \"fixed\"\ndelay = \"3s\"\nmax_attempts = 3\n");
    let plan = explained(&["--config", &file, "bank"]);
    assert_eq!(plan["policy"], json!({"kind": "fixed", "delay": "3s", "max_attempts": 3}));
    assert_eq!(at(&plan), [0.0, 3e3, 6e3].map(|at| (at, at)));
    oncue(&["policy", "explain", "--config", &file, "mail"]).refused(&["no policy `mail`", &file, "`bank`"]);
}

#[test]
fn options_that_make_no_policy_are_refused() {
    let explain = |arguments: &[&str]| oncue(&[&["policy", "explain"], arguments].concat());
    explain(&[]).refused(&["--kind"]);
    explain(&["--config", "x"]).refused(&["NAME"]);
    explain(&["--config", "x", "bank", "--kind", "fixed"]).refused(&["cannot be used with"]);
    explain(&["--config", "/nowhere.toml", "bank"]).refused(&["/nowhere.toml", "cannot be read"]);
    explain(&["--kind", "fixed"]).refused(&["--delay"]);
    explain(&["--kind", "list"]).refused(&["--delays"]);
    explain(&["--kind", "fixed", "--delay", "5 sek"]).refused(&["--kind fixed", "`sek` is no unit"]);
    explain(&["--kind", "never", "--max-attempts", "3"]).refused(&["--kind never", "max-attempts"]);
    explain(&["--kind", "exponential", "--factor", "0.5"]).refused(&["delays never shrink"]);
}

#[test]
fn a_file_is_checked_and_every_problem_has_its_place() {
    let scratch = Scratch::new();
    let check = |file: &str, arguments: &[&str]| oncue(&[&["config", "check", file], arguments].concat());
    let good = scratch.write("good.toml", "[handlers.charge]\ntimeout = \"5s\"\nretry = \"bank\"\n");
    let right = check(&good, &["--policy", "bank"]);
    assert_eq!((right.code, right.stderr.as_str()), (Some(0), ""), "{right:?}");
    assert_eq!(right.stdout, format!("{good}: nothing is wrong\n"));
    let unknown = check(&good, &[]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stdout.starts_with(&format!("{good}:3:9: handlers.charge.retry: ")), "{unknown:?}");
    unknown.says(&["has 1 problem"]);

    let bad = scratch.write("bad.toml", "[handlers.charge]\ntimeout = 5\nconcurency = 3\n[defaults]\nretry = 1\n");
    let wrong = check(&bad, &["--json"]);
    assert_eq!(wrong.code, Some(2));
    wrong.says(&["has 3 problems"]);
    let told: Value = serde_json::from_str(&wrong.stdout).unwrap();
    let places: Vec<_> = told["problems"].as_array().unwrap().iter().collect();
    let place = |index: usize| (places[index]["line"].as_u64(), places[index]["key"].as_str());
    assert_eq!(place(0), (Some(2), Some("handlers.charge.timeout")));
    assert_eq!(place(1), (Some(3), Some("handlers.charge.concurency")));
    assert_eq!(place(2), (Some(5), Some("defaults.retry")));
    assert_eq!(check(&bad, &[]).stdout.lines().count(), 3);

    let syntax = scratch.write("syntax.toml", "[handlers\n");
    assert!(check(&syntax, &[]).stdout.starts_with(&format!("{syntax}:1:")));
    check("/nowhere.toml", &[]).refused(&["/nowhere.toml", "cannot be read"]);
}

#[test]
fn what_is_known_of_a_subscription_is_explained_and_plotted() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let ran = oncue(&["demo", "orders", "--data", &data, "--gateway-failures", "0.2", "--seed", "7", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let explain = |arguments: &[&str]| oncue(&[&["policy", "explain", "charge", "--data", &data], arguments].concat());
    let known = explain(&["--json"]).report();
    assert!(known["counted"].as_u64().unwrap() > 100, "{known}");
    let transient = &known["classes"][0];
    assert_eq!(transient["class"], "transient");
    let plan = transient["plan"].as_array().unwrap();
    assert_eq!((plan.len(), plan[0]["attempt"].as_u64()), (10, Some(1)));
    // Four of five calls work: most who fail once are well at the first retry, and it is made soon.
    assert!(plan[0]["works"].as_f64().unwrap() > 0.6 && plan[0]["delay_s"].as_f64().unwrap() < 0.1, "{plan:?}");
    assert!(plan[0]["value"].as_f64() >= plan[0]["runner_up"][1].as_f64());
    assert_eq!(plan[9]["delay_s"], Value::Null, "ten attempts at most");
    assert_eq!(explain(&["--json"]).report(), known, "the log says the same each time");

    let svg = scratch.argument("charge.svg");
    let told = explain(&["--loss", "500", "--svg", &svg]);
    assert_eq!(told.code, Some(0), "{told:?}");
    for word in ["retries counted", "a dead letter 500;", "== transient ==", "RUNNER-UP", "EXPONENTIAL", "retry after"]
    {
        assert!(told.stdout.contains(word), "{word:?} is not in {}", told.stdout);
    }
    let plot = std::fs::read_to_string(&svg).unwrap();
    assert!(plot.starts_with("<svg ") && plot.matches("<rect ").count() > 500 && plot.contains("retry after"));

    explain(&["--loss", "0.01"]).refused(&["every failure would be a dead letter at once"]);
    oncue(&["policy", "explain", "nobody", "--data", &data]).refused(&["no subscription `nobody`", "`charge`"]);
    oncue(&["policy", "explain", "charge"]).refused(&["--kind"]);
    let huge = ["--success", "1e308", "--attempt", "1e308", "--delay-per-s", "1e308", "--loss", "1.7e308"];
    assert!(explain(&huge).stdout.contains("EXPONENTIAL DELAYS COUNT INSTEAD"));
}

#[test]
fn whether_learning_is_worth_it_is_told_or_that_it_is_not() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let ran = oncue(&["demo", "orders", "--data", &data, "--gateway-failures", "0.2", "--seed", "7", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report = |arguments: &[&str]| oncue(&[&["policy", "report", "charge", "--data", &data], arguments].concat());
    // Calls of the gateway fail by chance, and retries come through: nothing is to be learned.
    let told = report(&["--json"]).report();
    let replayed = &told["replayed"];
    assert!(replayed["events"].as_f64().unwrap() > 100.0, "{told}");
    assert_ne!(replayed["verdict"], "better", "{told}");
    assert_eq!((&told["live"], &told["label"]), (&Value::Null, &"dead".into()));
    assert_eq!(report(&["--json"]).report(), told, "the same each time");
    // What is paid is followed by a payment, which says so for nearly all.
    let told = report(&["--feedback", "order.paid", "--features", "total_cents", "--json"]).report();
    assert_eq!(told["replayed"]["events"], replayed["events"]);
    assert!(told["replayed"]["lost"].as_f64().unwrap() > 100.0, "{told}");
    let human = report(&["--feedback", "order.paid"]);
    for word in ["learned from what is recorded", "BASE RATE", "± 95 %"] {
        assert!(human.stdout.contains(word), "{word:?} is not in {}", human.stdout);
    }
    let told = report(&["--priorities", "--cost", "total_cents", "--places", "4", "--json"]).report();
    assert!(told["events"].as_f64().unwrap() > 100.0 && told["fifo"]["cost"].is_f64(), "{told}");
    assert_eq!((&told["live"], &told["said"]), (&Value::Null, &told["fifo"]), "no event says a priority");
    let human = report(&["--priorities"]);
    for word in ["first in first out", "priority that events say", "MEAN COST", "1 at a time"] {
        assert!(human.stdout.contains(word), "{word:?} is not in {}", human.stdout);
    }
    report(&["--priorities", "--feedback", "order.paid"]).refused(&["cannot be used with"]);
    report(&["--cost", "total_cents"]).refused(&["--priorities"]);
    oncue(&["policy", "report", "nobody", "--data", &data]).refused(&["no subscription `nobody`", "`charge`"]);
    oncue(&["policy", "report", "charge"]).refused(&["--data"]);
}
