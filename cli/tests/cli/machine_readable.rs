//! `--json`: for programs, one object a line and nothing else.

use serde_json::{Value, json};

use crate::support::{Call, Said};

/// All lines of stderr, which have to be objects.
fn objects(said: &Said) -> Vec<Value> {
    said.stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn last(said: &Said) -> Value {
    objects(said).pop().unwrap()
}

#[test]
fn each_verdict_is_an_object() {
    let rows: [(&str, &[&str], i32, Value); 7] = [
        (
            "semihosting-exit",
            &[],
            7,
            json!({ "verdict": "exited", "expected": null }),
        ),
        (
            "semihosting-exit",
            &["--expect=never"],
            7,
            json!({ "verdict": "exited", "expected": false }),
        ),
        (
            "tick",
            &["--expect=tick"],
            0,
            json!({ "verdict": "met", "expected": true, "message": null }),
        ),
        ("reset-request", &[], 120, json!({ "verdict": "reset" })),
        ("lockup", &[], 134, json!({ "verdict": "locked-up" })),
        (
            "hardfault-loop",
            &["--timeout=30s"],
            139,
            json!({ "verdict": "faulted" }),
        ),
        (
            "hardfault-loop",
            &["--timeout=5s", "--on-fault=continue"],
            124,
            json!({ "verdict": "timed-out", "exception": 3, "in_fault_handler": true, "run_state": "running" }),
        ),
    ];
    for (image, words, status, expected) in rows {
        let said = Call::image(image, words.iter().copied().chain(["--json"])).ends_with(status);
        let objects = objects(&said);
        assert_eq!(objects.len(), 1, "{image}: {}", said.stderr);
        let object = &objects[0];
        assert_eq!(
            (&object["event"], &object["exit_code"]),
            (&json!("end"), &json!(status))
        );
        assert!(
            object["seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0),
            "{object}"
        );
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(object.get(key), Some(value), "{image}: {key} of {object}");
        }
    }
}

#[test]
fn a_lockup_has_its_registers() {
    let object = last(&Call::image("lockup", ["--json"]).ends_with(134));
    assert_eq!(object["registers"]["R15"], object["pc"], "{object}");
    assert!(
        object["message"]
            .as_str()
            .is_some_and(|message| message.contains("locked up")),
        "{object}"
    );
}

#[test]
fn a_failure_is_an_object_too() {
    let object = last(&Call::new(["--json", "no/such.elf"]).ends_with(125));
    assert_eq!(object["verdict"], "failed");
    assert!(
        object["message"]
            .as_str()
            .is_some_and(|message| message.contains("no/such.elf")),
        "{object}"
    );
}

#[test]
fn what_is_known_before_the_end_comes_before() {
    let mut running = Call::image("tick", ["--json", "--gdb=free", "--verbose"]).start();
    running.stderr.until("\"gdb\"");
    running.stderr.until("\n");
    running.signal(rustix::process::Signal::TERM);
    let said = Said::of(&running.end(), 143);
    let events: Vec<_> = objects(&said)
        .into_iter()
        .map(|object| object["event"].clone())
        .collect();
    assert_eq!(events, ["start", "gdb", "end"], "{}", said.stderr);
    assert_eq!(last(&said)["verdict"], "interrupted");
}

#[test]
fn a_file_leaves_stderr_to_people() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("verdict.json");
    let option = format!("--json={}", path.display());
    let said = Call::image("semihosting-exit", [option.as_str()]).ends_with(7);
    assert_eq!(
        said.stderr,
        "qemu-controller: the firmware exited with status 7\n"
    );
    let object: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(object["exit_code"], 7);

    let said = Call::image("tick", ["--json=no/such/folder/verdict.json"]).ends_with(125);
    assert!(
        said.stderr.contains("no/such/folder/verdict.json"),
        "{}",
        said.stderr
    );
}
