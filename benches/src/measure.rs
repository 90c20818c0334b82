//! Measuring: a stopwatch, order statistics, and rounds that count only while the machine was quiet.
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures the machine's own clock; nothing else here reads it"
)]

use std::{
    fs, io,
    time::{Duration, Instant},
};

/// What any row may fail with.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Time since it was started.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn seconds(self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    pub(crate) fn micros(self) -> f64 {
        self.seconds() * 1e6
    }
}

/// Processor time of this process and all its threads since it was started.
#[cfg(feature = "brokers")]
#[derive(Clone, Copy)]
pub(crate) struct CpuWatch(Duration);

#[cfg(feature = "brokers")]
impl CpuWatch {
    pub(crate) fn start() -> Self {
        Self(cpu_time())
    }

    pub(crate) fn micros(self) -> f64 {
        cpu_time().saturating_sub(self.0).as_secs_f64() * 1e6
    }
}

#[cfg(feature = "brokers")]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The value that `part` (0 to 1) of the values do not exceed. Not a number if there are none.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the number of values")]
    let at = (last as f64 * part).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(&mut values.into_iter().collect::<Vec<_>>(), 0.5)
}

/// Nanoseconds per call, over about `seconds`.
pub(crate) fn nanos_per_call(seconds: f64, mut call: impl FnMut()) -> f64 {
    const STRIDE: u32 = 4096;
    let (mut calls, watch) = (0_u64, Stopwatch::start());
    loop {
        for _ in 0..STRIDE {
            call();
        }
        calls += u64::from(STRIDE);
        let elapsed = watch.seconds();
        if elapsed >= seconds {
            return elapsed * 1e9 / calls as f64;
        }
    }
}

/// How to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// How long one side of one round takes.
    pub(crate) seconds: f64,
    /// Count rounds whatever else the machine did.
    pub(crate) allow_noise: bool,
    /// Process groups that are no noise: brokers that rows are measured on.
    pub(crate) measured: Vec<u32>,
    /// The only broker to measure on.
    #[cfg(feature = "brokers")]
    pub(crate) broker: Option<String>,
}

/// What one round measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) ours: f64,
    /// Nothing where the target is absolute.
    pub(crate) against: Option<f64>,
    /// Our 99th percentile, in microseconds, where it matters.
    pub(crate) p99: Option<f64>,
}

impl Sample {
    pub(crate) fn of(ours: f64, against: f64) -> Self {
        Self { ours, against: Some(against), p99: None }
    }

    pub(crate) fn ratio(&self) -> Option<f64> {
        self.against.map(|against| self.ours / against)
    }
}

/// The rounds of a row.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) samples: Vec<Sample>,
    /// Rounds in which something else had too much of the machine.
    pub(crate) void: usize,
    /// The largest share that something else had in a round that counts.
    pub(crate) noise: f64,
    /// Why there are none, where that is not the machine's noise.
    pub(crate) skipped: Option<String>,
}

impl Rounds {
    /// One is enough: what is counted comes out the same each time.
    #[cfg_attr(not(feature = "rivals"), expect(dead_code, reason = "who has something to compare with, counts"))]
    pub(crate) fn counted(sample: Sample) -> Self {
        Self { samples: vec![sample], ..Self::default() }
    }

    /// Not measured, because something is missing here.
    pub(crate) fn skipped(why: String) -> Self {
        eprintln!("skipped: {why}");
        Self { skipped: Some(why), ..Self::default() }
    }
}

/// A round counts if no more of the machine than this went to other programs.
const QUIET: f64 = 0.05;
/// So many rounds may be void for each that counts.
const VOID_PER_ROUND: usize = 4;

impl Plan {
    /// Measures rounds, A then B in each, until enough of them count or too many are void. One more comes first, to warm
    /// up, and is dropped.
    pub(crate) fn rounds(&self, name: &str, mut round: impl FnMut() -> Result<Sample>) -> Result<Rounds> {
        let [rounds] = self.rounds_of([name], || Ok([round()?]))?;
        Ok(rounds)
    }

    /// The same, where a round measures several things.
    pub(crate) fn rounds_of<const N: usize>(
        &self,
        names: [&str; N],
        mut round: impl FnMut() -> Result<[Sample; N]>,
    ) -> Result<[Rounds; N]> {
        let mut all = [(); N].map(|()| Rounds::default());
        let (mut count, mut void) = (0, 0);
        round()?;
        while count < self.rounds && void <= VOID_PER_ROUND * self.rounds {
            let before = Usage::read(&self.measured)?;
            let samples = round()?;
            let noise = Usage::read(&self.measured)?.others_since(&before);
            let quiet = noise <= QUIET || self.allow_noise;
            if quiet {
                count += 1;
            } else {
                void += 1;
            }
            for ((name, sample), rounds) in names.iter().zip(samples).zip(&mut all) {
                tell(name, &sample, noise, quiet);
                rounds.void = void;
                if quiet {
                    rounds.samples.push(sample);
                    rounds.noise = rounds.noise.max(noise);
                }
            }
        }
        if count < self.rounds {
            all.iter_mut().for_each(|rounds| rounds.samples.clear());
        }
        Ok(all)
    }
}

fn tell(name: &str, sample: &Sample, noise: f64, quiet: bool) {
    let ratio = sample.ratio().map_or_else(String::new, |ratio| format!(", ratio {ratio:.3}"));
    let p99 = sample.p99.map_or_else(String::new, |p99| format!(", p99 {p99:.0} µs"));
    let void = if quiet { "" } else { ": void" };
    let against = sample.against.map_or_else(String::new, |against| format!(" against {against:.2}"));
    eprintln!("{name}: {:.2}{against}{ratio}{p99}; others {:.1} %{void}", sample.ours, noise * 100.0);
}

/// CPU time so far, in clock ticks over all cores.
struct Usage {
    total: u64,
    /// Of programs other than this one, and what the hypervisor took.
    others: u64,
}

impl Usage {
    /// `measured`: process groups that are no noise.
    fn read(measured: &[u32]) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let all = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let ticks: Vec<u64> = all.take(8).filter_map(|ticks| ticks.parse().ok()).collect();
        let [user, nice, system, .., steal] = ticks[..] else { return Err("/proc/stat has no such line".into()) };
        let (own, mut others, mut sees_all) = (std::process::id(), 0, false);
        for process in fs::read_dir("/proc")? {
            let Some((id, times)) = times_of(&process?) else { continue };
            sees_all |= id == KTHREADD;
            // The kernel's own threads write what this process syncs, and a process that this one started is measured: they
            // are no noise.
            let is_measured = id == own || times.parent == own || measured.contains(&times.group);
            if !is_measured && id != KTHREADD && times.parent != KTHREADD {
                others += times.own + times.of_children;
            }
        }
        if !sees_all {
            // In a container: what others take shows only in the sum, from which the kernel cannot be told apart.
            let times = fs::read_to_string("/proc/self/stat")?;
            let ours = Times::parse(&times).map_or(0, |times| times.own + times.of_children);
            others = (user + nice + system).saturating_sub(ours);
        }
        Ok(Self { total: ticks.iter().sum(), others: others + steal })
    }

    /// The share of the machine that others had.
    fn others_since(&self, before: &Self) -> f64 {
        let others = self.others.saturating_sub(before.others);
        others as f64 / self.total.saturating_sub(before.total).max(1) as f64
    }
}

/// The parent of the kernel's threads.
const KTHREADD: u32 = 2;

/// A process's parent and group, and its user and system time.
#[derive(Debug, PartialEq)]
struct Times {
    parent: u32,
    group: u32,
    own: u64,
    /// Of children that ended: so no time is lost when a process ends between two readings.
    of_children: u64,
}

impl Times {
    /// Reads a `/proc/PID/stat`.
    fn parse(stat: &str) -> Option<Self> {
        // The name comes first, in brackets, and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let mut times = fields.skip(8).map_while(|field| field.parse::<u64>().ok());
        let mut two = || Some(times.next()? + times.next()?);
        Some(Self { parent, group, own: two()?, of_children: two()? })
    }
}

/// The id and the times of a process, if this is one and it did not end meanwhile.
fn times_of(process: &fs::DirEntry) -> Option<(u32, Times)> {
    let id = process.file_name().to_str()?.parse().ok()?;
    let stat: io::Result<String> = fs::read_to_string(process.path().join("stat"));
    Some((id, Times::parse(&stat.ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics() {
        assert_eq!(median([5.0, 1.0, 3.0]), 3.0);
        assert_eq!(quantile(&mut [1.0, 2.0, 3.0, 4.0, 100.0], 0.99), 100.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn the_times_of_a_process_are_found_behind_any_name() {
        let stat = "12 (a) b (c) S 2 9 0 0 -1 69238880 0 0 0 0 7 35 1 4 20 0 1 0 14";
        assert_eq!(Times::parse(stat), Some(Times { parent: 2, group: 9, own: 42, of_children: 5 }));
    }

    #[test]
    fn rounds_are_measured_and_the_first_is_dropped() {
        let plan = Plan {
            rounds: 3,
            seconds: 0.0,
            allow_noise: true,
            measured: Vec::new(),
            #[cfg(feature = "brokers")]
            broker: None,
        };
        let mut count = 0.0;
        let rounds = plan.rounds("test", || {
            count += 1.0;
            Ok(Sample::of(count, 1.0))
        });
        let ours: Vec<f64> = rounds.unwrap().samples.iter().map(|sample| sample.ours).collect();
        assert_eq!(ours, [2.0, 3.0, 4.0]);
    }
}
