//! Loops of event types: strongly connected components of the graph whose nodes are handlers and event types.

use std::collections::HashMap;

use super::Vertex;

/// Handlers whose events come back to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// The handlers, by index, lowest first.
    pub handlers: Vec<usize>,
    /// The event types that go round, sorted.
    pub types: Vec<String>,
}

/// All loops, in the order of their first handlers. A handler and the types it emits and consumes are nodes alike, so
/// the work is linear in what was declared, and a handler that feeds itself needs no case of its own.
pub(super) fn find(vertices: &[Vertex]) -> Vec<Loop> {
    let mut type_of: HashMap<&str, usize> = HashMap::new();
    let mut types: Vec<&str> = Vec::new();
    for event_type in vertices.iter().flat_map(|vertex| &vertex.emits) {
        type_of.entry(event_type).or_insert_with(|| {
            types.push(event_type);
            vertices.len() + types.len() - 1
        });
    }
    let mut next = vec![Vec::new(); vertices.len() + types.len()];
    for (index, vertex) in vertices.iter().enumerate() {
        next[index].extend(vertex.emits.iter().filter_map(|event_type| type_of.get(event_type.as_str())).copied());
        // A type that nobody emits cannot come round.
        if vertex.consumes.is_empty() {
            next[vertices.len()..].iter_mut().for_each(|consumers| consumers.push(index));
        }
        for node in vertex.consumes.iter().filter_map(|event_type| type_of.get(event_type.as_str())) {
            next[*node].push(index);
        }
    }
    let mut loops: Vec<Loop> = strongly_connected(&next)
        .into_iter()
        .filter(|nodes| nodes.len() > 1)
        .map(|mut nodes| {
            nodes.sort_unstable();
            let types_at = nodes.partition_point(|node| *node < vertices.len());
            let mut types: Vec<_> =
                nodes[types_at..].iter().map(|node| types[node - vertices.len()].to_owned()).collect();
            types.sort_unstable();
            nodes.truncate(types_at);
            Loop { handlers: nodes, types }
        })
        .collect();
    loops.sort_unstable_by_key(|one| one.handlers.first().copied());
    loops
}

/// Tarjan's algorithm, without recursion: a long chain of handlers must not end the stack.
fn strongly_connected(next: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut found = Vec::new();
    let (mut number, mut lowest) = (vec![UNSEEN; next.len()], vec![0; next.len()]);
    let (mut open, mut is_open) = (Vec::new(), vec![false; next.len()]);
    let mut seen = 0;
    for root in 0..next.len() {
        // (node, how many of its edges have been followed)
        let mut path = if number[root] == UNSEEN { vec![(root, 0)] } else { Vec::new() };
        while let Some((node, followed)) = path.pop() {
            if followed == 0 {
                (number[node], lowest[node]) = (seen, seen);
                seen += 1;
                open.push(node);
                is_open[node] = true;
            }
            if let Some(&to) = next[node].get(followed) {
                path.push((node, followed + 1));
                if number[to] == UNSEEN {
                    path.push((to, 0));
                } else if is_open[to] {
                    lowest[node] = lowest[node].min(number[to]);
                }
                continue;
            }
            if let Some(&(parent, _)) = path.last() {
                lowest[parent] = lowest[parent].min(lowest[node]);
            }
            if lowest[node] == number[node] {
                let start = open.iter().rposition(|known| *known == node).unwrap_or(0);
                let component = open.split_off(start);
                component.iter().for_each(|node| is_open[*node] = false);
                found.push(component);
            }
        }
    }
    found
}
