//! The machine and its monitor: CPUs, character devices, and commands for people.

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use crate::raw::RawJson;

command! {
    /// `query-cpus-fast`: the guest's CPUs.
    QueryCpusFast = "query-cpus-fast" -> Vec<CpuInfoFast>;
    /// `query-chardev`: the character devices, serial ports and debugger stubs among them.
    QueryChardev = "query-chardev" -> Vec<ChardevInfo>;
    /// `query-commands`: the names of all commands.
    QueryCommands = "query-commands" -> Vec<CommandInfo>;
    /// `query-qmp-schema`: all commands, events and types of this QEMU. About 0.2 MB, as raw
    /// JSON: read it with
    /// [`Schema::read`](crate::Schema::read).
    QueryQmpSchema = "query-qmp-schema" -> RawJson;
}

command_with_arguments! {
    /// `human-monitor-command`: a command for people. Its failure is *inside* the returned text,
    /// which then mostly begins with `Error: `; its lines end in CRLF.
    HumanMonitorCommand = "human-monitor-command" -> String {
        /// The command with its arguments, as typed.
        command_line: &'a str,
        ;
        /// The CPU that it is about, for `info registers` for example; QEMU's default is 0.
        cpu_index: i64,
    }
}

object! {
    /// A CPU.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[serde(rename_all = "kebab-case")]
    pub struct CpuInfoFast {
        /// Its number.
        pub cpu_index: i64,
        /// Its path in the object model.
        pub qom_path: String,
        /// The host thread that runs it.
        pub thread_id: i64,
        /// QEMU's name of the architecture, for example `arm`.
        #[serde(default)]
        pub target: String,
    }
}

object! {
    /// A character device.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[serde(rename_all = "kebab-case")]
    pub struct ChardevInfo {
        /// Its name, for example `serial0` or `gdb`.
        pub label: String,
        /// What it is connected to, for example `disconnected:tcp:127.0.0.1:45277,server=on`.
        pub filename: String,
        /// Whether its user inside QEMU has it open.
        #[serde(default)]
        pub frontend_open: bool,
    }
}

object! {
    /// The name of a command.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct CommandInfo {
        /// Its name.
        pub name: String,
    }
}
