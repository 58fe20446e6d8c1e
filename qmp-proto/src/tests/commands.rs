//! What the typed commands send, and what the types read beyond what the transcripts have.

use serde_json::{Value, json};

use crate::{
    Capability, Codec, Command, CommandId, Empty, EncodeError, Limits, QmpEvent, RawJson,
    commands::{
        BlockdevAdd, BlockdevDel, ChardevInfo, CommandInfo, Cont, HumanMonitorCommand, JobDismiss,
        JobInfo, JobStatus, MigrateIncoming, MigrationInfo, MigrationStatus, QmpCapabilities,
        QomGet, QomList, QomSet, QueryMigrate, QueryQmpSchema, Quit, RunState, ShutdownCause,
        SnapshotDelete, SnapshotLoad, SnapshotSave, StatusInfo, SystemPowerdown, SystemReset,
        TypedEvent,
    },
};

/// What goes out for a command, but for its id.
fn sent<C: Command>(command: &C) -> Value {
    let mut out = Vec::new();
    Codec::new(Limits::default())
        .encode(command, CommandId::new(1, 2), &mut out)
        .unwrap();
    let mut sent: Value = serde_json::from_slice(&out).unwrap();
    let id = sent.as_object_mut().unwrap().remove("id");
    assert_eq!(id, Some(json!("00000001-2")));
    sent
}

#[test]
fn each_command_goes_out_under_its_name_with_its_arguments() {
    let rows = [
        (sent(&Cont), "cont"),
        (sent(&SystemReset), "system_reset"),
        (sent(&SystemPowerdown), "system_powerdown"),
        (sent(&Quit), "quit"),
        (sent(&&QueryQmpSchema), "query-qmp-schema"),
        (sent(&QueryMigrate), "query-migrate"),
    ];
    for (sent, name) in rows {
        assert_eq!(sent, json!({ "execute": name }));
    }
    let offered = [Capability::Oob, Capability::Other("flux".into())];
    let job = json!({"job-id": "j", "tag": "t", "vmstate": "v", "devices": ["d"]});
    let node = json!({"driver": "file", "node-name": "n"});
    let rows = [
        (
            sent(&QmpCapabilities::new(&offered)),
            "qmp_capabilities",
            json!({"enable": ["oob", "flux"]}),
        ),
        (
            sent(&JobDismiss::new("j")),
            "job-dismiss",
            json!({"id": "j"}),
        ),
        (
            sent(&SnapshotSave::new("j", "t", "v", &["d"])),
            "snapshot-save",
            job.clone(),
        ),
        (
            sent(&SnapshotLoad::new("j", "t", "v", &["d"])),
            "snapshot-load",
            job,
        ),
        (
            sent(&SnapshotDelete::new("j", "t", &["d"])),
            "snapshot-delete",
            json!({"job-id": "j", "tag": "t", "devices": ["d"]}),
        ),
        (sent(&BlockdevAdd::new(node.clone())), "blockdev-add", node),
        (
            sent(&BlockdevDel::new("n")),
            "blockdev-del",
            json!({"node-name": "n"}),
        ),
        (
            sent(&MigrateIncoming::new("fd:5")),
            "migrate-incoming",
            json!({"uri": "fd:5"}),
        ),
        (
            sent(&QomGet::new("/p", "x")),
            "qom-get",
            json!({"path": "/p", "property": "x"}),
        ),
        (sent(&QomList::new("/p")), "qom-list", json!({"path": "/p"})),
        (
            sent(&QomSet::new("/p", "x", false)),
            "qom-set",
            json!({"path": "/p", "property": "x", "value": false}),
        ),
        (
            sent(&HumanMonitorCommand::new("info status")),
            "human-monitor-command",
            json!({"command-line": "info status"}),
        ),
        (
            sent(&HumanMonitorCommand::new("info registers").cpu_index(1)),
            "human-monitor-command",
            json!({"command-line": "info registers", "cpu-index": 1}),
        ),
    ];
    for (sent, name, arguments) in rows {
        assert_eq!(sent, json!({"execute": name, "arguments": arguments}));
    }
}

fn raw(value: Value) -> RawJson {
    RawJson::from_value(&value).unwrap()
}

#[test]
fn fields_that_a_version_adds_or_lacks_do_not_matter() {
    let status = raw(json!({"running": false, "singlestep": true, "status": "flux", "later": {}}));
    let StatusInfo { running, status } = status.parse().unwrap();
    assert!(!running);
    assert_eq!(status.as_str(), "flux");
    assert_eq!(status, RunState::Other("flux".into()));
    let job: JobInfo = raw(json!({"id": "j", "type": "t", "status": "aborting"}))
        .parse()
        .unwrap();
    assert_eq!(
        (job.status, job.error, job.current_progress),
        (JobStatus::Aborting, None, 0)
    );
    let none: MigrationInfo = raw(json!({})).parse().unwrap();
    assert_eq!((none.status, none.error_desc), (None, None));
    let failed: MigrationInfo = raw(json!({"status": "failed", "error-desc": "e", "ram": {}}))
        .parse()
        .unwrap();
    assert_eq!(
        (failed.status, failed.error_desc.as_deref()),
        (Some(MigrationStatus::Failed), Some("e"))
    );
    let missing = raw(json!({"running": true}))
        .parse::<StatusInfo>()
        .unwrap_err();
    assert!(
        missing
            .to_string()
            .ends_with("StatusInfo: missing field `status` at line 1 column 16"),
        "{missing}"
    );
}

#[test]
fn an_array_of_the_right_values_is_no_object() {
    assert_eq!(raw(json!({"later": 1})).parse::<Empty>().unwrap(), Empty {});
    for other in [json!([]), json!(null), json!("")] {
        raw(other).parse::<Empty>().unwrap_err();
    }
    let status = raw(json!([true, "running"]))
        .parse::<StatusInfo>()
        .unwrap_err();
    assert!(status.to_string().contains("expected an object"));
    raw(json!([["main", "chardev", true]]))
        .parse::<Vec<ChardevInfo>>()
        .unwrap_err();
    raw(json!([["stop"]]))
        .parse::<Vec<CommandInfo>>()
        .unwrap_err();
    let event = |name: &str, data| QmpEvent::new(name, Some(raw(data)));
    event("SHUTDOWN", json!([])).typed().unwrap_err();
    event("WATCHDOG", json!(["reset"])).typed().unwrap_err();
}

#[test]
fn a_name_goes_out_as_it_came() {
    for name in [
        "debug",
        "inmigrate",
        "paused",
        "prelaunch",
        "running",
        "save-vm",
        "restore-vm",
        "flux",
    ] {
        let state: RunState = raw(json!(name)).parse().unwrap();
        assert_eq!(
            (state.to_string(), serde_json::to_value(&state).unwrap()),
            (name.to_owned(), json!(name))
        );
        assert_eq!(state == RunState::Other(name.into()), name == "flux");
    }
}

#[test]
fn a_command_of_just_the_limit_goes_out_and_one_byte_more_does_not() {
    let id = CommandId::new(1, 2);
    let size = r#"{"execute":"x","id":"00000001-2"}"#.len();
    for before in ["", "before"] {
        let mut out = before.as_bytes().to_vec();
        let codec = |limit| {
            Codec::new(Limits {
                max_command_bytes: limit,
                ..Limits::default()
            })
        };
        let error = codec(size - 1)
            .encode_raw("x", &(), id, &mut out)
            .unwrap_err();
        assert!(
            matches!(error, EncodeError::TooLarge { size: said, limit } if said == size && limit == size - 1)
        );
        assert_eq!(out, before.as_bytes());
        codec(size).encode_raw("x", &(), id, &mut out).unwrap();
        assert_eq!(out.len(), before.len() + size);
    }
}

#[test]
fn events_are_typed_by_name() {
    let event = |name: &str, data: Option<Value>| QmpEvent::new(name, data.map(raw));
    let typed = |name, data| event(name, data).typed().unwrap();
    assert_eq!(typed("STOP", None), TypedEvent::Stop);
    assert_eq!(typed("RESUME", None), TypedEvent::Resume);
    assert_eq!(typed("POWERDOWN", None), TypedEvent::Powerdown);
    assert_eq!(typed("SUSPEND", None), TypedEvent::Suspend);
    assert_eq!(typed("WAKEUP", None), TypedEvent::Wakeup);
    assert_eq!(
        typed("RTC_CHANGE", Some(json!({"offset": 78}))),
        TypedEvent::Other
    );
    let TypedEvent::Reset(reset) = typed("RESET", Some(json!({"guest": true}))) else {
        panic!()
    };
    assert_eq!((reset.guest, reset.reason), (true, ShutdownCause::None));
    for name in ["RESET", "SHUTDOWN"] {
        let (TypedEvent::Reset(none) | TypedEvent::Shutdown(none)) = typed(name, None) else {
            panic!()
        };
        assert_eq!(
            (none.guest, none.reason),
            (false, ShutdownCause::None),
            "{name}"
        );
        event(name, Some(json!(null))).typed().unwrap_err();
    }
    let TypedEvent::Shutdown(shutdown) = typed(
        "SHUTDOWN",
        Some(json!({"guest": false, "reason": "host-signal"})),
    ) else {
        panic!()
    };
    assert_eq!(
        (shutdown.guest, shutdown.reason),
        (false, ShutdownCause::HostSignal)
    );
    let TypedEvent::Watchdog(watchdog) = typed("WATCHDOG", Some(json!({"action": "reset"}))) else {
        panic!()
    };
    assert_eq!(watchdog.action, "reset");
    let panicked = json!({"action": "pause", "info": {"type": "hyper-v", "arg1": 1}});
    let TypedEvent::GuestPanicked(panicked) = typed("GUEST_PANICKED", Some(panicked)) else {
        panic!()
    };
    assert_eq!(
        panicked.info.unwrap().as_str(),
        r#"{"arg1":1,"type":"hyper-v"}"#
    );
    let TypedEvent::JobStatusChange(job) = typed(
        "JOB_STATUS_CHANGE",
        Some(json!({"id": "j", "status": "null"})),
    ) else {
        panic!()
    };
    assert_eq!((&*job.id, job.status), ("j", JobStatus::Null));
    let error = json!({"device": "", "node-name": "n", "operation": "write", "action": "stop", "nospace": true, "reason": "r"});
    let TypedEvent::BlockIoError(error) = typed("BLOCK_IO_ERROR", Some(error)) else {
        panic!()
    };
    assert_eq!(
        (error.node_name.as_deref(), error.nospace),
        (Some("n"), true)
    );
    event("WATCHDOG", None).typed().unwrap_err();
    event("JOB_STATUS_CHANGE", Some(json!({"id": 1})))
        .typed()
        .unwrap_err();
}

#[test]
fn raw_json_goes_into_json_as_it_is() {
    let raw = RawJson::copy(b"{\"a\" : 1.50}");
    assert_eq!(serde_json::to_string(&[&raw]).unwrap(), "[{\"a\" : 1.50}]");
    let back: Vec<RawJson> = serde_json::from_str("[ {\"a\" : 1.50} ,null]").unwrap();
    assert_eq!(back, [raw, RawJson::copy(b"null")]);
    assert_eq!(
        format!("{:?} {}", back[1], back[0]),
        "RawJson(null) {\"a\" : 1.50}"
    );
}

#[test]
#[cfg(feature = "std")]
fn ids_of_two_connections_differ() {
    let first_id = || {
        let mut qmp = crate::Connection::new(Limits::default());
        qmp.handle_input(
            b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}}}",
        );
        qmp.poll().unwrap();
        qmp.negotiate(&[]).unwrap();
        String::from_utf8(qmp.output().to_vec()).unwrap()
    };
    // One in four thousand million runs fails.
    assert_ne!(first_id(), first_id());
}

#[test]
fn error_classes_are_known_by_name_and_unknown_ones_kept() {
    let known = [
        "GenericError",
        "CommandNotFound",
        "DeviceNotActive",
        "DeviceNotFound",
        "KVMMissingCap",
    ];
    for name in known.into_iter().chain(["Flux"]) {
        let class = crate::ErrorClass::from(name.to_owned());
        assert_eq!(class.as_str(), name);
        assert_eq!(
            class == crate::ErrorClass::Other(name.to_owned()),
            name == "Flux"
        );
    }
    assert_eq!(RawJson::copy(b"[1]").as_bytes(), b"[1]");
}
