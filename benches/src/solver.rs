//! Row 9: decision processes solved, against libraries of Python that run beside it (`benches/mdp/rivals.py`).

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use oncue_mdp::{Discount, Model, ModelBuilder, Options, Solution, solve};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    measure::{Plan, Result, Rounds, Sample, Stopwatch, median},
    report::{Row, Target},
};

const ACTIONS: usize = 4;
const BRANCHES: usize = 5;
const DISCOUNT: f64 = 0.99;
/// What values of one side may be off by. They give theirs within half of 1e-6, so that both differ by 1e-6 at most.
const EPSILON: f64 = 5e-7;
const SAME: f64 = 1e-6;
/// States that lead to their neighbours lead so far.
const NEAR: usize = 8;

/// (its case against each library, its states, whether they lead to their neighbours)
const MODELS: [([&str; 2], usize, bool); 6] = [
    (["random 10³, quantecon", "random 10³, pymdptoolbox"], 1_000, false),
    (["random 10⁴, quantecon", "random 10⁴, pymdptoolbox"], 10_000, false),
    (["random 10⁵, quantecon", "random 10⁵, pymdptoolbox"], 100_000, false),
    (["random 10⁶, quantecon", "random 10⁶, pymdptoolbox"], 1_000_000, false),
    (["neighbours 10⁴, quantecon", "neighbours 10⁴, pymdptoolbox"], 10_000, true),
    (["neighbours 10⁶, quantecon", "neighbours 10⁶, pymdptoolbox"], 1_000_000, true),
];
const LIBRARIES: [&str; 2] = ["quantecon 0.11.4", "pymdptoolbox 4.0b3"];

/// A model, and the file that the other side reads it from.
struct Written {
    model: Model,
    file: PathBuf,
}

impl Written {
    fn new(states: usize, near: bool, directory: &Path) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(9);
        let mut builder = ModelBuilder::new(states, Discount::PerStep(DISCOUNT));
        let (mut rewards, mut probabilities, mut following) = (Vec::new(), Vec::new(), Vec::new());
        for (state, action) in (0..states).flat_map(|state| (0..ACTIONS).map(move |action| (state, action))) {
            let next = |random: &mut fastrand::Rng| {
                if near {
                    random.usize(state.saturating_sub(NEAR)..states.min(state + NEAR + 1))
                } else {
                    random.usize(..states)
                }
            };
            let mut branches: Vec<(usize, f64)> =
                (0..BRANCHES).map(|_| (next(&mut random), 0.01 + random.f64())).collect();
            let sum: f64 = branches.iter().map(|(_, weight)| weight).sum();
            branches.iter_mut().for_each(|(_, weight)| *weight /= sum);
            let reward = random.f64();
            builder.choice(state, action, reward, &branches)?;
            rewards.extend(reward.to_le_bytes());
            for (next, probability) in branches {
                probabilities.extend(probability.to_le_bytes());
                following.extend(u32::try_from(next)?.to_le_bytes());
            }
        }
        let file = directory.join("model");
        let sizes = [states, ACTIONS, BRANCHES].map(|size| (size as u64).to_le_bytes());
        fs::write(
            &file,
            [&sizes.concat()[..], &DISCOUNT.to_le_bytes(), &rewards, &probabilities, &following].concat(),
        )?;
        Ok(Self { model: builder.build()?, file })
    }

    /// What a solve takes, on average over about so long, and what it found.
    fn solve(&self, threads: Option<usize>, seconds: f64) -> Result<(Took, Solution)> {
        let mut options = Options { epsilon: EPSILON, ..Options::default() };
        options.threads = threads.unwrap_or(options.threads);
        let (watch, began, mut solves) = (Stopwatch::start(), cpu_of_this_thread()?, 0.0);
        loop {
            let solution = solve(&self.model, &options)?;
            solves += 1.0;
            let took = watch.seconds();
            if took >= seconds {
                let cpu = (cpu_of_this_thread()? - began) / solves;
                return Ok((Took { seconds: took / solves, cpu }, solution));
            }
        }
    }
}

/// The other side: a process that has read the model, and solves it when it is asked.
struct Rival {
    process: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
    values: PathBuf,
    method: String,
}

#[derive(Deserialize)]
struct Begun {
    method: String,
    left_out: Option<String>,
}

/// What a solve takes.
#[derive(Clone, Copy, Deserialize)]
struct Took {
    seconds: f64,
    /// Seconds of processors; of ours, of the thread that asked.
    cpu: f64,
}

/// Seconds that this thread has had a processor: what others do on the machine is not in it.
fn cpu_of_this_thread() -> Result<f64> {
    let told = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = told.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanos / 1e9)
}

impl Rival {
    /// If it cannot be had here, or not with this model: why.
    fn start(library: &str, model: &Path) -> std::result::Result<Self, String> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("mdp/rivals.py");
        let values = model.with_extension("values");
        let mut command = Command::new("python3");
        command.arg(program).arg(library.split(' ').next().unwrap_or_default()).arg(model).arg(&values);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned.map_err(|error| format!("python3 cannot be started: {error}"))?;
        let (Some(asked), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("python3 has no pipes".to_owned());
        };
        let mut rival = Self { process, asked, answers: BufReader::new(answers), values, method: String::new() };
        let Begun { method, left_out } = rival.answer().map_err(|error| error.to_string())?;
        rival.method = method;
        left_out.map_or(Ok(rival), Err)
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("rivals.py ended; what it said stands above".into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// What a solve takes, on average over about so long, and by how much its values differ: they must be these.
    fn solve(&mut self, seconds: f64, ours: &[f64]) -> Result<(Took, f64)> {
        writeln!(self.asked, "{seconds}")?;
        let took: Took = self.answer()?;
        let values = fs::read(&self.values)?;
        let values = values.chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap_or_default()));
        let off = values.clone().zip(ours).map(|(theirs, ours)| (theirs - ours).abs()).fold(0.0, f64::max);
        if values.len() != ours.len() || off.is_nan() || off > SAME {
            return Err(format!("{} values against {} of ours, off by {off:.1e}", values.len(), ours.len()).into());
        }
        Ok((took, off))
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn row(plan: &Plan, case: &'static str, against: &'static str, written: &Written) -> Result<Row> {
    let row = |settings: String, rounds: Rounds| Row {
        id: "9",
        case,
        what: "Solving a decision process, on as many threads as there are",
        against,
        unit: "states/s",
        target: Target::at_least(20.0),
        settings,
        rounds,
    };
    let mut rival = match Rival::start(against, &written.file) {
        Ok(rival) => rival,
        Err(why) => return Ok(row(String::new(), Rounds::skipped(format!("{case}: {why}")))),
    };
    let (states, seconds) = (written.model.states() as f64, plan.seconds / 4.0);
    let (mut alone, mut largest) = (Vec::new(), 0.0_f64);
    let rounds = plan.rounds(&format!("9, {case}"), || {
        let (ours, solution) = written.solve(None, seconds)?;
        let (one_thread, _) = written.solve(Some(1), seconds)?;
        let (theirs, off) = rival.solve(seconds, &solution.values)?;
        alone.push(theirs.cpu / one_thread.cpu);
        largest = largest.max(off);
        Ok(Sample::of(states / ours.seconds, states / theirs.seconds))
    })?;
    let settings = format!(
        "{ACTIONS} actions of {BRANCHES} branches for each state, sparse on both sides, discount {DISCOUNT}; solving alone, the model built \
         before; ours by modified policy iteration within {EPSILON:.0e}, theirs by the fastest of its methods here, {}; values differ by {largest:.0e} at most. Ours on \
         one thread, by processor time: {:.2}× (median of all rounds).",
        rival.method,
        median(alone),
    );
    Ok(row(settings, rounds))
}

/// 9: models of all sizes, against each library.
pub(crate) fn solving(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (cases, states, near) in MODELS {
        let written = Written::new(states, near, directory)?;
        for (case, library) in cases.into_iter().zip(LIBRARIES) {
            rows.push(row(plan, case, library, &written)?);
        }
    }
    Ok(rows)
}
