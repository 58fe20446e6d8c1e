//! What was measured: rows, aims, curves; printed as a table, written as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::stats::{Measured, Spread, of};

/// All that one run has found.
#[derive(Default, Serialize)]
pub struct Report {
    /// How it was measured: QEMU's version, rounds, the machine's load.
    pub conditions: Vec<String>,
    pub aims: Vec<Aim>,
    pub rows: Vec<Row>,
    pub curves: Vec<Curve>,
    /// Subjects and peers that could not be measured, and why.
    pub left_out: Vec<String>,
}

/// One figure of one contender.
#[derive(Serialize)]
pub struct Row {
    pub subject: &'static str,
    pub quantity: &'static str,
    pub unit: &'static str,
    pub who: String,
    #[serde(flatten)]
    pub spread: Spread,
    pub rounds: usize,
}

/// A limit and how it was kept.
#[derive(Serialize)]
pub struct Aim {
    pub what: String,
    /// The median of the rounds' ratios (or the figure itself, where the aim is one); absent where
    /// it was not measured.
    pub ratio: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub aim: String,
    pub met: Option<bool>,
}

/// How something grows with its size.
#[derive(Serialize)]
pub struct Curve {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    pub who: String,
    pub points: Vec<(f64, f64)>,
}

/// Which side of a limit is good.
#[derive(Clone, Copy)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// A quantity's name and unit.
pub type Quantity = (&'static str, &'static str);

impl Report {
    /// A row for each contender and quantity.
    pub fn rows(&mut self, subject: &'static str, quantities: &[Quantity], measured: &[Measured]) {
        for (number, &(quantity, unit)) in quantities.iter().enumerate() {
            for Measured { name, quantities } in measured {
                let Some(figures) = quantities.get(number) else {
                    continue;
                };
                // A peer that can't tell says NaN.
                let figures: Vec<f64> = figures
                    .iter()
                    .copied()
                    .filter(|figure| figure.is_finite())
                    .collect();
                if let Some(spread) = Spread::of(&figures) {
                    let who = (*name).to_owned();
                    self.rows.push(Row {
                        subject,
                        quantity,
                        unit,
                        who,
                        spread,
                        rounds: figures.len(),
                    });
                }
            }
        }
    }

    /// One row of one figure.
    pub fn row(&mut self, subject: &'static str, quantity: Quantity, who: &str, figure: f64) {
        let spread = Spread {
            median: figure,
            min: figure,
            max: figure,
        };
        let (quantity, unit) = quantity;
        self.rows.push(Row {
            subject,
            quantity,
            unit,
            who: who.to_owned(),
            spread,
            rounds: 1,
        });
    }

    /// An aim for the ratio of two contenders' figures.
    pub fn ratio(
        &mut self,
        what: &str,
        measured: &[Measured],
        (over, under): (&str, &str),
        quantity: usize,
        limit: Limit,
    ) {
        let ratios = of(measured, over, quantity)
            .zip(of(measured, under, quantity))
            .and_then(|(over, under)| Spread::of_ratios(over, under));
        self.aim(what, ratios, limit);
    }

    /// An aim for a figure; `None` where it was not measured.
    pub fn aim(&mut self, what: &str, figure: Option<Spread>, limit: Limit) {
        let (aim, met) = match limit {
            Limit::AtMost(most) => (
                format!("≤ {most}"),
                figure.map(|figure| figure.median <= most),
            ),
            Limit::AtLeast(least) => (
                format!("≥ {least}"),
                figure.map(|figure| figure.median >= least),
            ),
        };
        let [ratio, min, max] = [
            figure.map(|f| f.median),
            figure.map(|f| f.min),
            figure.map(|f| f.max),
        ];
        self.aims.push(Aim {
            what: what.to_owned(),
            ratio,
            min,
            max,
            aim,
            met,
        });
    }

    /// The aims, and what was measured, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let line = |text: &mut String, cells: &[String]| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        };
        for condition in &self.conditions {
            let _ = writeln!(text, "- {condition}");
        }
        text.push_str(
            "\n### Aims\n| what | figure (min to max) | aim | met |\n|---|---|---|---|\n",
        );
        for Aim {
            what,
            ratio,
            min,
            max,
            aim,
            met,
        } in &self.aims
        {
            let figure = match (ratio, min, max) {
                (Some(ratio), Some(min), Some(max)) => spread(*ratio, *min, *max),
                _ => "not measured".to_owned(),
            };
            let met = met.map_or("-", |met| if met { "yes" } else { "**no**" });
            line(
                &mut text,
                &[what.clone(), figure, aim.clone(), met.to_owned()],
            );
        }
        text.push_str("\n### Figures\n| subject | quantity | who | median (min to max) | rounds |\n|---|---|---|---|---|\n");
        for row in &self.rows {
            let Spread { median, min, max } = row.spread;
            let figure = format!("{} {}", spread(median, min, max), row.unit);
            let cells = [
                row.subject.to_owned(),
                row.quantity.to_owned(),
                row.who.clone(),
                figure,
            ];
            line(
                &mut text,
                &[cells.as_slice(), &[row.rounds.to_string()]].concat(),
            );
        }
        if !self.left_out.is_empty() {
            text.push_str("\n### Left out\n");
            self.left_out.iter().for_each(|why| {
                let _ = writeln!(text, "- {why}");
            });
        }
        text
    }
}

fn spread(median: f64, min: f64, max: f64) -> String {
    if min == max {
        number(median)
    } else {
        format!("{} ({} to {})", number(median), number(min), number(max))
    }
}

/// Three digits or more, as many as tell something.
fn number(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 || figure == 0.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}
