//! No space left on the disk, at each write of a save: QEMU's own `blkdebug` under the image says
//! ENOSPC, on any machine.

use std::path::Path;

use qemu_controller::{Session, SnapshotError};
use serde_json::{Value, json};

use super::{check_put_back, overwriting_fails};
use crate::support::{config, counter, counts};

/// Puts a layer under the session's image that fails as these rules say.
async fn fails(session: &Session, path: &Path, layer: &str, rules: Value) {
    let nodes: Value = session
        .execute("query-named-block-nodes", &())
        .await
        .unwrap()
        .parse()
        .unwrap();
    let ours = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["drv"] == "qcow2")
        .unwrap();
    let file = json!({ "driver": "file", "filename": path, "locking": "off" });
    let mut layered = json!({ "driver": "blkdebug", "node-name": layer, "image": file });
    layered
        .as_object_mut()
        .unwrap()
        .extend(rules.as_object().unwrap().clone());
    session.execute("blockdev-add", &layered).await.unwrap();
    let cache = json!({ "no-flush": false });
    let image = json!({ "driver": "qcow2", "node-name": ours["node-name"], "backing": null, "cache": cache, "file": layer });
    session
        .execute("blockdev-reopen", &json!({ "options": [image] }))
        .await
        .unwrap();
}

/// The disk is full at the data write of this number, counted from 1, and has room again
/// afterwards.
fn at_write(number: usize) -> Value {
    let counted: Vec<_> = (1..number)
        .map(|n| json!({ "event": "write_aio", "state": n, "new_state": n + 1 }))
        .collect();
    let full = json!({ "event": "write_aio", "state": number, "iotype": "write", "errno": 28, "once": true });
    match number {
        // QEMU knows no empty list here.
        1 => json!({ "inject-error": [full] }),
        _ => json!({ "set-state": counted, "inject-error": [full] }),
    }
}

#[tokio::test]
async fn no_space_left_at_any_write_of_a_save() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshots.qcow2");
    let config = config("tick").snapshot_file(&path);
    let session = Session::start(config.clone()).await.unwrap();
    session.pause().await.unwrap();
    session.save_snapshot("first").await.unwrap();
    let first = counter(&session).await;
    session.resume().await.unwrap();
    let mut failed = 0;
    for number in 1.. {
        let layer = format!("full{number}");
        fails(&session, &path, &layer, at_write(number)).await;
        // At last it has fewer writes.
        if !overwriting_fails(&session, first).await {
            break;
        }
        failed += 1;
        session.resume().await.unwrap();
    }
    assert!(failed > 1, "{failed} saves failed");

    // Nothing at all can be written any more: a load needs that too, and the guest runs on.
    let full = json!({ "event": "none", "iotype": "write", "errno": 28 });
    fails(&session, &path, "full", json!({ "inject-error": [full] })).await;
    for error in [
        session.save_snapshot("second").await,
        session.load_snapshot("first").await,
    ] {
        assert!(matches!(error, Err(SnapshotError::Job { .. })), "{error:?}");
        assert!(counts(&session).await, "the guest goes on");
        check_put_back(&session).await;
    }
    session.stop().await.unwrap();
    // With room again all is well.
    let session = Session::start(config).await.unwrap();
    session.load_snapshot("first").await.unwrap();
    session.save_snapshot("second").await.unwrap();
    assert!(counts(&session).await);
}
