//! How much ran, in words and for a program.

use std::path::Path;

use qemu_controller::coverage::{Coverage, Totals};
use serde_json::{Value, json};

/// The sum, and a line for each file.
pub(super) fn words(coverage: &Coverage) -> String {
    let all = coverage.totals();
    let mut words = format!(
        "coverage: {} of {} lines ({}), {} of {} functions",
        all.lines_hit,
        all.lines,
        percent(all),
        all.functions_hit,
        all.functions
    );
    let folder = std::env::current_dir().unwrap_or_default();
    let files = coverage.files();
    let short = |path: &str| match Path::new(path).strip_prefix(&folder) {
        Ok(rest) => rest.to_string_lossy().into_owned(),
        Err(_) => path.to_owned(),
    };
    let rows: Vec<_> = files
        .iter()
        .map(|(path, file)| (short(path), file.totals()))
        .collect();
    let width = rows.iter().map(|(path, _)| path.chars().count()).max();
    let width = width.unwrap_or(0);
    for (path, totals) in rows {
        let lines = format!("{}/{}", totals.lines_hit, totals.lines);
        words += &format!("\n{path:width$}  {lines:>11}  {:>7}", percent(totals));
    }
    words
}

fn percent(totals: Totals) -> String {
    match totals.lines {
        0 => "-".to_owned(),
        lines => format!("{:.1} %", totals.lines_hit as f64 * 100.0 / lines as f64),
    }
}

/// Adds the sum and each file to an object.
pub(super) fn add_json(coverage: &Coverage, object: &mut Value) {
    let files = coverage.files();
    let files = files.iter().map(|(path, file)| {
        let mut object = json!({ "path": path });
        add_totals(file.totals(), &mut object);
        object
    });
    object["files"] = files.collect();
    add_totals(coverage.totals(), object);
}

fn add_totals(totals: Totals, object: &mut Value) {
    object["lines"] = json!(totals.lines);
    object["lines_hit"] = json!(totals.lines_hit);
    object["functions"] = json!(totals.functions);
    object["functions_hit"] = json!(totals.functions_hit);
}
