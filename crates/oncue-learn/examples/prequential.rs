//! Estimates each line of standard input before learning from it, and says how it went. A line is a label (`0` or `1`) and
//! features, parted by tabs: `name=3.5` is a number, `name:value` a category. `seconds` are of learning alone.
//!
//! `cargo run --release -p oncue-learn --example prequential -- [ALPHA BETA L1 L2] < stream.tsv`

use std::{
    error::Error,
    io::{self, BufRead as _},
};

use oncue_learn::{Features, FtrlSettings, Learner, Loss};

fn features<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Features, Box<dyn Error>> {
    let mut features = Features::default();
    for part in parts {
        match (part.split_once('='), part.split_once(':')) {
            (Some((name, number)), _) => features.number(name, number.parse()?),
            (None, Some((name, value))) => features.category(name, value),
            (None, None) => return Err(format!("`{part}` is no feature: name=number or name:category").into()),
        }
    }
    Ok(features)
}

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<f64> = std::env::args().skip(1).map(|argument| argument.parse()).collect::<Result<_, _>>()?;
    let settings = match given.as_slice() {
        [] => FtrlSettings::default(),
        &[alpha, beta, l1, l2] => FtrlSettings { alpha, beta, l1, l2 },
        _ => return Err("four numbers, or none: ALPHA BETA L1 L2".into()),
    };
    let mut learner = Learner::with(Loss::Logistic, settings);
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let line = line?;
        let mut parts = line.split('\t');
        let label: f64 = parts.next().unwrap_or_default().parse()?;
        learner.learn(&features(parts)?, label).map_err(|error| format!("line {}: {error}", number + 1))?;
    }
    let progress = learner.progress();
    let (gain, width) = progress.gain();
    println!(
        "{{\"examples\": {}, \"positives\": {}, \"log_loss\": {}, \"base_log_loss\": {}, \"gain\": {gain}, \
         \"gain_width\": {}, \"calibration_error\": {}, \"drifts\": {}, \"state_bytes\": {}, \"verdict\": \"{:?}\"}}",
        progress.examples,
        progress.positives,
        progress.learned / progress.examples.max(1.0),
        progress.simple / progress.examples.max(1.0),
        if width.is_finite() { width } else { 0.0 },
        progress.reliability.error(),
        progress.drifts,
        learner.encode().len(),
        progress.verdict(),
    );
    Ok(())
}
