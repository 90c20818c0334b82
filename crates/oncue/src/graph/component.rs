//! Handlers that `after` edges connect, in an order that respects the edges.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{GraphError, Vertex};
use crate::transport::{MAX_MEMBERS, Members};

/// Handlers that `after` edges connect: one subscription, with one bit a member for its progress on an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    members: Vec<Member>,
}

/// A handler in a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its index among [`Graph::vertices`](super::Graph::vertices).
    pub vertex: usize,
    /// Members that it runs after; their numbers are all smaller than its own.
    pub predecessors: Members,
    /// Members that run after it.
    pub successors: Members,
}

impl Component {
    /// The handlers in topological order, those that are independent in the order they were given. A member's place
    /// here is its number in every set of [`Members`].
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Members that may start on an event now.
    ///
    /// `interested` are those that handle this event at all, `finished` those that are through with it. One that is
    /// not interested passes its turn on: whoever runs after it waits for whoever it runs after.
    #[must_use]
    pub fn ready(&self, interested: Members, finished: Members) -> Members {
        let mut through = finished;
        let mut ready = Members::NONE;
        for (number, member) in self.members.iter().enumerate() {
            if through.contains(number) || !through.contains_all(member.predecessors) {
                continue;
            }
            if interested.contains(number) {
                ready.insert(number);
            } else {
                through.insert(number);
            }
        }
        ready
    }

    /// All members that run after `number`, directly or not: what a dead letter of it may hold or skip.
    #[must_use]
    pub fn downstream(&self, number: usize) -> Members {
        let mut behind = Members::NONE;
        for (later, member) in self.members.iter().enumerate().skip(number + 1) {
            if member.predecessors.contains(number) || member.predecessors.intersects(behind) {
                behind.insert(later);
            }
        }
        behind
    }
}

/// The components of a graph with these `after` edges (first, then), each edge once.
pub(super) fn components(vertices: &[Vertex], edges: &[(usize, usize)]) -> Result<Vec<Component>, GraphError> {
    let order = topological(vertices, edges)?;
    let component_of = connected(vertices.len(), edges);
    // Components are numbered by their first vertex, members by their place in the order.
    let mut components: Vec<Component> = Vec::new();
    let mut index_of = vec![usize::MAX; vertices.len()];
    for vertex in 0..vertices.len() {
        if component_of[vertex] == vertex {
            index_of[vertex] = components.len();
            components.push(Component { members: Vec::new() });
        }
    }
    let mut place = vec![(0, 0); vertices.len()];
    for vertex in order {
        let component = index_of[component_of[vertex]];
        let members = &mut components[component].members;
        place[vertex] = (component, members.len());
        members.push(Member { vertex, predecessors: Members::NONE, successors: Members::NONE });
    }
    if let Some(large) = components.iter().find(|component| component.members.len() > MAX_MEMBERS) {
        let handler = vertices[large.members[0].vertex].id.clone();
        return Err(GraphError::TooManyMembers { handler, members: large.members.len() });
    }
    for &(first, then) in edges {
        let ((component, first), (_, then)) = (place[first], place[then]);
        let members = &mut components[component].members;
        members[first].successors.insert(then);
        members[then].predecessors.insert(first);
    }
    Ok(components)
}

/// Kahn's algorithm; among those that are free, the one given first goes first.
fn topological(vertices: &[Vertex], edges: &[(usize, usize)]) -> Result<Vec<usize>, GraphError> {
    let count = vertices.len();
    let (mut waits_for, mut followers) = (vec![0_usize; count], vec![Vec::new(); count]);
    for &(first, then) in edges {
        waits_for[then] += 1;
        followers[first].push(then);
    }
    let mut free: BinaryHeap<_> = (0..count).filter(|vertex| waits_for[*vertex] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(Reverse(vertex)) = free.pop() {
        order.push(vertex);
        for &then in &followers[vertex] {
            waits_for[then] -= 1;
            if waits_for[then] == 0 {
                free.push(Reverse(then));
            }
        }
    }
    if order.len() < count {
        return Err(GraphError::Cycle { cycle: cycle(vertices, edges, &waits_for) });
    }
    Ok(order)
}

/// A cycle among the vertices that still wait: each of them waits for another one, so walking from one to what it waits
/// for comes round.
fn cycle(vertices: &[Vertex], edges: &[(usize, usize)], waits_for: &[usize]) -> Vec<String> {
    let mut blocker = vec![None; vertices.len()];
    for &(first, then) in edges {
        if waits_for[first] > 0 {
            blocker[then] = Some(first);
        }
    }
    let mut walk: Vec<usize> = Vec::new();
    let mut seen_at: Vec<Option<usize>> = vec![None; vertices.len()];
    let mut here = waits_for.iter().position(|count| *count > 0);
    while let Some(vertex) = here {
        if let Some(start) = seen_at[vertex] {
            // The walk went against the edges: turn it round, and close it.
            let mut cycle: Vec<_> = walk.split_off(start);
            cycle.reverse();
            // Begin with the one given first, so that the message does not depend on where the walk began.
            let smallest = cycle.iter().enumerate().min_by_key(|(_, vertex)| **vertex).map_or(0, |(at, _)| at);
            cycle.rotate_left(smallest);
            cycle.extend(cycle.first().copied());
            return cycle.into_iter().map(|vertex| vertices[vertex].id.clone()).collect();
        }
        seen_at[vertex] = Some(walk.len());
        walk.push(vertex);
        here = blocker[vertex];
    }
    Vec::new()
}

/// For each vertex the smallest vertex that it is connected with (union-find with path halving).
fn connected(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    fn root(parent: &mut [usize], mut vertex: usize) -> usize {
        while parent[vertex] != vertex {
            parent[vertex] = parent[parent[vertex]];
            vertex = parent[vertex];
        }
        vertex
    }
    let mut parent: Vec<usize> = (0..count).collect();
    for &(one, other) in edges {
        let (one, other) = (root(&mut parent, one), root(&mut parent, other));
        parent[one.max(other)] = one.min(other);
    }
    (0..count).map(|vertex| root(&mut parent, vertex)).collect()
}
