//! What the graph refuses, and the laws of what it accepts.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::transport::{MAX_MEMBERS, Members};

/// Handlers of every type with these ids, and `after` edges (first, then).
fn graph(ids: &[&str], edges: &[(&str, &str)]) -> Result<Graph, GraphError> {
    Graph::new(
        ids.iter().map(|id| Vertex::new(id, &[], &[])),
        edges.iter().map(|(first, then)| After::new(then, first)),
    )
}

fn names(graph: &Graph, component: usize) -> Vec<&str> {
    graph.components()[component].members().iter().map(|member| graph.vertices()[member.vertex].id.as_str()).collect()
}

fn bits(numbers: &[usize]) -> Members {
    Members::from_bits(numbers.iter().fold(0, |bits, number| bits | 1 << number))
}

#[test]
fn a_diamond_is_one_component_whose_join_waits_for_both_sides() {
    let graph = graph(
        &["join", "left", "right", "root"],
        &[
            ("root", "left"),
            ("root", "right"),
            ("left", "join"),
            ("right", "join"),
            ("right", "join"), // said twice: one edge
        ],
    )
    .unwrap();
    assert_eq!(names(&graph, 0), ["root", "left", "right", "join"]);
    let component = &graph.components()[0];
    let join = component.members()[3];
    assert_eq!((join.vertex, join.predecessors, join.successors), (0, bits(&[1, 2]), Members::NONE));
    assert_eq!(component.members()[0].successors, bits(&[1, 2]));
    let all = bits(&[0, 1, 2, 3]);
    for (finished, ready) in [
        (bits(&[]), bits(&[0])),
        (bits(&[0]), bits(&[1, 2])),
        (bits(&[0, 1]), bits(&[2])),
        (bits(&[0, 1, 2]), bits(&[3])),
        (all, bits(&[])),
    ] {
        assert_eq!(component.ready(all, finished), ready);
    }
    assert_eq!(component.downstream(1), bits(&[3]));
    assert_eq!(component.downstream(0), bits(&[1, 2, 3]));
}

#[test]
fn one_that_is_not_interested_passes_its_turn_on() {
    let graph = graph(&["a", "b", "c"], &[("a", "b"), ("b", "c")]).unwrap();
    let component = &graph.components()[0];
    assert_eq!(component.ready(bits(&[0, 2]), bits(&[])), bits(&[0]), "c waits for a, through b");
    assert_eq!(component.ready(bits(&[0, 2]), bits(&[0])), bits(&[2]));
    assert_eq!(component.ready(bits(&[2]), bits(&[])), bits(&[2]));
}

#[test]
fn what_after_does_not_connect_stands_alone() {
    let graph = graph(&["a", "b", "c", "d"], &[("d", "b")]).unwrap();
    assert_eq!((graph.components().len(), names(&graph, 0), names(&graph, 1)), (3, vec!["a"], vec!["d", "b"]));
    assert_eq!(names(&graph, 2), ["c"]);
}

#[test]
fn a_slip_gets_an_error_that_names_it() {
    let message = |result: Result<Graph, GraphError>| result.map(|_| ()).unwrap_err().to_string();
    assert_eq!(message(graph(&["a"], &[("b", "a")])), "`a` runs after `b`, but no handler `b` is registered");
    assert!(message(graph(&["a"], &[("a", "b")])).contains("no handler `b`"));
    assert_eq!(message(graph(&["a"], &[("a", "a")])), "`a` cannot run after itself");
    assert!(message(graph(&["a", "b", "a"], &[])).contains("the id `a`"));
    assert_eq!(
        message(graph(&["x", "a", "b", "y"], &[("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")])),
        "these handlers wait for each other: a → b → a; remove one `after`"
    );
    assert!(message(graph(&["c", "b", "a"], &[("a", "b"), ("b", "c"), ("c", "a")])).contains(": c → a → b → c;"));
    let vertices = [Vertex::new("a", &["t"], &[]), Vertex::new("b", &["u"], &[])];
    assert!(message(Graph::new(vertices, [After::new("b", "a")])).contains("no event type in common"));
}

#[test]
fn as_many_members_as_bits_and_no_more() {
    let chain = |count: usize| {
        let ids: Vec<_> = (0..count).map(|index| format!("h{index}")).collect();
        let after: Vec<_> = ids.windows(2).map(|pair| After::new(&pair[1], &pair[0])).collect();
        Graph::new(ids.iter().map(|id| Vertex::new(id, &[], &[])), after)
    };
    let full = chain(MAX_MEMBERS).unwrap();
    assert_eq!(full.components()[0].members()[MAX_MEMBERS - 1].predecessors, bits(&[MAX_MEMBERS - 2]));
    assert_eq!(full.components()[0].downstream(0).iter().count(), MAX_MEMBERS - 1);
    assert_eq!(
        chain(MAX_MEMBERS + 1).map(|_| ()),
        Err(GraphError::TooManyMembers { handler: "h0".into(), members: MAX_MEMBERS + 1 })
    );
}

#[test]
fn loops_of_event_types_are_allowed_and_listed() {
    let graph = Graph::new(
        [
            Vertex::new("charge", &["order.created", "charge.failed"], &["order.paid", "charge.failed"]),
            Vertex::new("ship", &["order.paid"], &["order.shipped"]),
            Vertex::new("ping", &["pong"], &["ping"]),
            Vertex::new("pong", &["ping"], &["pong"]),
        ],
        [],
    )
    .unwrap();
    let found: Vec<_> = graph.loops().into_iter().map(|one| (one.handlers, one.types.join(" "))).collect();
    assert_eq!(found, [(vec![0], "charge.failed".to_owned()), (vec![2, 3], "ping pong".to_owned())]);
    let every_type = Graph::new([Vertex::new("audit", &[], &["audited"])], []).unwrap();
    assert_eq!(every_type.loops().len(), 1, "one that takes every type takes its own");
}

#[test]
fn it_can_be_drawn_and_read_by_programs() {
    let graph = Graph::new(
        [Vertex::new("a \"1\"", &["x"], &["y"]), Vertex::new("b", &["x"], &[]), Vertex::new("c", &["y"], &[])],
        [After::new("b", "a \"1\"")],
    )
    .unwrap();
    assert_eq!(
        graph.to_dot(),
        "digraph oncue {\n  rankdir=LR;\n  node [shape=box];\n  subgraph cluster_0 { \"a \\\"1\\\"\"; \"b\"; }\n  \"c\";\n  \
         \"a \\\"1\\\"\" -> \"b\" [label=\"after\", style=dashed];\n  \"a \\\"1\\\"\" -> \"c\" [label=\"y\"];\n}\n"
    );
    let json = graph.to_json();
    assert_eq!(json["edges"][0], json!({"from": "a \"1\"", "to": "b", "after": true}));
    assert_eq!(json["edges"][1], json!({"from": "a \"1\"", "to": "c", "event": "y"}));
    assert_eq!(json["components"], json!([["a \"1\"", "b"], ["c"]]));
}

/// A permutation of 0..count, and pairs of places in it: taken lower place first, they are edges without a cycle.
fn acyclic() -> impl Strategy<Value = (Vec<usize>, Vec<(usize, usize)>)> {
    (2_usize..40).prop_flat_map(|count| {
        let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
        let edges = proptest::collection::vec((0..count, 0..count), 0..80);
        (order, edges).prop_map(|(order, pairs)| {
            let edges = pairs.into_iter().filter(|(one, other)| one != other);
            let edges = edges.map(|(one, other)| (order[one.min(other)], order[one.max(other)])).collect();
            (order, edges)
        })
    })
}

fn of_numbers(count: usize, edges: &[(usize, usize)]) -> Result<Graph, GraphError> {
    let id = |number: usize| format!("h{number}");
    Graph::new(
        (0..count).map(|number| Vertex::new(&id(number), &[], &[])),
        edges.iter().map(|(first, then)| After::new(&id(*then), &id(*first))),
    )
}

proptest! {
    #[test]
    fn topological_order_holds_and_every_handler_is_in_one_component((order, edges) in acyclic()) {
        let graph = of_numbers(order.len(), &edges).unwrap();
        let mut place = vec![None; order.len()];
        for (index, component) in graph.components().iter().enumerate() {
            for (number, member) in component.members().iter().enumerate() {
                prop_assert!(place[member.vertex].replace((index, number)).is_none());
                prop_assert!(member.predecessors.iter().all(|before| before < number));
                prop_assert!(member.successors.iter().all(|after| after > number));
            }
        }
        for (first, then) in edges {
            let (first, then) = (place[first].unwrap(), place[then].unwrap());
            prop_assert!(first.0 == then.0 && first.1 < then.1);
            prop_assert!(graph.components()[then.0].members()[then.1].predecessors.contains(first.1));
        }
    }

    #[test]
    fn running_whoever_is_ready_finishes_everyone((order, edges) in acyclic(), interested in any::<u64>()) {
        let graph = of_numbers(order.len(), &edges).unwrap();
        for component in graph.components() {
            let interested = Members::from_bits(interested & Members::first(component.members().len()).bits());
            let mut finished = Members::NONE;
            while let Some(one) = component.ready(interested, finished).iter().next() {
                prop_assert!(!finished.contains(one));
                finished.insert(one);
            }
            prop_assert_eq!(finished, interested);
        }
    }

    #[test]
    fn a_cycle_is_refused_and_shown((order, mut edges) in acyclic(), length in 2_usize..6) {
        let length = length.min(order.len());
        edges.extend((0..length).map(|at| (order[at], order[(at + 1) % length])));
        let Err(GraphError::Cycle { cycle }) = of_numbers(order.len(), &edges) else {
            return Err(TestCaseError::fail("not refused"));
        };
        prop_assert!(cycle.len() > 2 && cycle.first() == cycle.last());
        for pair in cycle.windows(2) {
            let number = |id: &str| id[1..].parse::<usize>().unwrap();
            prop_assert!(edges.contains(&(number(&pair[0]), number(&pair[1]))), "{:?} is no edge", pair);
        }
    }

    #[test]
    fn loops_are_the_handlers_that_reach_themselves(
        emits in proptest::collection::vec(proptest::collection::vec(0_usize..8, 0..3), 1..8),
        consumes in proptest::collection::vec(proptest::collection::vec(0_usize..8, 1..3), 8),
    ) {
        let types = |numbers: &[usize]| numbers.iter().map(|number| format!("t{number}")).collect();
        let vertices = emits.iter().zip(&consumes).enumerate().map(|(index, (emits, consumes))| Vertex {
            id: index.to_string(), consumes: types(consumes), emits: types(emits),
        });
        let graph = Graph::new(vertices, []).unwrap();
        let count = emits.len();
        let mut reaches = vec![vec![false; count]; count];
        for edge in graph.edges() { reaches[edge.from][edge.to] = true; }
        for via in 0..count { for from in 0..count { for to in 0..count {
            reaches[from][to] |= reaches[from][via] && reaches[via][to];
        } } }
        let mut expected: Vec<_> = (0..count).filter(|vertex| reaches[*vertex][*vertex]).collect();
        let mut found: Vec<_> = graph.loops().into_iter().flat_map(|one| one.handlers).collect();
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
