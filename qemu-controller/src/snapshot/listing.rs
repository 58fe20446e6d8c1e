//! Which snapshots there are, and what a save or a load checks before it changes anything.
//!
//! ```text
//!   the name is in the session's own record ─▶ act at once ─▶ failed? check, to name the reason
//!   any other                               ─▶ check ─▶ act
//! ```
//!
//! QEMU takes 4 µs for each byte of a command, so a check is a large part of a restore.

use qmp_proto::commands::{BlockDeviceInfo, BlockInfo, QueryBlock, RunState, SnapshotInfo};

use super::error::SnapshotError;
use super::name::Tag;
use super::store::Store;
use super::{disks, image, sd_card};
use crate::client::transaction::Transaction;
use crate::error::CommandError;

/// A snapshot in the image.
#[derive(Clone, Debug)]
pub(super) struct SnapshotEntry {
    /// Its tag as it is in the image, and parsed.
    pub(super) text: String,
    pub(super) tag: Tag,
}

impl SnapshotEntry {
    pub(super) fn parse(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            tag: Tag::parse(text),
        }
    }
}

/// The snapshots that there are, and the block nodes that take part in them.
#[derive(Clone, Debug)]
pub(super) struct SnapshotListing {
    /// The image's block node, once there is one.
    pub(super) node: Option<String>,
    /// The nodes of the writable disks.
    disks: Vec<String>,
    /// What is in the image. A name that was saved over may be there twice.
    pub(super) entries: Vec<SnapshotEntry>,
    /// What is in other images.
    elsewhere: Vec<Tag>,
}

impl SnapshotListing {
    /// Asks QEMU what there is.
    pub(super) async fn query(
        transaction: &Transaction,
        store: &Store,
    ) -> Result<Self, SnapshotError> {
        let node = store.node(transaction).await?;
        let (blocks, nodes) =
            tokio::join!(biased; transaction.command(&QueryBlock), image::nodes(transaction));
        Self::new(node, &blocks?, &nodes?)
    }

    /// From the answers to `query-block` and `query-named-block-nodes`.
    fn new(
        node: Option<String>,
        blocks: &[BlockInfo],
        nodes: &[BlockDeviceInfo],
    ) -> Result<Self, SnapshotError> {
        let (mut entries, mut elsewhere) = (Vec::new(), Vec::new());
        for block in nodes {
            let tags = block
                .image
                .iter()
                .flat_map(|image| &image.snapshots)
                .map(|info| &info.name);
            if node.is_some() && block.node_name == node {
                entries.extend(tags.map(|tag| SnapshotEntry::parse(tag)));
            } else {
                elsewhere.extend(tags.map(|tag| Tag::parse(tag)));
            }
        }
        let disks = disks::writable(blocks)?;
        Ok(Self {
            node,
            disks,
            entries,
            elsewhere,
        })
    }

    /// The image's node and the latest snapshot with this name.
    pub(super) fn find(&self, name: &str) -> Result<(&str, &SnapshotEntry), SnapshotError> {
        let latest = self
            .with_name(name)
            .max_by_key(|entry| entry.tag.generation);
        self.node
            .as_deref()
            .zip(latest)
            .ok_or_else(|| self.missing(name))
    }

    /// All in the image that have this name.
    pub(super) fn with_name(&self, name: &str) -> impl Iterator<Item = &SnapshotEntry> {
        self.entries
            .iter()
            .filter(move |entry| entry.tag.name == name)
    }

    /// Whether a save may use this name.
    pub(super) fn check_free(&self, name: &str, overwrite: bool) -> Result<(), SnapshotError> {
        if !overwrite && self.with_name(name).next().is_some() {
            let name = name.to_owned();
            return Err(SnapshotError::Exists { name });
        }
        Ok(())
    }

    /// The generation for the next save under this name. The disks may still have snapshots of
    /// sessions whose own image is gone, and QEMU refuses a tag that any of them has.
    pub(super) fn next_generation(&self, name: &str) -> u64 {
        let tags = self
            .entries
            .iter()
            .map(|entry| &entry.tag)
            .chain(&self.elsewhere);
        let generations = tags
            .filter(|tag| tag.name == name)
            .map(|tag| tag.generation);
        generations.max().unwrap_or_default().saturating_add(1)
    }

    pub(super) fn missing(&self, name: &str) -> SnapshotError {
        let mut available: Vec<String> = Vec::new();
        for entry in &self.entries {
            if !available.contains(&entry.tag.name) {
                available.push(entry.tag.name.clone());
            }
        }
        let name = name.to_owned();
        SnapshotError::Missing { name, available }
    }

    /// All nodes that take part: the image with the machine's state, and the disks.
    pub(super) fn devices<'a>(&'a self, node: &'a str) -> Vec<&'a str> {
        std::iter::once(node)
            .chain(self.disks.iter().map(String::as_str))
            .collect()
    }
}

/// What a save or a load knows before it changes anything.
pub(super) struct Precheck {
    pub(super) run_state: RunState,
    pub(super) listing: SnapshotListing,
    /// The listing is the session's own record; QEMU was not asked.
    from_record: bool,
}

impl Precheck {
    /// Asks QEMU, and records the answer. Opens the user's file if that is there. A medium in the
    /// SD card is refused here: QEMU would abort at the load.
    pub(super) async fn query(
        transaction: &Transaction,
        store: &Store,
    ) -> Result<Self, SnapshotError> {
        let cards = store.cards(transaction).await?;
        let node = store.node(transaction).await?;
        // In one go: a round trip costs as much as most answers.
        let (run_state, blocks, nodes) = tokio::join!(
            biased;
            transaction.run_state(),
            transaction.command(&QueryBlock),
            image::nodes(transaction),
        );
        let (run_state, blocks, nodes) = (run_state?, blocks?, nodes?);
        if let Some(drive) = sd_card::drive_with_medium(cards, &blocks) {
            return Err(SnapshotError::CardWithMedium { drive });
        }
        let listing = SnapshotListing::new(node, &blocks, &nodes)?;
        store.set_record(&listing, !blocks.is_empty());
        Ok(Self {
            run_state,
            listing,
            from_record: false,
        })
    }

    /// Takes the session's own record. Of a guest that a debugger has stopped, events tell enough.
    pub(super) async fn from_record(
        transaction: &Transaction,
        listing: SnapshotListing,
        is_stopped: bool,
    ) -> Result<Self, CommandError> {
        Ok(Self {
            run_state: match is_stopped {
                true => transaction.known_run_state(),
                false => transaction.run_state().await?,
            },
            listing,
            from_record: true,
        })
    }

    /// The error to report where the work on this failed. Someone else may have changed the image
    /// behind the record, so `still_possible` is asked again for what there is now.
    pub(super) async fn explain(
        &self,
        error: SnapshotError,
        transaction: &Transaction,
        store: &Store,
        still_possible: impl FnOnce(&SnapshotListing) -> Result<(), SnapshotError>,
    ) -> SnapshotError {
        let is_job = matches!(error, SnapshotError::Job { .. });
        if is_job || matches!(error, SnapshotError::Command(_)) {
            store.forget_record();
        }
        if !self.from_record || !is_job {
            return error;
        }
        match Self::query(transaction, store).await {
            Ok(now) => still_possible(&now.listing).err().unwrap_or(error),
            Err(reason) => reason,
        }
    }
}

/// What is in the image of this node, as QEMU lists it.
pub(super) async fn snapshots(
    transaction: &Transaction,
    node: &str,
) -> Result<Vec<SnapshotInfo>, CommandError> {
    let nodes = image::nodes(transaction).await?;
    let block = nodes
        .into_iter()
        .find(|block| block.node_name.as_deref() == Some(node));
    Ok(block
        .and_then(|block| block.image)
        .map(|image| image.snapshots)
        .unwrap_or_default())
}
