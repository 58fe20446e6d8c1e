//! Draws what was measured: a bar for each contender, a line for each curve.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::{Curve, Report, Row};

const WIDTH: u32 = 820;
const FONT: &str = "sans-serif";

/// Room for the names of the lines.
const LEGEND: u32 = 230;

/// One file a subject's quantity that more than one was measured for, and one a curve's title.
pub fn draw(report: &Report, folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut charts: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in &report.rows {
        let title = format!("{}: {}", row.subject, row.quantity);
        match charts.iter_mut().find(|(known, _)| *known == title) {
            Some((_, rows)) => rows.push(row),
            None => charts.push((title, vec![row])),
        }
    }
    for (title, rows) in charts.iter().filter(|(_, rows)| rows.len() > 1) {
        let file = file_name(title);
        bars(&folder.join(&file), title, rows).map_err(|error| anyhow!("{file}: {error}"))?;
        files.push(file);
    }
    let mut titles: Vec<&str> = report.curves.iter().map(|curve| curve.title).collect();
    titles.dedup();
    for title in titles {
        let curves: Vec<&Curve> = report
            .curves
            .iter()
            .filter(|curve| curve.title == title)
            .collect();
        let file = file_name(title);
        lines(&folder.join(&file), title, &curves).map_err(|error| anyhow!("{file}: {error}"))?;
        files.push(file);
    }
    Ok(files)
}

fn file_name(title: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let words: String = title.chars().map(plain).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    format!("{}.svg", words.join("-"))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The median as a bar, minimum and maximum as a thin line over it.
fn bars(file: &Path, title: &str, rows: &[&Row]) -> Drawn {
    const LEFT: i32 = 280;
    const RIGHT: i32 = 200;
    const TOP: i32 = 50;
    const STEP: i32 = 30;
    let root = SVGBackend::new(
        file,
        (WIDTH, rows.len() as u32 * STEP as u32 + TOP as u32 + 10),
    )
    .into_drawing_area();
    root.fill(&WHITE)?;
    root.draw(&Text::new(
        title.to_owned(),
        (10, 14),
        (FONT, 17).into_font(),
    ))?;
    let most = rows
        .iter()
        .map(|row| row.spread.max)
        .fold(f64::MIN_POSITIVE, f64::max);
    let space = f64::from(WIDTH as i32 - LEFT - RIGHT);
    let x = |figure: f64| LEFT + (figure / most * space) as i32;
    for (row, y) in rows.iter().zip((TOP..).step_by(STEP as usize)) {
        let ours = row.who.starts_with("qemu-controller") || row.who.starts_with("qmp-proto");
        let colour = if ours {
            RGBColor(36, 98, 168)
        } else {
            RGBColor(170, 178, 189)
        };
        let spread = row.spread;
        root.draw(&Text::new(
            row.who.clone(),
            (10, y + 4),
            (FONT, 13).into_font(),
        ))?;
        root.draw(&Rectangle::new(
            [(LEFT, y), (x(spread.median), y + 20)],
            colour.filled(),
        ))?;
        root.draw(&PathElement::new(
            [(x(spread.min), y + 10), (x(spread.max), y + 10)],
            BLACK,
        ))?;
        let figure = format!("{:.4} {}", Digits(spread.median), row.unit);
        root.draw(&Text::new(
            figure,
            (x(spread.max) + 6, y + 4),
            (FONT, 13).into_font(),
        ))?;
    }
    root.present()?;
    Ok(())
}

/// A number with about so many digits as the precision says.
struct Digits(f64);

impl std::fmt::Display for Digits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let before = if self.0 >= 1.0 {
            self.0.log10() as usize + 1
        } else {
            1
        };
        let after = f.precision().unwrap_or(3).saturating_sub(before);
        write!(f, "{:.after$}", self.0)
    }
}

/// Both axes logarithmic: what grows linearly is a straight line.
fn lines(file: &Path, title: &str, curves: &[&Curve]) -> Drawn {
    let root = SVGBackend::new(file, (WIDTH, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let all = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let range = |of: fn((f64, f64)) -> f64| {
        let (least, most) = all()
            .map(of)
            .fold((f64::MAX, f64::MIN_POSITIVE), |(a, b), c| {
                (a.min(c), b.max(c))
            });
        least.max(most / 1e9) / 1.3..most * 1.3
    };
    let (xs, ys) = (range(|point| point.0), range(|point| point.1));
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 17))
        .margin(12)
        .margin_right(LEGEND + 12)
        .x_label_area_size(42)
        .y_label_area_size(76)
        .build_cartesian_2d(xs.log_scale(), ys.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(curves[0].x)
        .y_desc(curves[0].y)
        .light_line_style(WHITE)
        .draw()?;
    for (number, curve) in curves.iter().enumerate() {
        let colour = Palette99::pick(number).to_rgba();
        let points = curve.points.iter().copied();
        chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
        chart.draw_series(points.map(|point| Circle::new(point, 3, colour.filled())))?;
        // Beside the chart, where it hides no line.
        let (x, y) = ((WIDTH - LEGEND) as i32, 50 + 22 * number as i32);
        root.draw(&PathElement::new(
            [(x, y), (x + 16, y)],
            colour.stroke_width(2),
        ))?;
        root.draw(&Text::new(
            curve.who.clone(),
            (x + 22, y - 6),
            (FONT, 13).into_font(),
        ))?;
    }
    root.present()?;
    Ok(())
}
