//! `oncue policy simulate --from`: policies compared on what a log recorded.

use serde_json::{Value, json};

use crate::program::{Scratch, oncue};

fn of(policy: &Value, what: &str) -> f64 {
    policy[what]["mean"].as_f64().unwrap_or_else(|| panic!("no {what} in {policy}"))
}

#[test]
fn policies_are_compared_on_what_a_log_recorded() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let arguments = ["demo", "orders", "--data", &data, "--events", "1500", "--gateway-failures", "0.3", "--seed", "7"];
    let ran = oncue(&arguments);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let simulate = |more: &[&str]| {
        let arguments = ["policy", "simulate", "charge", "--from", &data, "--seeds", "2", "--search", "1"];
        oncue(&[&arguments[..], more].concat())
    };
    let told = simulate(&["--json"]).report();
    assert_eq!(simulate(&["--json"]).report(), told, "the same record says the same");

    let known = &told["scenarios"][0];
    assert_eq!((&known["subscription"], &known["seeds"]), (&json!("charge"), &json!(2)));
    let events = known["events"].as_f64().unwrap();
    assert!(events >= 100.0 && known["failed_attempts"].as_f64().unwrap() >= 0.2 * events, "{known}");
    let policies = known["policies"].as_array().unwrap();
    let names: Vec<_> = policies.iter().map(|policy| policy["name"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["optimal", "fixed 1 s", "exponential", "exponential, full jitter"]);
    assert!(names[4].starts_with("best exponential: "), "{names:?}");
    // Cards that were refused are refused whatever the policy; each is lost after one call, and costs what a loss costs.
    let letters = oncue(&["dlq", "list", "charge", "--data", &data, "--json"]).report();
    let letters = letters.as_array().unwrap();
    let refused = letters.iter().filter(|letter| letter["error"].as_str().unwrap().contains("refused")).count();
    let refused = f64::from(u32::try_from(refused).unwrap());
    assert!(refused > 0.0, "{letters:?}");
    for policy in policies {
        assert!(of(policy, "handled") <= 1.0 - refused / events + 1e-9, "{policy} of {events}, {refused} refused");
        assert!(of(policy, "calls_per_event") >= 1.0 && of(policy, "cost") >= 3600.0 * refused / events, "{policy}");
    }

    let human = simulate(&[]);
    for word in ["charge: per event, 2 lives each", "recorded events", "OPTIMAL COSTS MORE", "best exponential"] {
        assert!(human.stdout.contains(word), "{word:?} is not in {}", human.stdout);
    }
}

#[test]
fn what_there_is_to_do_is_said_where_a_log_tells_nothing() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let simulate = |arguments: &[&str]| oncue(&[&["policy", "simulate"], arguments].concat());
    simulate(&["charge", "--from", &data]).refused(&["there is no directory", "an app keeps its log in"]);
    let ran = oncue(&["demo", "orders", "--data", &data, "--events", "500", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    simulate(&["nobody", "--from", &data]).refused(&["no subscription `nobody`", "`charge`"]);
    // Nothing failed.
    simulate(&["charge", "--from", &data]).refused(&["of which 0 failed", "--scenario"]);
    simulate(&["--from", &data]).refused(&["SUBSCRIPTION"]);
    simulate(&["charge"]).refused(&["--from"]);
    simulate(&["charge", "--from", &data, "--scenario", "blips"]).refused(&["cannot be used with"]);
}
