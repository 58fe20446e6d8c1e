//! The disks that belong to the machine's state: those that the guest can write.

use qmp_proto::commands::BlockInfo;

use super::error::SnapshotError;

/// The drivers that hold snapshots, and the filters that pass them to the node below.
const HOLD_SNAPSHOTS: [&str; 5] = ["qcow2", "rbd", "throttle", "copy-on-read", "compress"];

/// The nodes of all writable disks: memory and disks are only of use together.
pub(crate) fn writable(blocks: &[BlockInfo]) -> Result<Vec<String>, SnapshotError> {
    let mut nodes = Vec::new();
    for block in blocks {
        let Some(medium) = block.inserted.as_ref().filter(|medium| !medium.ro) else {
            continue;
        };
        match &medium.node_name {
            Some(node) if HOLD_SNAPSHOTS.contains(&medium.drv.as_str()) => nodes.push(node.clone()),
            _ => {
                let (disk, format) = (name(block), medium.drv.clone());
                return Err(SnapshotError::Disk { disk, format });
            }
        }
    }
    // A node may be the medium of several devices.
    nodes.sort_unstable();
    nodes.dedup();
    Ok(nodes)
}

/// The drives that the guest can write to, by name.
pub(crate) fn writable_names(blocks: &[BlockInfo]) -> Vec<String> {
    let is_written = |block: &&BlockInfo| block.inserted.as_ref().is_some_and(|medium| !medium.ro);
    blocks.iter().filter(is_written).map(name).collect()
}

/// What the user knows the drive by.
fn name(block: &BlockInfo) -> String {
    let node = block
        .inserted
        .as_ref()
        .and_then(|medium| medium.node_name.as_ref());
    let names = [Some(&block.device), node, block.qdev.as_ref()];
    let mut named = names.into_iter().flatten().filter(|name| !name.is_empty());
    named.next().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use qmp_proto::RawJson;
    use serde_json::{Value, json};

    use super::*;

    fn check(blocks: Value) -> Result<Vec<String>, String> {
        let blocks: Vec<BlockInfo> = RawJson::from_value(&blocks).unwrap().parse().unwrap();
        writable(&blocks).map_err(|error| error.to_string())
    }

    fn disk(device: &str, node: &str, drv: &str, ro: bool) -> Value {
        json!({ "device": device, "inserted": { "node-name": node, "drv": drv, "ro": ro } })
    }

    #[test]
    fn all_that_are_writable_and_no_others() {
        let empty = json!({ "device": "cd", "removable": true });
        let twice = [
            disk("a", "n2", "qcow2", false),
            disk("b", "n2", "qcow2", false),
        ];
        let blocks = [
            &twice[0],
            &empty,
            &disk("c", "n1", "raw", true),
            &disk("d", "n0", "throttle", false),
        ];
        assert_eq!(check(json!(blocks)).unwrap(), ["n0", "n2"]);
        assert_eq!(check(json!(twice)).unwrap(), ["n2"]);
        assert_eq!(check(json!([])).unwrap(), [""; 0]);
    }

    #[test]
    fn one_that_cannot_is_named() {
        for (device, node, named) in [("hd0", "n", "hd0"), ("", "n", "n")] {
            let text = check(json!([disk(device, node, "raw", false)])).unwrap_err();
            assert!(
                text.starts_with(&format!("the disk {named} is written")) && text.contains("raw"),
                "{text}"
            );
        }
    }
}
