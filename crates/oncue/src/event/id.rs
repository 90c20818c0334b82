//! Ids of events: time-ordered for new ones, derived for emitted ones.

use uuid::Uuid;

/// Namespace of derived ids (a random UUID, fixed for ever: changing it would break deduplication of emitted events).
const EMITTED: Uuid = Uuid::from_u128(0x6f9b_7c1e_3a54_4d0f_9e21_5b8a_c0de_4e55);

/// A new id: UUID version 7, so ids sort by the time of generation.
#[must_use]
pub(crate) fn fresh() -> String {
    Uuid::now_v7().to_string()
}

/// The id of the `index`-th event that `subscription` emits while it handles the event (`source`, `id`): UUID version 5
/// of these four. Handling the event again gives the same id, so a repeat can be recognised anywhere.
#[must_use]
pub fn derived(source: &str, id: &str, subscription: &str, index: usize) -> String {
    // Length prefixes: ("ab", "c") must not meet ("a", "bc").
    let name = format!("{}:{source}{}:{id}{}:{subscription}{index}", source.len(), id.len(), subscription.len());
    Uuid::new_v5(&EMITTED, name.as_bytes()).to_string()
}

/// Namespace of the ids of what sources generate (random and fixed for ever, as the one above).
const GENERATED: Uuid = Uuid::from_u128(0x1d0f_52c3_7b86_4e1a_8f5d_93ae_2c47_60b1);

/// The id of the event that a source generates at `place`: UUID version 5 of these two. Generating it again, after a crash
/// or in another instance, gives the same id.
#[must_use]
pub(crate) fn generated(source: &str, place: &str) -> String {
    Uuid::new_v5(&GENERATED, format!("{}:{source}{place}", source.len()).as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_id_depends_on_each_part_and_on_nothing_else() {
        let id = derived("/shop", "1", "charge", 0);
        assert_eq!(id, derived("/shop", "1", "charge", 0));
        for other in
            [derived("/shop1", "", "charge", 0), derived("/shop", "2", "charge", 0), derived("/shop", "1", "c", 0)]
        {
            assert_ne!(id, other);
        }
        assert_ne!(id, derived("/shop", "1", "charge", 1));
    }

    #[test]
    fn a_generated_id_depends_on_the_source_and_the_place() {
        assert_eq!(generated("lines", "12"), generated("lines", "12"));
        assert_ne!(generated("lines", "12"), generated("lines", "13"));
        assert_ne!(generated("lines1", "2"), generated("lines", "12"));
    }
}
