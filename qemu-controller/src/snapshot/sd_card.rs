//! The SD card on an SPI bus, which QEMU cannot restore: taken out for the moment in which the machine's state
//! is saved.
//!
//! Restoring a state with such a card in it *aborts* QEMU (`sd_ocr_powerup: Assertion … CARD_POWER_UP`; 7.2 and
//! 10.0). A card without a medium has nothing worth saving, and the guest sees no difference while it is out. One
//! with a medium has, so then the save is refused.

use std::future::Future;

use qmp_proto::commands::{BlockInfo, QomGet, QomList, QomSet, QueryBlock};

use crate::error::CommandError;
use crate::operation::Operation;

/// Where devices are that a board makes or a user adds; those that are part of another device are elsewhere,
/// and a card never is.
const CONTAINERS: [&str; 3] = ["/machine/unattached", "/machine/peripheral", "/machine/peripheral-anon"];

/// An SD card on an SPI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SdCard {
    /// Its path in the object model.
    path: String,
    /// The drive that holds its medium; none is ever put into a card without one.
    drive: Option<String>,
}

impl SdCard {
    /// What is in the card, by the name of the drive, if anything is.
    fn medium(&self, blocks: &[BlockInfo]) -> Option<&str> {
        let drive = self.drive.as_deref()?;
        let block =
            blocks.iter().find(|block| block.qdev.as_deref() == Some(&self.path) || block.device == drive);
        // A drive that QEMU does not list is taken to hold one: an abort is worse than a refusal.
        block.is_none_or(|block| block.inserted.is_some()).then_some(drive)
    }

    async fn plug(&self, operation: &Operation, realized: bool) -> Result<(), CommandError> {
        let plug = QomSet { path: &self.path, property: "realized", value: realized };
        operation.command(&plug).await.map(drop)
    }
}

/// The machine's SD cards on an SPI bus: objects of the type `sd-card-spi`, or before QEMU 9.1 `sd-card` with
/// the property `spi`.
pub(crate) async fn find(operation: &Operation) -> Result<Vec<SdCard>, CommandError> {
    let mut cards = Vec::new();
    for container in CONTAINERS {
        for object in operation.command(&QomList { path: container }).await? {
            let path = || format!("{container}/{}", object.name);
            let on_spi = match object.kind.as_str() {
                "child<sd-card-spi>" => true,
                "child<sd-card>" => is_true(operation, &path()).await?,
                _ => false,
            };
            if on_spi {
                cards.push(SdCard { drive: drive(operation, &path()).await?, path: path() });
            }
        }
    }
    Ok(cards)
}

/// The drive of the first card that has a medium in it, which forbids a save and a load.
#[expect(dead_code, reason = "forks are to use it")]
pub(crate) async fn medium(operation: &Operation, cards: &[SdCard]) -> Result<Option<String>, CommandError> {
    if cards.iter().all(|card| card.drive.is_none()) {
        return Ok(None);
    }
    let blocks = operation.command(&QueryBlock).await?;
    Ok(medium_among(cards, &blocks))
}

/// The drive of the first card that has a medium in it, by an answer to `query-block`: it forbids a save and a load.
pub(crate) fn medium_among(cards: &[SdCard], blocks: &[BlockInfo]) -> Option<String> {
    cards.iter().find_map(|card| card.medium(blocks)).map(str::to_owned)
}

/// Does something while the cards, which have no medium, are out, and puts them back whatever became of it. Part of
/// an [`Operation`], which is finished though its caller has gone.
pub(crate) async fn without<T, E: From<CommandError>>(
    operation: &Operation,
    cards: &[SdCard],
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut out = Vec::new();
    let mut taken_out = Ok(());
    for card in cards {
        match card.plug(operation, false).await {
            Ok(()) => out.push(card),
            Err(error) => taken_out = Err(error),
        }
    }
    let worked = match taken_out {
        Ok(()) => work.await,
        Err(error) => Err(error.into()),
    };
    let mut put_back = Ok(());
    for card in out {
        put_back = put_back.and(card.plug(operation, true).await);
    }
    let worked = worked?;
    put_back?;
    Ok(worked)
}

/// Before `sd-card-spi` was a type of its own, a property told; a card without it is on another bus.
async fn is_true(operation: &Operation, path: &str) -> Result<bool, CommandError> {
    match operation.command(&QomGet { path, property: "spi" }).await {
        Ok(value) => Ok(value.as_str() == "true"),
        Err(CommandError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn drive(operation: &Operation, path: &str) -> Result<Option<String>, CommandError> {
    let name = operation.command(&QomGet { path, property: "drive" }).await?;
    Ok(name.parse().ok().filter(|name: &String| !name.is_empty()))
}
