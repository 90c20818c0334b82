//! `oncue policy solve`.

use serde_json::json;

use crate::program::{Scratch, oncue};

const MACHINE: &str = r#"{"discount": 0.9, "start": "new", "states": ["new", "worn", "lost"], "actions": ["run", "replace"],
    "transitions": [["new", "run", "new", 0.7, 5], ["new", "run", "worn", 0.3, 5], ["worn", "run", "worn", 1, 1],
        ["worn", "replace", "new", 1, -1], ["lost", "run", "lost", 1, 0]]}"#;

#[test]
fn a_model_is_solved_in_four_steps_by_each_method() {
    let scratch = Scratch::new();
    let file = scratch.write("machine.json", MACHINE);
    // V(new) = 5 + 0.9 (0.7 V(new) + 0.3 V(worn)), V(worn) = −1 + 0.9 V(new).
    let new = (5.0 - 0.27) / (1.0 - 0.63 - 0.243);
    for method in ["value-iteration", "modified-policy-iteration", "policy-iteration"] {
        let told = oncue(&["policy", "solve", &file, "--json", "--method", method]).report();
        for (state, expected) in [new, 0.9 * new - 1.0, 0.0].into_iter().enumerate() {
            let value = told["values"][state].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-9, "{method}: {value} is not {expected}");
        }
        assert_eq!(told["policy"], json!(["run", "replace", "run"]));
        assert_eq!((&told["unreachable"], &told["execution"]["agrees"]), (&json!(["lost"]), &json!(true)));
        assert!(told["bound"].as_f64().unwrap() <= 1e-9 && told["seconds"].as_f64().is_some(), "{told}");
        assert!(told["iterations"].as_u64().unwrap() > 0, "{told}");
    }
    let human = oncue(&["policy", "solve", &file]);
    assert_eq!(human.code, Some(0), "{human:?}");
    for step in [
        "1. model: |S| = 3, 4 choices, 5 transitions, γ = 0.9\n",
        "2. values: ",
        "3. policy:\n",
        "4. execution: new (run) → ",
    ] {
        assert!(human.stdout.contains(step), "{step:?} is not in {human:?}");
    }
    assert!(
        human.stdout.contains("1 states cannot be reached") && human.stdout.contains(", as the value says"),
        "{human:?}"
    );
}

/// For a few steps a worn machine is run on; in the long run it is replaced.
#[test]
fn a_number_of_steps_and_the_average_are_asked_for_without_a_discount() {
    let scratch = Scratch::new();
    let undiscounted = MACHINE.replace("\"discount\": 0.9, ", "").replace(", \"lost\"]", "]");
    let undiscounted = undiscounted.replace(", [\"lost\", \"run\", \"lost\", 1, 0]", "");
    let file = scratch.write("machine.json", &undiscounted);
    let told = oncue(&["policy", "solve", &file, "--json", "--steps", "3"]).report();
    // V₁ = (5, 1), V₂(new) = 5 + 0.7·5 + 0.3·1 = 8.8, V₂(worn) = max(1 + 1, −1 + 5) = 4, and so on.
    for (state, expected) in [5.0 + 0.7 * 8.8 + 0.3 * 4.0, -1.0 + 8.8].into_iter().enumerate() {
        let value = told["values"][state].as_f64().unwrap();
        assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    }
    assert_eq!(told["plan"], json!([["run", "replace"], ["run", "replace"], ["run", "run"]]));
    assert_eq!(told["execution"]["agrees"], json!(true), "{told}");
    let human = oncue(&["policy", "solve", &file, "--steps", "3"]);
    assert!(human.stdout.contains("replace 3–2, run 1"), "{human:?}");

    let told = oncue(&["policy", "solve", &file, "--json", "--average"]).report();
    // A cycle: 1/0.3 steps that bring 5 each, and one that costs 1.
    let gain = (5.0 / 0.3 - 1.0) / (1.0 / 0.3 + 1.0);
    assert!((told["gain"].as_f64().unwrap() - gain).abs() < 1e-8, "{told}");
    assert_eq!((&told["policy"], &told["execution"]["agrees"]), (&json!(["run", "replace"]), &json!(true)));
    let human = oncue(&["policy", "solve", &file, "--average"]);
    assert!(human.stdout.contains(", as the gain says"), "{human:?}");

    oncue(&["policy", "solve", &file, "--average", "--steps", "3"]).refused(&["--average", "cannot be used with"]);
    oncue(&["policy", "solve", &file, "--steps", "4000000000"]).refused(&["2 states", "fewer steps"]);
}

#[test]
fn what_is_no_model_is_refused_with_state_and_action() {
    let scratch = Scratch::new();
    let solve = |text: &str, more: &[&str]| {
        let file = scratch.write("model.json", text);
        oncue(&[&["policy", "solve", file.as_str()], more].concat())
    };
    solve(&MACHINE.replace("0.7", "0.6"), &[]).refused(&["model.json", "`run` of state `new`", "0.8999"]);
    solve(&MACHINE.replace("0.7, 5", "0.7"), &[]).refused(&["model.json", "line 2"]);
    solve(&MACHINE.replace("0.9, ", "1, "), &[]).refused(&["nothing is discounted"]);
    solve("{", &[]).refused(&["model.json", "line 1"]);
    solve(MACHINE, &["--epsilon", "0"]).refused(&["epsilon of 0"]);
    oncue(&["policy", "solve", "/nowhere.json"]).refused(&["/nowhere.json", "cannot be read"]);
}
