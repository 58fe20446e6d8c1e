//! The table of a sweep: on a terminal, and as docs/targets.md.

use std::fmt::Write as _;

use super::machine::{COLUMNS, Cell, Row};

/// A line for each machine.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(
            text,
            "{:<10} {:<26} {}",
            row.target,
            row.machine,
            summary(row)
        );
    }
    text
}

/// `all`, or as far as it went and why no further; then what a load does not bring back.
fn summary(row: &Row) -> String {
    let right = row.cells.iter().filter(|cell| matches!(cell, Cell::Right));
    let reached = right.count();
    let mut text = match row.cells.last() {
        _ if reached == COLUMNS.len() => "all".to_owned(),
        Some(Cell::Cannot(why)) => format!("{}: QEMU cannot: {}", COLUMNS[reached], line(why)),
        Some(Cell::Wrong(why)) => format!("{}: WRONG: {}", COLUMNS[reached], line(why)),
        Some(Cell::Right) | None => "not tried".to_owned(),
    };
    let mut kinds: Vec<_> = row.lost.iter().map(|device| &*device.kind).collect();
    kinds.dedup();
    if !kinds.is_empty() {
        let _ = write!(text, "; not brought back: {}", kinds.join(", "));
    }
    text
}

/// In one line, and not all of it.
fn line(text: &str) -> String {
    let text = text.split("\ncommand line").next().unwrap_or(text);
    let text = text.rsplit("refused to start: ").next().unwrap_or(text);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(140).collect()
}

/// The page for people.
pub(super) fn page(sweeps: &[(String, Vec<Row>)]) -> String {
    let mut page = String::from(
        "# Machines\n\nMade by `cargo xtask sweep --write-docs`: on each machine of each QEMU a session starts it, writes and reads its memory,\n\
         has it go nowhere and says where it is, saves, loads three times, forks, and resets it. *all* is all of that. Otherwise it says\n\
         how far it came and why no further. What a load does not bring back, `save_snapshot` returns. What a program does on each kind of core is\n\
         in [cores.md](cores.md).\n",
    );
    for (version, rows) in sweeps {
        let all = rows
            .iter()
            .filter(|row| row.cells.len() == COLUMNS.len() && !row.is_wrong());
        let _ = write!(
            page,
            "\n## QEMU {version}\n\n{} machines, *all* on {}.\n\n| target | machine | CPUs | |\n|---|---|---|---|\n",
            rows.len(),
            all.count()
        );
        for row in rows {
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} |",
                row.target,
                row.machine,
                row.cpus,
                summary(row).replace('|', "\\|")
            );
        }
    }
    page
}
