//! The short sweep over one machine a family: every cell is right.

use std::process::Command;

#[test]
fn a_session_does_everything_on_one_machine_of_each_family() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["sweep", "--few"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let rows: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("==>"))
        .collect();
    assert_eq!(rows.len(), 12, "{text}");
    for row in rows {
        let summary = row.split_whitespace().nth(2).unwrap();
        assert_eq!(summary.trim_end_matches(';'), "all", "{row}");
    }
}
