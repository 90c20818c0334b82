//! Value and action by attempt and age, as SVG.

use std::fmt::Write as _;

use oncue::policy::{ClassExplained, Explanation, StateValue};

use super::learned::seconds;

const CELL: usize = 18;
const LEFT: usize = 60;
const TOP: usize = 48;
const GAP: usize = 64;
/// Every so many ages one has its number written below.
const LABELS: usize = 6;
/// The delays that have the palest and the strongest colour, in seconds.
const DELAYS: (f64, f64) = (0.01, 300.0);

/// The class that was seen first: above, what each state is worth; below, what is done in it.
pub(super) fn svg(subscription: &str, known: &Explanation) -> String {
    let states = known.classes.first().map_or(&[][..], |class| &class.states[..]);
    let (rows, ages) = (states.len(), states.first().map_or(0, Vec::len));
    let (width, height) = (LEFT + ages * CELL + 24, TOP + 2 * (rows * CELL + GAP) + 24);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let name = subscription.replace('&', "&amp;").replace('<', "&lt;");
    let class = known.classes.first().map_or_else(String::new, |class: &ClassExplained| class.class.to_string());
    let title = match &known.fallback {
        None => format!("{name}: optimal retries of {class} failures"),
        Some(_) => format!("{name}: nothing could be computed, exponential delays count"),
    };
    text(&mut out, (LEFT, 18), &title);
    let least = states.iter().flatten().map(|state| state.value).fold(0.0, f64::min);
    let lower = TOP + rows * CELL + GAP;
    let worth = |state: &StateValue| {
        // From a tenth of a second to an hour of delay: only their orders of magnitude can be seen together.
        let share = if least < 0.0 { state.value.min(0.0).abs().ln_1p() / least.abs().ln_1p() } else { 0.0 };
        (scale(share, [255, 255, 229], [140, 45, 4]), format!("{:.3}", state.value))
    };
    panel(&mut out, TOP, &format!("value: 0 (pale) to {least:.1}, logarithmic"), states, worth);
    let done = |state: &StateValue| match state.delay_s {
        None => ("#222222".to_owned(), "dead letter".to_owned()),
        Some(delay) => {
            let share = (delay / DELAYS.0).ln() / (DELAYS.1 / DELAYS.0).ln();
            (scale(share, [222, 235, 247], [8, 48, 107]), format!("retry after {}", seconds(delay)))
        }
    };
    panel(&mut out, lower, "action: retry after 10 ms (pale) to 5 min (dark); black: dead letter", states, done);
    out + "</svg>\n"
}

fn panel(
    out: &mut String,
    top: usize,
    title: &str,
    states: &[Vec<StateValue>],
    of: impl Fn(&StateValue) -> (String, String),
) {
    text(out, (LEFT, top - 8), title);
    for (row, ages) in states.iter().enumerate() {
        text(out, (8, top + row * CELL + 13), &format!("failed {}", row + 1));
        for (column, state) in ages.iter().enumerate() {
            let (colour, what) = of(state);
            // Writing into a text cannot fail.
            let _written = writeln!(
                out,
                "<rect x=\"{}\" y=\"{}\" width=\"{CELL}\" height=\"{CELL}\" fill=\"{colour}\" stroke=\"white\">\
                 <title>attempt {} failed, trouble {} old: {what}</title></rect>",
                LEFT + column * CELL,
                top + row * CELL,
                row + 1,
                seconds(state.age_s),
            );
        }
    }
    for (column, state) in states.first().into_iter().flatten().enumerate().step_by(LABELS) {
        text(out, (LEFT + column * CELL, top + states.len() * CELL + 14), &seconds(state.age_s));
    }
    text(out, (LEFT, top + states.len() * CELL + 30), "age of the trouble");
}

fn text(out: &mut String, (x, y): (usize, usize), text: &str) {
    let _written = writeln!(out, "<text x=\"{x}\" y=\"{y}\">{text}</text>");
}

/// The colour between two, `share` of the way.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two bytes")]
fn scale(share: f64, from: [u8; 3], to: [u8; 3]) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let part = |index: usize| (f64::from(from[index]) * (1.0 - share) + f64::from(to[index]) * share).round() as u8;
    format!("#{:02x}{:02x}{:02x}", part(0), part(1), part(2))
}
