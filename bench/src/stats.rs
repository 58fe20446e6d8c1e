//! Rounds, in which the contenders take turns, and what is made of their figures.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// One who is measured: a name, and what one round gives (one figure for each of the subject's
/// quantities).
pub struct Contender<'a> {
    pub name: &'static str,
    pub round: Box<dyn FnMut() -> Result<Vec<f64>> + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new(name: &'static str, round: impl FnMut() -> Result<Vec<f64>> + 'a) -> Self {
        Self {
            name,
            round: Box::new(round),
        }
    }
}

/// The figures of one contender: for each quantity, one of each round.
pub struct Measured {
    pub name: &'static str,
    pub quantities: Vec<Vec<f64>>,
}

/// Has all contenders take turns for so many rounds, another one first in each, so that none always
/// follows the same. One round before the first is not counted: it fills caches.
pub fn take_turns(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = contenders
        .iter()
        .map(|c| Measured {
            name: c.name,
            quantities: Vec::new(),
        })
        .collect();
    let count = contenders.len();
    for round in 0..=rounds {
        for turn in 0..count {
            let index = (round + turn) % count;
            let figures = (contenders[index].round)().context(contenders[index].name)?;
            let quantities = &mut measured[index].quantities;
            quantities.resize_with(figures.len(), Vec::new);
            if round > 0 {
                quantities
                    .iter_mut()
                    .zip(figures)
                    .for_each(|(all, figure)| all.push(figure));
            }
        }
    }
    Ok(measured)
}

/// How many a second there were of so many.
pub fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// The milliseconds since then.
pub fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The figures of that contender.
pub fn of<'a>(measured: &'a [Measured], name: &str, quantity: usize) -> Option<&'a [f64]> {
    let found = measured.iter().find(|measured| measured.name == name)?;
    found.quantities.get(quantity).map(Vec::as_slice)
}

/// What a number of figures comes to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` where there are no figures.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self {
            median: percentile(&sorted, 0.5),
            min,
            max,
        })
    }

    /// Of the ratios round by round: what disturbs a round disturbs both.
    pub fn of_ratios(over: &[f64], under: &[f64]) -> Option<Self> {
        Self::of(
            &over
                .iter()
                .zip(under)
                .map(|(over, under)| over / under)
                .collect::<Vec<_>>(),
        )
    }
}

/// Of figures in order: the one below which such a part of them lies.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}
