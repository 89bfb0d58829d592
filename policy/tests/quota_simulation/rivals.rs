//! What others do: count afterwards and compare now and then, or give everybody an even part.

use super::fleet::{Dice, Outcome};

const WINDOW: u64 = 60_000;

fn weights(holders: u64) -> Vec<f64> {
    let each: Vec<f64> = (1..=holders).map(|rank| 1.0 / rank as f64).collect();
    let whole: f64 = each.iter().sum();
    each.iter().map(|weight| weight / whole).collect()
}

/// Every holder admits by what it knows, and hears of the others every `sync` milliseconds.
pub(crate) fn asynchronous(
    seed: u64,
    holders: u64,
    limit: u64,
    millis: u64,
    rate: f64,
    sync: u64,
) -> Outcome {
    let mut dice = Dice::new(seed);
    let mut told = Outcome::default();
    let weights = weights(holders);
    let (mut known, mut own) = (0, vec![0; weights.len()]);
    for now in 0..millis {
        if now % WINDOW == 0 {
            let whole: u64 = known + own.iter().sum::<u64>();
            told.over += whole.saturating_sub(limit);
            told.allowed += limit;
            known = 0;
            own.fill(0);
        }
        if now % sync == 0 {
            known += own.iter().sum::<u64>();
            own.fill(0);
        }
        for (holder, weight) in weights.iter().enumerate() {
            for _ in 0..dice.arrivals(rate / 1000.0 * weight) {
                told.offered += 1;
                if known + own[holder] < limit {
                    own[holder] += 1;
                    told.admitted += 1;
                } else {
                    told.denied += 1;
                }
            }
        }
    }
    told.over += (known + own.iter().sum::<u64>()).saturating_sub(limit);
    told
}

/// Every holder has its part, whoever is asked more.
pub(crate) fn even_split(seed: u64, holders: u64, limit: u64, millis: u64, rate: f64) -> Outcome {
    let mut dice = Dice::new(seed);
    let mut told = Outcome::default();
    let weights = weights(holders);
    let mut own = vec![0; weights.len()];
    let mut denied = 0;
    for now in 0..millis {
        if now % WINDOW == 0 {
            let whole: u64 = own.iter().sum();
            told.early += if whole < limit { denied } else { 0 };
            told.allowed += limit;
            own.fill(0);
            denied = 0;
        }
        for (holder, weight) in weights.iter().enumerate() {
            for _ in 0..dice.arrivals(rate / 1000.0 * weight) {
                told.offered += 1;
                if own[holder] < limit / holders {
                    own[holder] += 1;
                    told.admitted += 1;
                } else {
                    denied += 1;
                    told.denied += 1;
                }
            }
        }
    }
    let whole: u64 = own.iter().sum();
    told.early += if whole < limit { denied } else { 0 };
    told
}
