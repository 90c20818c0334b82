//! Writes a synthetic stream, in the format that the example `prequential` reads.
//!
//! `cargo run --release -p oncue-learn --example stream -- sea|agrawal1…agrawal10 SEED [EXAMPLES]`

use std::{
    error::Error,
    io::{self, BufWriter, Write as _},
};

use oncue_learn::synthetic::{Person, Sea};

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "sea|agrawal1…agrawal10 SEED [EXAMPLES]";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, seed, ..] = arguments.as_slice() else { return Err(usage.into()) };
    let examples: u32 = arguments.get(2).map_or(Ok(50_000), |count| count.parse())?;
    let mut random = fastrand::Rng::with_seed(seed.parse()?);
    let mut uniform = || random.f64();
    let mut out = BufWriter::new(io::stdout().lock());
    if name == "sea" {
        for number in 0..examples {
            let block = (4 * u64::from(number) / u64::from(examples)) as usize;
            let sea = Sea { threshold: Sea::THRESHOLDS[block.min(3)], noise: 0.1 };
            let ([a, b, c], yes) = sea.next(&mut uniform);
            writeln!(out, "{}\ta={a}\tb={b}\tc={c}", u8::from(yes))?;
        }
    } else {
        let function: u8 = name.strip_prefix("agrawal").ok_or(usage)?.parse()?;
        for _ in 0..examples {
            let person = Person::next(&mut uniform);
            let Person { salary, commission, age, level, car, town, house, owned, loan } = person;
            writeln!(
                out,
                "{}\tsalary={salary}\tcommission={commission}\tage={age}\thouse={house}\towned={owned}\tloan={loan}\
                 \tlevel:{level}\tcar:{car}\ttown:{town}",
                u8::from(person.is_group_a(function)),
            )?;
        }
    }
    out.flush()?;
    Ok(())
}
