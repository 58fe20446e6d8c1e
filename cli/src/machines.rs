//! `machines`: what the installed QEMU has.

use std::path::Path;

use qemu_controller::qemu_launch::discover::{AskError, Qemu};

use crate::escape;
use crate::failure::chain;
use crate::outcome::OWN_FAILURE;
use crate::reporter::{complain, print};

/// Prints the machines of this QEMU; the exit status.
pub(crate) fn list(program: &Path) -> u8 {
    match table(program) {
        Ok(table) => print(&table, 0),
        Err(error) => complain(&chain(&error), OWN_FAILURE),
    }
}

fn table(program: &Path) -> Result<String, AskError> {
    let qemu = Qemu::find(program)?;
    let version = qemu.version()?;
    let semihosting = match qemu.serves_semihosting() {
        true => "semihosting",
        false => "no semihosting",
    };
    let mut table = format!(
        "{} {}.{}.{}: {semihosting}, firmware by {}\n",
        escape::line(&qemu.path().display().to_string()),
        version.major,
        version.minor,
        version.micro,
        qemu.firmware_option()
    );
    for machine in qemu.machines()? {
        let (name, description) = (
            escape::line(&machine.name),
            escape::line(&machine.description),
        );
        table.push_str(&format!("  {name:<24} {description}\n"));
    }
    Ok(table)
}
