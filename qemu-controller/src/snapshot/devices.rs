//! Devices whose state QEMU does not save, or not whole. Where their registers can be read and
//! written without side effects, they are read before a save and written after a load; the others
//! are named.
//!
//! The tables are what `info qtree` and `-dump-vmstate` of QEMU 7.2.22 and 10.0.2 say of every
//! machine, and what was seen of devices that save only a part.

use std::fmt;
use std::future::Future;
use std::io;

use qmp_proto::commands::{HumanMonitorCommand, QueryStatus};
use tokio::time::timeout;

use super::error::SnapshotError;
use crate::client::qtest::{Qtest, Register};
use crate::client::transaction::{Transaction, UNATTENDED_DEADLINE};
use crate::error::CommandError;

/// QEMU saves nothing of an RX's CPU, which is there where its interrupt controller is.
const RX_INTERRUPTS: &str = "rx-icu";
const RX_CPU: &str = "rx-cpu";

/// What failed, for the error.
const WRITING: &str = "writing the registers of devices";

/// A device that is not after a load as it was when the machine was saved: its registers are those
/// of a reset. It works again when the guest sets it up again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostDevice {
    /// QEMU's name of its type, such as `mcf-uart`.
    pub kind: String,
    /// Where its registers are, if they are anywhere by themselves: a CPU's are not.
    pub address: Option<u64>,
}

impl fmt::Display for LostDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} at {address:#x}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}

/// `mcf-uart at 0xfc060000, mcf-uart at 0xfc064000`.
pub(super) fn listed(devices: &[LostDevice]) -> String {
    let devices: Vec<_> = devices.iter().map(LostDevice::to_string).collect();
    devices.join(", ")
}

/// What the machine has of such devices.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// They are read in this order and written in the reverse one.
    registers: Vec<Register>,
    /// Those that these registers put right.
    mended: Vec<LostDevice>,
    lost: Vec<LostDevice>,
}

impl Devices {
    /// Asks QEMU, once for a machine: it gets no further device of a board's own.
    pub(crate) async fn find(transaction: &Transaction) -> Result<Self, CommandError> {
        let tree = HumanMonitorCommand::new("info qtree");
        let tree = transaction.command(&tree).await?;
        Ok(Self::parse(&tree))
    }

    fn parse(tree: &str) -> Self {
        let mut devices = Self::default();
        for device in tree.split("dev: ").skip(1) {
            devices.add(&Described::parse(device));
        }
        devices
    }

    fn add(&mut self, device: &Described<'_>) {
        let named = LostDevice {
            kind: device.kind.to_owned(),
            address: device.address,
        };
        if device.kind == RX_INTERRUPTS {
            self.lost.push(LostDevice {
                kind: RX_CPU.to_owned(),
                address: None,
            });
        }
        if let Some(registers) = registers(device) {
            self.registers.extend(registers);
            self.mended.push(named);
        } else if is_lost(device.kind) {
            self.lost.push(named);
        }
    }

    /// The registers as they are now: those of a guest that does not run.
    pub(crate) async fn read(
        &self,
        transaction: &Transaction,
        qtest: &Qtest,
    ) -> Result<Vec<u64>, SnapshotError> {
        let read = qtest.read(transaction.runtime(), &self.registers);
        done("reading the registers of devices", transaction, read).await
    }

    /// Writes what [`read`](Self::read) returned into a guest that does not run.
    pub(crate) async fn write(
        &self,
        transaction: &Transaction,
        qtest: &Qtest,
        values: &[u64],
    ) -> Result<(), SnapshotError> {
        if values.len() != self.registers.len() {
            return Err(SnapshotError::Job {
                command: WRITING,
                error: format!(
                    "the machine has {} and not {}",
                    self.registers.len(),
                    values.len()
                ),
            });
        }
        let values = self.registers.iter().copied().zip(values.iter().copied());
        let values: Vec<_> = values.rev().collect();
        let written = qtest.write(transaction.runtime(), &values);
        done(WRITING, transaction, written).await
    }

    /// Whether something can be put right, for which the guest has to be paused.
    pub(crate) fn has_registers(&self) -> bool {
        !self.registers.is_empty()
    }

    /// What a load does not bring back: without the registers' values these devices as well.
    pub(crate) fn lost(&self, has_values: bool) -> Vec<LostDevice> {
        let without = if has_values { &[][..] } else { &self.mended };
        without.iter().chain(&self.lost).cloned().collect()
    }
}

/// The test protocol ends with QEMU, and how that ended, the monitor says.
async fn done<T>(
    what: &'static str,
    transaction: &Transaction,
    exchange: impl Future<Output = io::Result<T>>,
) -> Result<T, SnapshotError> {
    let error = match timeout(UNATTENDED_DEADLINE, exchange).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("QEMU did not answer within {UNATTENDED_DEADLINE:?}"),
    };
    transaction.command(&QueryStatus).await?;
    Err(SnapshotError::Job {
        command: what,
        error,
    })
}

/// A device as `info qtree` describes it.
struct Described<'a> {
    kind: &'a str,
    text: &'a str,
    /// Where its first region of registers is, of those that are mapped by themselves.
    address: Option<u64>,
}

impl<'a> Described<'a> {
    /// From `TYPE, id "…"` on, its properties on the lines that follow.
    fn parse(text: &'a str) -> Self {
        let (kind, _) = text.split_once(',').unwrap_or((text, ""));
        let address = text.lines().find_map(|line| {
            let (address, _) = line.trim().strip_prefix("mmio ")?.split_once('/')?;
            let address = u64::from_str_radix(address, 16).ok();
            // One that is not mapped is at the last address.
            address.filter(|&address| address != u64::MAX)
        });
        Self {
            kind,
            text,
            address,
        }
    }

    /// A property that is a number: `time-base = 32760 (0x7ff8)`.
    fn number(&self, name: &str) -> Option<u64> {
        let line = self.text.lines().find_map(|line| {
            let (key, value) = line.trim().split_once(" = ")?;
            (key == name).then_some(value)
        });
        line?.split_whitespace().next()?.parse().ok()
    }
}

/// Registers by offset and size. What turns the device on is first, so that it is written
/// last; of a pair that an 8-bit CPU reads low byte first and writes high byte first, the low one.
type Layout = &'static [(u64, u8)];

/// Control 1 to 3, baud rate, guard time.
const STM32_USART: Layout = &[(0x0c, 4), (0x10, 4), (0x14, 4), (0x08, 4), (0x18, 4)];

/// Control 2, which has the receiver's switch: QEMU 10.0 asks it whether to take a byte, and saves
/// all registers but that.
const IMX_SERIAL: Layout = &[(0x84, 4)];

const STM32_SYSCFG: Layout = &[
    (0x00, 4),
    (0x04, 4),
    (0x08, 4),
    (0x0c, 4),
    (0x10, 4),
    (0x14, 4),
    (0x20, 4),
];

/// Control B, C, baud rate.
const AVR_USART: Layout = &[(1, 1), (2, 1), (4, 1), (5, 1)];

const AVR_POWER: Layout = &[(0, 1)];

/// The registers to read and write of a device that they put right.
fn registers(device: &Described<'_>) -> Option<Vec<Register>> {
    let layout = match device.kind {
        "riscv.aclint.mtimer" => return mtimer(device),
        "stm32f2xx-usart" => STM32_USART,
        "imx.serial" => IMX_SERIAL,
        "stm32f2xx-syscfg" => STM32_SYSCFG,
        "avr-usart" => AVR_USART,
        "avr-power" => AVR_POWER,
        _ => return None,
    };
    let base = device.address?;
    let register = |&(offset, size): &(u64, u8)| Register {
        address: base + offset,
        size,
    };
    Some(layout.iter().map(register).collect())
}

/// A load resets the timer, whose count is then less by all the time that the guest had run. QEMU
/// sets its alarms anew when they are written.
fn mtimer(device: &Described<'_>) -> Option<Vec<Register>> {
    let base = device.address?;
    let register = |offset: u64| Register {
        address: base + offset,
        size: 8,
    };
    let compare = device.number("timecmp-base")?;
    let harts = device.number("num-harts")?;
    let alarms = (0..harts).map(|hart| register(compare + 8 * hart));
    let count = register(device.number("time-base")?);
    Some(alarms.chain([count]).collect())
}

/// Whether nothing brings a device back.
fn is_lost(kind: &str) -> bool {
    let by_family = ["aspeed.adc-", "aspeed.intc", "xlnx.axi-", "omap"];
    match kind {
        "avr-timer16"
        | "aspeed.i2c.bus"
        | "aspeed.peci"
        | "aspeed.apb2opb"
        | "cfi.pflash02"
        | "imx7.gpr"
        | "imx7.snvs"
        | "mcf-intc"
        | "mcf-uart"
        | "mcf5206-mbar"
        | "mv88w8618_wlan"
        | "next-fb"
        | "onenand"
        | "pxa2xx-pcmcia"
        | "riscv.sifive.e.aon"
        | "riscv.sifive.e.prci"
        | "riscv.sifive.u.otp"
        | "riscv.sifive.u.prci"
        | "sh-serial"
        | "shakti-uart"
        | "sifive.pdma"
        | "sifive.spi"
        | "versatile_i2c"
        | "xlnx.xps-ethernetlite"
        | "xlnx.xps-intc"
        | "xlnx.xps-timer"
        | "xlnx.xps-uartlite" => true,
        _ => by_family.iter().any(|family| kind.starts_with(family)),
    }
}
