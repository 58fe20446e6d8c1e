//! The SD card on an SPI bus, which QEMU cannot restore: taken out for the moment in which the
//! machine's state is saved.
//!
//! Restoring a state with such a card in it *aborts* QEMU (`sd_ocr_powerup: Assertion …
//! CARD_POWER_UP`; 7.2 and 10.0). A card without a medium has nothing worth saving, and the guest
//! sees no difference while it is out. One with a medium has, so then the save is refused.

use qmp_proto::Command;
use qmp_proto::commands::{BlockInfo, QomGet, QomList, QomSet};

use super::error::SnapshotError;
use super::job;
use crate::client::transaction::Transaction;
use crate::error::CommandError;

/// Where the object model has devices that a board makes or a user adds. Parts of another device
/// are elsewhere, and a card never is one.
const CONTAINERS: [&str; 3] = [
    "/machine/unattached",
    "/machine/peripheral",
    "/machine/peripheral-anon",
];

/// An SD card on an SPI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SdCard {
    /// Its path in the object model.
    path: String,
    /// The drive that holds its medium. A card without a drive never gets a medium.
    drive: Option<String>,
}

impl SdCard {
    /// What is in the card, by the name of the drive, if anything is.
    fn medium(&self, blocks: &[BlockInfo]) -> Option<&str> {
        let drive = self.drive.as_deref()?;
        let block = blocks
            .iter()
            .find(|block| block.qdev.as_deref() == Some(&self.path) || block.device == drive);
        // A drive that QEMU does not list is taken to hold one: an abort is worse than a refusal.
        block
            .is_none_or(|block| block.inserted.is_some())
            .then_some(drive)
    }

    async fn plug(&self, transaction: &Transaction, realized: bool) -> Result<(), CommandError> {
        let plug = QomSet::new(&self.path, "realized", realized);
        transaction.command(&plug).await.map(drop)
    }
}

/// The machine's SD cards on an SPI bus: objects of the type `sd-card-spi`, or before QEMU 9.1
/// `sd-card` with the property `spi`.
pub(crate) async fn find(transaction: &Transaction) -> Result<Vec<SdCard>, CommandError> {
    let mut cards = Vec::new();
    for container in CONTAINERS {
        for object in transaction.command(&QomList::new(container)).await? {
            let path = || format!("{container}/{}", object.name);
            let on_spi = match object.kind.as_str() {
                "child<sd-card-spi>" => true,
                "child<sd-card>" => is_true(transaction, &path()).await?,
                _ => false,
            };
            if on_spi {
                cards.push(SdCard {
                    drive: drive(transaction, &path()).await?,
                    path: path(),
                });
            }
        }
    }
    Ok(cards)
}

/// The drive of the first card with a medium, by an answer to `query-block`. Such a card forbids a
/// save and a load.
pub(crate) fn drive_with_medium(cards: &[SdCard], blocks: &[BlockInfo]) -> Option<String> {
    let drive = cards.iter().find_map(|card| card.medium(blocks));
    drive.map(str::to_owned)
}

/// Runs a job while the cards, which have no medium, are out, and puts them back however it ends.
/// Part of a [`Transaction`], which is finished though its caller has gone. Returns what
/// [`Concluded::end`](job::Concluded::end) returns.
pub(crate) async fn job_without<C: Command>(
    transaction: &Transaction,
    cards: &[SdCard],
    id: &str,
    command: &C,
) -> Result<bool, SnapshotError> {
    let (mut out, mut taken_out) = (Vec::new(), Ok(()));
    for card in cards {
        match card.plug(transaction, false).await {
            Ok(()) => out.push(card),
            Err(error) => taken_out = Err(error),
        }
    }
    let concluded = match taken_out {
        Ok(()) => job::until_concluded(transaction, id, command).await,
        Err(error) => Err(error),
    };
    let end = async { concluded?.end(transaction).await };
    let put_back = async {
        let mut put_back = Ok(());
        for card in out {
            put_back = put_back.and(card.plug(transaction, true).await);
        }
        put_back
    };
    // In one go.
    let (ended, put_back) = tokio::join!(biased; end, put_back);
    let resumed = ended?;
    put_back?;
    Ok(resumed)
}

/// Before `sd-card-spi` was a type of its own, a property said so. A card without the property is
/// on another bus.
async fn is_true(transaction: &Transaction, path: &str) -> Result<bool, CommandError> {
    match transaction.command(&QomGet::new(path, "spi")).await {
        Ok(value) => Ok(value.as_str() == "true"),
        Err(CommandError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn drive(transaction: &Transaction, path: &str) -> Result<Option<String>, CommandError> {
    let name = transaction.command(&QomGet::new(path, "drive")).await?;
    Ok(name.parse().ok().filter(|name: &String| !name.is_empty()))
}
