//! What a save or a load has to know beforehand, and how far it need not be asked again.
//!
//! Each byte that QEMU reads costs 4 µs, so a question is a large part of a restore. Where the
//! session alone can change what there is, it remembers what it has done; anything else that may
//! have ([`BlockChanges`]) makes it ask. If something forbids or fails what was begun by memory, it
//! asks as well, and tries once more if there is a difference.
//!
//! [`BlockChanges`]: crate::block_changes::BlockChanges

use qmp_proto::commands::{BlockDeviceInfo, QueryBlock, RunState};

use super::error::SnapshotError;
use super::name::Tag;
use super::store::{self, Store};
use super::{disks, sd_card};
use crate::client::transaction::Transaction;

/// A snapshot in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Its tag as it stands in the image, and as it is read.
    pub(crate) text: String,
    pub(crate) tag: Tag,
}

impl Saved {
    pub(crate) fn read(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            tag: Tag::read(text),
        }
    }
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The image's block node, where there is one yet.
    pub(crate) node: Option<String>,
    /// The nodes of the writable disks.
    pub(crate) disks: Vec<String>,
    /// What is in the image, as it is: a name that was saved over may be there twice.
    pub(crate) saved: Vec<Saved>,
    /// What is in the others.
    elsewhere: Vec<Tag>,
}

pub(crate) struct Seen {
    /// What the guest did before.
    pub(crate) before: RunState,
    pub(crate) listed: Listed,
    /// Not asked for, but remembered.
    remembered: bool,
}

impl Seen {
    /// Looks for a save or a load, and changes nothing but that a file of the user's is opened.
    pub(crate) async fn look(
        operation: &Transaction,
        store: &Store,
    ) -> Result<Self, SnapshotError> {
        match store.remembered(operation) {
            Some(listed) => Ok(Self {
                before: operation.run_state().await?,
                listed,
                remembered: true,
            }),
            None => Self::ask(operation, store, true).await,
        }
    }

    /// Looks for a deletion, which nothing forbids that forbids a load, and which goes by what
    /// there is.
    pub(crate) async fn look_to_delete(
        operation: &Transaction,
        store: &Store,
    ) -> Result<Self, SnapshotError> {
        Self::ask(operation, store, false).await
    }

    /// Without what is remembered. With a medium in the SD card QEMU would abort at the load.
    async fn ask(
        operation: &Transaction,
        store: &Store,
        to_restore: bool,
    ) -> Result<Self, SnapshotError> {
        let cards = store.cards(operation).await?;
        let as_of = operation.blocks().count();
        // In one go: a round trip costs as much as most answers.
        let (before, blocks, nodes) = tokio::join!(
            biased;
            operation.run_state(),
            operation.command(&QueryBlock),
            store::nodes(operation),
        );
        let (before, blocks, mut nodes) = (before?, blocks?, nodes?);
        if to_restore && let Some(drive) = sd_card::medium_among(cards, &blocks) {
            return Err(SnapshotError::CardWithMedium { drive });
        }
        let disks = disks::writable(&blocks)?;
        let node = store.node(operation).await?;
        if node.is_some() && !nodes.iter().any(|block| block.node_name == node) {
            // It was opened only now.
            nodes = store::nodes(operation).await?;
        }
        let (saved, elsewhere) = tags(&nodes, node.as_deref());
        let listed = Listed {
            node,
            disks,
            saved,
            elsewhere,
        };
        // A machine without a drive has none tomorrow; one with a drive may have another medium in
        // it.
        if blocks.is_empty() && listed.node.is_some() {
            store.remember(as_of, listed.clone());
        }
        Ok(Self {
            before,
            listed,
            remembered: false,
        })
    }

    /// After a failure: what there is now, if that is not what was remembered.
    pub(crate) async fn anew(
        &self,
        error: &SnapshotError,
        operation: &Transaction,
        store: &Store,
    ) -> Result<Option<Self>, SnapshotError> {
        use SnapshotError::{Exists, Job, Misfit, Missing, UnknownOrigin};
        match error {
            Exists { .. } | Missing { .. } | Misfit { .. } | UnknownOrigin { .. } => {}
            Job { .. } => store.forget(),
            _ => {
                store.forget();
                return Ok(None);
            }
        }
        if !self.remembered {
            return Ok(None);
        }
        let now = Self::ask(operation, store, true).await?;
        Ok((now.listed != self.listed).then_some(now))
    }
}

impl Listed {
    /// The one that counts of those with this name.
    pub(crate) fn latest(&self, name: &str) -> Option<&Saved> {
        self.with_name(name)
            .max_by_key(|saved| saved.tag.generation)
    }

    /// All in the image that have this name.
    pub(crate) fn with_name(&self, name: &str) -> impl Iterator<Item = &Saved> {
        self.saved
            .iter()
            .filter(move |saved| saved.tag.name == name)
    }

    /// The generation for the next with this name. The disks may still have snapshots of sessions
    /// whose own image is gone, and QEMU refuses a tag that any of them has.
    pub(crate) fn next_generation(&self, name: &str) -> u64 {
        let tags = self
            .saved
            .iter()
            .map(|saved| &saved.tag)
            .chain(&self.elsewhere);
        let highest = tags
            .filter(|tag| tag.name == name)
            .map(|tag| tag.generation)
            .max();
        highest.unwrap_or_default().saturating_add(1)
    }

    pub(crate) fn missing(&self, name: &str) -> SnapshotError {
        let mut available: Vec<String> = Vec::new();
        for saved in &self.saved {
            if !available.contains(&saved.tag.name) {
                available.push(saved.tag.name.clone());
            }
        }
        SnapshotError::Missing {
            name: name.to_owned(),
            available,
        }
    }

    /// All nodes that take part: the image with the machine's state, and the disks.
    pub(crate) fn devices<'a>(&'a self, node: &'a str) -> Vec<&'a str> {
        std::iter::once(node)
            .chain(self.disks.iter().map(String::as_str))
            .collect()
    }
}

/// The snapshots in this node's image, and in all others.
fn tags(nodes: &[BlockDeviceInfo], node: Option<&str>) -> (Vec<Saved>, Vec<Tag>) {
    let (mut saved, mut elsewhere) = (Vec::new(), Vec::new());
    for block in nodes {
        let snapshots = block.image.iter().flat_map(|image| &image.snapshots);
        match node.is_some() && block.node_name.as_deref() == node {
            true => saved.extend(snapshots.map(|info| Saved::read(&info.name))),
            false => elsewhere.extend(snapshots.map(|info| Tag::read(&info.name))),
        }
    }
    (saved, elsewhere)
}
