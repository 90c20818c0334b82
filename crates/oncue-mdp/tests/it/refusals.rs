//! What is no model, and what cannot be solved: each says which state and action is wrong.

use oncue_mdp::{Discount, Model, ModelBuilder, ModelError, Options, Sojourn, SolveError, evaluate, solve};

fn builder() -> ModelBuilder {
    ModelBuilder::new(2, Discount::PerStep(0.9))
        .state_names(vec!["up".to_owned(), "down".to_owned()])
        .action_names(vec!["go".to_owned(), "stay".to_owned()])
}

fn refused(state: usize, action: usize, reward: f64, next: &[(usize, f64)]) -> String {
    builder().choice(state, action, reward, next).unwrap_err().to_string()
}

#[test]
fn every_mistake_in_a_row_names_its_state_and_action() {
    let sum = refused(1, 0, 0.0, &[(0, 0.5), (1, 0.4)]);
    assert_eq!(sum, "the probabilities of action `go` of state `down` are 0.9 in sum: they must be 1");
    let negative = refused(0, 1, 0.0, &[(0, 1.5), (1, -0.5)]);
    assert_eq!(negative, "action `stay` of state `up` leads to `up` with probability 1.5: it must lie from 0 to 1");
    for wrong in [-0.5, f64::NAN, f64::INFINITY] {
        let text = refused(0, 1, 0.0, &[(1, wrong), (0, 0.5)]);
        assert!(text.starts_with("action `stay` of state `up` leads to `down` with probability "), "{text}");
    }
    for wrong in [f64::NAN, f64::NEG_INFINITY] {
        let text = refused(0, 0, wrong, &[(0, 1.0)]);
        assert_eq!(text, format!("action `go` of state `up` has the reward {wrong}: it must be finite"));
    }
    let far = refused(0, 0, 0.0, &[(2, 1.0)]);
    assert_eq!(far, "there is no state 2, as next of action `go` of state `up`: the model has 2, from 0 on");
    assert_eq!(refused(0, 0, 0.0, &[]), "the probabilities of action `go` of state `up` are 0 in sum: they must be 1");
    let other = refused(7, 0, 0.0, &[(0, 1.0)]);
    assert_eq!(other, "there is no state 7, as one that has an action: the model has 2, from 0 on");
    let timed = |time: f64| builder().timed_choice(0, 0, 0.0, &[(0, 1.0, Sojourn::Fixed(time))]).unwrap_err();
    assert_eq!(timed(-1.0).to_string(), "action `go` of state `up` takes -1: a time is finite and not below 0");
    assert!(timed(0.0).to_string().starts_with("action `go` of state `up` takes no time"));
}

#[test]
fn every_mistake_of_the_whole_is_told() {
    let mut one = builder();
    one.choice(0, 0, 0.0, &[(1, 1.0)]).unwrap();
    let twice = one.choice(0, 0, 1.0, &[(0, 1.0)]).unwrap_err();
    assert_eq!(twice, ModelError::Twice { state: "`up`".to_owned(), action: "`go`".to_owned() });
    let error = one.build().unwrap_err().to_string();
    assert!(error.starts_with("state `down` has no action: "), "{error}");
    let mut late = builder();
    late.choice(1, 0, 0.0, &[(1, 1.0)]).unwrap_err();
    let mut late = ModelBuilder::new(3, Discount::PerStep(0.5));
    late.choice(0, 0, 0.0, &[(1, 1.0)]).unwrap().choice(1, 0, 0.0, &[(1, 1.0)]).unwrap();
    let order = late.choice(0, 1, 0.0, &[(1, 1.0)]).unwrap_err();
    assert_eq!(order, ModelError::Order { state: "0".to_owned(), after: "1".to_owned() });
    assert_eq!(ModelBuilder::new(0, Discount::PerStep(0.5)).build().unwrap_err(), ModelError::NoStates);
    for wrong in [Discount::PerStep(1.1), Discount::PerStep(f64::NAN), Discount::PerTime(0.0), Discount::PerTime(-1.0)]
    {
        let mut builder = ModelBuilder::new(1, wrong);
        builder.choice(0, 0, 0.0, &[(0, 1.0)]).unwrap();
        assert!(matches!(builder.build(), Err(ModelError::Discount(_))), "{wrong:?}");
    }
    let mut names = ModelBuilder::new(1, Discount::PerStep(0.5)).action_names(vec!["only".to_owned()]);
    names.choice(0, 1, 0.0, &[(0, 1.0)]).unwrap();
    let error = names.build().unwrap_err().to_string();
    assert_eq!(error, "there are 1 names for 2 actions: give one each");
}

#[test]
fn what_cannot_be_solved_says_what_to_do() {
    let model = |discount| {
        let mut builder = ModelBuilder::new(2, discount);
        builder.choice(0, 0, 1.0, &[(0, 0.5), (1, 0.5)]).unwrap().choice(1, 0, 2.0, &[(0, 1.0)]).unwrap();
        builder.build().unwrap()
    };
    let options = Options::default();
    assert_eq!(solve(&model(Discount::PerStep(1.0)), &options), Err(SolveError::Undiscounted));
    let model = model(Discount::PerStep(0.9));
    for epsilon in [0.0, -1.0, f64::NAN] {
        assert!(matches!(solve(&model, &Options { epsilon, ..options.clone() }), Err(SolveError::Epsilon(_))));
    }
    for guess in [vec![1.0], vec![1.0, f64::NAN], vec![1.0; 3]] {
        let error = solve(&model, &Options { guess: Some(guess), ..options.clone() }).unwrap_err();
        assert!(matches!(error, SolveError::Guess { states: 2, .. }), "{error}");
    }
    for policy in [&[0_usize, 0][..], &[0], &[0, 1, 1]] {
        assert!(matches!(evaluate(&model, policy, &options), Err(SolveError::Policy { .. })), "{policy:?}");
    }
    let few = solve(&model, &Options { iterations: 1, epsilon: 1e-12, ..options }).unwrap_err();
    assert!(matches!(few, SolveError::NotReached { iterations: 1, bound } if bound > 1e-12), "{few}");
}

#[test]
fn json_is_refused_with_its_place() {
    let with = |what: &str, transitions: &str| {
        let text = format!(r#"{{{what}"states": ["up", "down"], "actions": 2, "transitions": [{transitions}]}}"#);
        Model::from_json(text.as_bytes()).unwrap_err().to_string()
    };
    let whole = r#"["up", 0, "down", 1, 0], ["down", 1, 0, 1, 0]"#;
    let unknown = with("", r#"["up", 0, "down", 1, 0], ["down", 0, "left", 1, 0]"#);
    assert_eq!(unknown, "transitions[1]: there is no state `left`: there are `up`, `down`");
    assert_eq!(
        with("", r#"["up", 2, 0, 1, 0]"#),
        "transitions[0]: there is no action 2: there are 2 of them, without names"
    );
    assert!(with("", r#"["up", 0, 1, 1]"#).contains("at line 1"), "too short");
    assert!(with("", r#"["up", 0, 1, 1, 0, 1, 1]"#).contains("with a time where it takes some"), "too long");
    assert!(with("", r#"["up", -1, 1, 1, 0]"#).contains("a name, or a number from 0 on"));
    assert!(with(r#""discount": 0.5, "rate": 1, "#, whole).contains("give one of them"));
    assert!(with(r#""start": "left", "#, whole).starts_with("start: there is no state `left`"));
    assert!(with(r#""discont": 0.5, "#, whole).contains("unknown field `discont`"));
    let sum = with("", r#"["up", 0, "down", 0.5, 0]"#);
    assert_eq!(sum, "the probabilities of action 0 of state `up` are 0.5 in sum: they must be 1");
    let two = Model::from_json(br#"{"states": ["a", "a"], "actions": 1, "transitions": []}"#).unwrap_err();
    assert_eq!(two.to_string(), "two states have the name `a`: give each its own");
    assert!(Model::from_json(b"[]").unwrap_err().to_string().contains("a model: an object with `states`"));
}

#[test]
fn states_that_nobody_reaches_are_listed() {
    let text = br#"{"discount": 0.5, "start": "a", "states": ["a", "b", "c"], "actions": 1,
        "transitions": [["a", 0, "b", 1, 0], ["a", 0, "c", 0, 0], ["b", 0, "a", 1, 0], ["c", 0, "a", 1, 0]]}"#;
    let model = Model::from_json(text).unwrap();
    assert_eq!((model.unreachable(), model.state_name(2)), (vec![2], "c".to_owned()));
}

#[test]
fn json_has_times() {
    let text = br#"{"rate": 0.1, "states": 2, "actions": 1,
        "transitions": [[0, 0, 1, 1, 1, 2.5], [1, 0, 0, 1, 0, {"exponential": 4}]]}"#;
    let model = Model::from_json(text).unwrap();
    let values = solve(&model, &Options::default()).unwrap().values;
    // V(0) = 1 + e^(−0.25) V(1), V(1) = V(0) / 1.4.
    let first = 1.0 / (1.0 - (-0.25_f64).exp() / 1.4);
    crate::close(&values, &[first, first / 1.4], 1e-9);
}
