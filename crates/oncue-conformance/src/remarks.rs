//! What a case says of itself for the report.

use parking_lot::Mutex;

use crate::{Failure, Verdict};

/// Remarks of a case.
#[derive(Default)]
pub(crate) struct Remarks {
    skipped: Mutex<Option<String>>,
    untested: Mutex<Vec<String>>,
    notes: Mutex<Vec<String>>,
}

impl Remarks {
    /// Nothing of it can be asked here.
    pub(crate) fn skip(&self, why: String) {
        *self.skipped.lock() = Some(why);
    }

    /// A part of it cannot be asked of anybody yet.
    pub(crate) fn untested(&self, what: String) {
        self.untested.lock().push(what);
    }

    pub(crate) fn note(&self, what: String) {
        self.notes.lock().push(what);
    }

    /// How a case ended in which nothing failed.
    pub(crate) fn verdict(&self) -> (Verdict, String) {
        if let Some(why) = self.skipped.lock().clone() {
            return (Verdict::Skipped, why);
        }
        let (untested, notes) = (self.untested.lock(), self.notes.lock());
        if untested.is_empty() {
            return (Verdict::Passed, notes.join("; "));
        }
        (Verdict::Skipped, format!("the rest holds, untested: {}", untested.join("; ")))
    }

    /// A failure's text, with what was noted before it.
    pub(crate) fn with_notes(&self, failure: &Failure) -> String {
        let notes = self.notes.lock();
        if notes.is_empty() { failure.to_string() } else { format!("{failure} ({})", notes.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_passes_only_if_all_of_it_was_asked() {
        let remarks = Remarks::default();
        remarks.note("one".into());
        remarks.note("two".into());
        assert_eq!(remarks.verdict(), (Verdict::Passed, "one; two".into()));
        assert_eq!(remarks.with_notes(&Failure::new("broken")), "broken (one; two)");
        remarks.untested("three".into());
        assert_eq!(remarks.verdict(), (Verdict::Skipped, "the rest holds, untested: three".into()));
        remarks.skip("no connection".into());
        assert_eq!(remarks.verdict(), (Verdict::Skipped, "no connection".into()));
    }
}
