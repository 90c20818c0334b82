//! Whom a queue should let in: who is let in pays 20 at once and costs 1 per unit of time while there. The best policy is a
//! threshold, and it is lower than what each customer would choose for himself, as he does not count what he costs the others.

use oncue_mdp::{Discount, ModelBuilder, Options, average_reward};

const ROOM: usize = 50;
const ARRIVAL: f64 = 0.4;
const SERVICE: f64 = 0.6;
const PAYS: f64 = 20.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = ModelBuilder::new(ROOM + 1, Discount::PerStep(1.0))
        .action_names(vec!["turn away".to_owned(), "let in".to_owned()]);
    for there in 0..=ROOM {
        let (cost, left) = (there as f64, there.saturating_sub(1));
        builder.choice(there, 0, -cost, &[(there, ARRIVAL), (left, SERVICE)])?;
        if there < ROOM {
            builder.choice(there, 1, ARRIVAL * PAYS - cost, &[(there + 1, ARRIVAL), (left, SERVICE)])?;
        }
    }
    let model = builder.build()?;
    let best = average_reward(&model, &Options::default())?;
    let threshold = best.policy.iter().position(|choice| model.choice(*choice).action == 0).unwrap_or(ROOM);
    println!("let in while fewer than {threshold} are there: {:.4} per unit of time", best.gain);
    println!("each for himself: while fewer than {}", (PAYS * SERVICE) as usize);
    Ok(())
}
