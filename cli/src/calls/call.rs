//! What can be asked: the words, and how they are read from a client's JSON.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Subcommand};
use rmcp::schemars::JsonSchema;
use rmcp::schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::CallError;
use super::place::number;
use crate::test_run;

/// The machine that is meant where none is named.
pub(crate) const MAIN: &str = "main";

/// How long a call that waits for the firmware waits by default, in milliseconds.
const WAIT_MS: u64 = 5000;

/// How much of what the firmware printed is shown by default, in bytes.
const OUTPUT_BYTES: usize = 4096;

/// How long tests are run by default, in milliseconds.
const TESTS_MS: u64 = 30_000;

/// How many lines of the source are shown by default.
const SOURCE_LINES: u32 = 15;

/// How many bytes a watchpoint covers by default: a word.
const WATCHED_BYTES: u32 = 4;

// What a start names; `serve` takes the same. Its texts are shown as those of the calls are.
#[derive(Args, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Start {
    /// The ELF file
    pub(crate) firmware: PathBuf,
    /// QEMU's name of the board [default: the first known one that the firmware fits]
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    pub(crate) machine: Option<String>,
    /// CPU model [default: the board's]
    #[arg(long, value_name = "MODEL")]
    #[serde(default)]
    pub(crate) cpu: Option<String>,
    /// Memory, such as 64K or 16M [default: the board's]
    #[arg(long, value_name = "SIZE")]
    #[serde(default)]
    pub(crate) memory: Option<String>,
    /// The QEMU, such as qemu-system-riscv32 [default: the one that the firmware needs]
    #[arg(long, value_name = "PROGRAM")]
    #[serde(default)]
    pub(crate) qemu: Option<String>,
    /// Virtual time by instructions, 2^SHIFT ns each, for the same run every time: 0 to 10
    #[arg(long, value_name = "SHIFT")]
    #[serde(default)]
    pub(crate) deterministic: Option<u8>,
}

// The texts are shown to people (`ctl --help`) and to agents (the tools' descriptions).
/// A call.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize, Subcommand)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) enum Call {
    /// Start an ELF firmware in QEMU, paused before its first instruction
    Start(Start),
    /// Start a machine that failed again, at the instant of its failure, paused: from a folder that
    /// `qemu-controller run --bundle` wrote
    OpenBundle {
        /// The folder
        folder: PathBuf,
    },
    /// List the tests of a firmware that is built with embedded-test
    ListTests {
        /// The ELF file
        firmware: PathBuf,
        /// Only those whose names have one of these texts in them
        #[serde(default)]
        filters: Vec<String>,
        /// What kind of tests it has [default: what its ELF file shows]
        #[arg(long)]
        #[serde(default)]
        kind: Option<test_run::TestKind>,
    },
    /// Run the tests of a firmware, on machines of their own: those of embedded-test one by one; those
    /// that the firmware runs by itself (defmt-test, Unity, lines `test NAME ... ok`) all of them, with
    /// those shown that are wanted
    RunTests {
        /// The ELF file
        firmware: PathBuf,
        /// Only those whose names have one of these texts in them
        #[serde(default)]
        filters: Vec<String>,
        /// What kind of tests it has [default: what its ELF file shows]
        #[arg(long)]
        #[serde(default)]
        kind: Option<test_run::TestKind>,
        /// QEMU's name of the board [default: the first known one that the firmware fits]
        #[arg(long)]
        #[serde(default)]
        machine: Option<String>,
        /// Stop after so many milliseconds, with those that were not run by then named; 60000 at the
        /// most
        #[arg(long, default_value_t = TESTS_MS)]
        #[serde(default = "tests_ms")]
        deadline_ms: u64,
    },
    /// List the machines that were started or forked
    List {},
    /// Tell whether the guest runs, is paused or has ended, and how; changes nothing
    Status {},
    /// Pause the guest
    Pause {},
    /// Let the guest run, and return at once; run_until runs it to a place
    Resume {},
    /// Reset the machine; a paused guest then waits at its reset vector
    Reset {},
    /// Run the guest until the first of these, or the deadline, and pause it there
    RunUntil {
        /// Breakpoints: symbols (also NAME+0x10) or addresses (0x...)
        #[arg(long)]
        #[serde(default)]
        reaches: Vec<String>,
        /// Watchpoints: symbols or addresses that are written
        #[arg(long)]
        #[serde(default)]
        writes: Vec<String>,
        /// Watchpoints: symbols or addresses that are read
        #[arg(long)]
        #[serde(default)]
        reads: Vec<String>,
        /// How many bytes each watchpoint covers
        #[arg(long, default_value_t = WATCHED_BYTES)]
        #[serde(default = "watched_bytes")]
        bytes: u32,
        /// Until the guest takes a fault, before the handler's first instruction. On RISC-V and the A
        /// profile the firmware has to have set its handlers before: run it to `main` first
        #[arg(long)]
        #[serde(default)]
        faults: bool,
        /// Until a Rust panic, a failed assertion of C or abort
        #[arg(long)]
        #[serde(default)]
        panics: bool,
        /// Pass over so many hits of each first
        #[arg(long, default_value_t = 0)]
        #[serde(default)]
        skip: u64,
        /// Pause it at the latest after so many milliseconds; 60000 at the most
        #[arg(long, default_value_t = WAIT_MS)]
        #[serde(default = "wait_ms")]
        deadline_ms: u64,
    },
    /// Execute one instruction, or several
    StepInstruction {
        /// How many; 1000 at the most
        #[arg(long, default_value_t = 1)]
        #[serde(default = "one")]
        count: u32,
    },
    /// Execute one instruction; a call is run until it returns
    StepOver {
        /// Give the call so many milliseconds; 60000 at the most
        #[arg(long, default_value_t = WAIT_MS)]
        #[serde(default = "wait_ms")]
        deadline_ms: u64,
    },
    /// Run until the function returns that the guest has just entered (after run_until reaches it)
    Finish {
        /// Give it so many milliseconds; 60000 at the most
        #[arg(long, default_value_t = WAIT_MS)]
        #[serde(default = "wait_ms")]
        deadline_ms: u64,
    },
    /// Read registers of a paused guest
    ReadRegisters {
        /// Which, system registers too [default: all general ones]
        #[serde(default)]
        names: Vec<String>,
    },
    /// Set a register of a paused guest
    WriteRegister {
        /// Its name
        name: String,
        /// A number, decimal or 0x...
        value: String,
    },
    /// Read memory; the guest may run. A device may take a read for a request
    ReadMemory {
        /// A symbol (also NAME+0x10) or an address (0x...)
        at: String,
        /// How many bytes; 4096 at the most
        length: u64,
        /// As this core sees it, by its number [default: the one that the other calls look at, of a
        /// paused guest, else 0]
        #[arg(long)]
        #[serde(default)]
        core: Option<usize>,
    },
    /// Write memory of a paused guest, flash too
    WriteMemory {
        /// A symbol (also NAME+0x10) or an address (0x...)
        at: String,
        /// The bytes in hexadecimal digits, in the order of their addresses; 4096 at the most
        hex: String,
    },
    /// The frames of a paused guest, innermost first; what was guessed says so
    Backtrace {},
    /// Of each core of a paused guest: where it is, why it faulted if it did, and its stack
    CoreReports {},
    /// Make a core of a paused guest the one that the other calls look at and step, until it runs
    SelectCore {
        /// Its number, from 0 on, as core_reports has it
        core: usize,
    },
    /// Save the whole machine under a name, to come back to; it is gone with the machine
    SaveSnapshot {
        /// 1 to 64 of A-Z a-z 0-9 . _ : -
        name: String,
        /// Replace one of this name
        #[arg(long)]
        #[serde(default)]
        overwrite: bool,
    },
    /// Bring a saved machine back; a guest that is paused stays paused
    LoadSnapshot {
        /// Its name
        name: String,
    },
    /// List the snapshots
    ListSnapshots {},
    /// Delete a snapshot
    DeleteSnapshot {
        /// Its name
        name: String,
    },
    /// Start a second machine that continues from where this one is; both are independent then
    Fork {
        /// The new machine's name, for `on`
        name: String,
    },
    /// What the firmware has printed
    Output {
        /// From this byte on, counted from the start [default: the last ones]
        #[arg(long)]
        #[serde(default)]
        from: Option<u64>,
        /// How many bytes; 16384 at the most
        #[arg(long, default_value_t = OUTPUT_BYTES)]
        #[serde(default = "output_bytes")]
        length: usize,
    },
    /// Wait until the firmware has printed a text, after the one that was expected last
    Expect {
        /// The text
        text: String,
        /// Wait so many milliseconds; 60000 at the most
        #[arg(long, default_value_t = WAIT_MS)]
        #[serde(default = "wait_ms")]
        deadline_ms: u64,
    },
    /// Send text to the firmware's first serial port
    Send {
        /// The text; a line end is sent only where it has one
        text: String,
    },
    /// Look symbols up, by a part of their names or by an address that they cover
    Symbols {
        /// A part of the name, or an address (0x...)
        wanted: String,
    },
    /// Lines of the source around a place: of files that the firmware's debug information names
    SourceLines {
        /// FILE:LINE as a backtrace has it, a symbol or an address (0x...)
        at: String,
        /// How many; 200 at the most
        #[arg(long, default_value_t = SOURCE_LINES)]
        #[serde(default = "source_lines")]
        lines: u32,
    },
    /// End a machine; nothing is left of it
    Stop {},
}

fn wait_ms() -> u64 {
    WAIT_MS
}

fn tests_ms() -> u64 {
    TESTS_MS
}

fn source_lines() -> u32 {
    SOURCE_LINES
}

fn watched_bytes() -> u32 {
    WATCHED_BYTES
}

fn output_bytes() -> usize {
    OUTPUT_BYTES
}

fn one() -> u32 {
    1
}

/// A call, and the machine that it is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) on: String,
    pub(crate) call: Call,
}

impl Request {
    /// For the machine that is meant where none is named.
    pub(crate) fn main(call: Call) -> Self {
        let on = MAIN.to_owned();
        Self { on, call }
    }

    /// Reads `{"call": NAME, "on": MACHINE, …}`.
    pub(crate) fn from_json(mut object: Map<String, Value>) -> Result<Self, CallError> {
        let on = match object.remove("on") {
            None | Some(Value::Null) => MAIN.to_owned(),
            Some(Value::String(on)) => on,
            Some(_) => return Err(CallError::invalid("`on` is a machine's name")),
        };
        // As `on`: some clients name all that there could be.
        object.retain(|_, value| !value.is_null());
        let called = object.get("call").and_then(Value::as_str);
        let mut calls = Call::described().iter();
        if let Some(call) = calls.find(|call| called == Some(&call.name)) {
            let properties = &call.schema["properties"];
            // A number has lost the zeros that bytes and texts may begin with.
            let others = object.iter_mut();
            for (name, value) in others.filter(|(name, _)| !matches!(&***name, "hex" | "text")) {
                let given = value.take();
                *value = fitted(given, &properties[name]);
            }
        }
        let call = serde_json::from_value(Value::Object(object))
            .map_err(|error| CallError::invalid(error.to_string()))?;
        Ok(Self { on, call })
    }
}

/// A value as its schema wants it, where it is written otherwise: models write numbers as texts and
/// one text in place of a list, and some clients write texts as numbers, or numbers as 4.0.
fn fitted(value: Value, schema: &Value) -> Value {
    let is = |kind: &str| match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    };
    match value {
        Value::Number(digits) if is("integer") => {
            let text = digits.to_string();
            let whole = text.strip_suffix(".0").and_then(|whole| whole.parse().ok());
            whole.map_or(Value::Number(digits), |whole: u64| whole.into())
        }
        Value::Number(digits) if is("string") => digits.to_string().into(),
        Value::String(text) if is("integer") => match number(&text) {
            Ok(number) => number.into(),
            Err(_) => text.into(),
        },
        Value::String(text) if is("boolean") => match text.parse::<bool>() {
            Ok(is_so) => is_so.into(),
            Err(_) => text.into(),
        },
        Value::String(text) if is("array") => match serde_json::from_str(&text) {
            Ok(all @ Value::Array(_)) => fitted(all, schema),
            _ => json!([text]),
        },
        Value::Array(all) if is("array") => {
            let all = all.into_iter();
            all.map(|one| fitted(one, &schema["items"])).collect()
        }
        other => other,
    }
}

/// A call's name, description, and the schema of its arguments.
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) schema: Map<String, Value>,
}

impl Call {
    /// All calls, in their order here.
    pub(crate) fn described() -> &'static [Described] {
        static ALL: LazyLock<Vec<Described>> = LazyLock::new(Call::describe);
        &ALL
    }

    fn describe() -> Vec<Described> {
        // A schema stands alone: there is nothing beside it that a reference could name.
        let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
        let whole = settings.into_generator().into_root_schema_for::<Self>();
        let whole = whole.to_value();
        let calls = whole["oneOf"].as_array().cloned().unwrap_or_default();
        calls.into_iter().filter_map(described).collect()
    }

    /// The path that it names, if it names one.
    pub(crate) fn path(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Start(Start { firmware, .. })
            | Self::ListTests { firmware, .. }
            | Self::RunTests { firmware, .. } => Some(firmware),
            Self::OpenBundle { folder } => Some(folder),
            _ => None,
        }
    }

    /// The guest and the machine are the same afterwards.
    pub(crate) fn only_reads(name: &str) -> bool {
        matches!(
            name,
            "list"
                | "status"
                | "read_registers"
                | "read_memory"
                | "backtrace"
                | "core_reports"
                | "list_snapshots"
                | "output"
                | "symbols"
                | "source_lines"
                | "list_tests"
        )
    }
}

/// One branch of the enum's schema as an object of its arguments.
fn described(mut branch: Value) -> Option<Described> {
    let schema = branch.as_object_mut()?;
    let description = schema.remove("description")?.as_str()?.to_owned();
    let properties = schema.get_mut("properties")?.as_object_mut()?;
    let name = properties.remove("call")?["const"].as_str()?.to_owned();
    if !matches!(&*name, "list" | "list_tests" | "run_tests") {
        let on = json!({
            "type": "string",
            "default": MAIN,
            "description": "the machine's name; a new one's for start",
        });
        properties.insert("on".to_owned(), on);
    }
    let required = schema.get_mut("required")?.as_array_mut()?;
    required.retain(|name| name != "call");
    schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    let schema = schema.clone();
    Some(Described {
        name,
        description,
        schema,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::CallErrorKind;

    #[derive(clap::Parser)]
    struct Words {
        #[command(subcommand)]
        call: Call,
    }

    #[test]
    fn each_call_has_the_same_name_for_people_and_for_programs() {
        let command = <Words as clap::CommandFactory>::command();
        let words = command.get_subcommands();
        let words: Vec<_> = words
            .map(|call| call.get_name().replace('-', "_"))
            .collect();
        let described = Call::described();
        let names: Vec<_> = described.iter().map(|call| call.name.clone()).collect();
        assert_eq!(names, words);
        assert!(names.len() > 20, "{names:?}");
        for call in described {
            assert_eq!(call.schema["type"], "object", "{}", call.name);
            let text = json!(call.schema).to_string();
            assert!(!text.contains("$ref"), "{}: {text}", call.name);
            assert!(!call.description.is_empty(), "{}", call.name);
        }
    }

    #[test]
    fn what_is_not_of_a_call_is_refused() {
        let read = |text: &str| Request::from_json(serde_json::from_str(text).unwrap());
        let request = read(r#"{"call": "read_memory", "at": "counter", "length": 4, "on": "b"}"#);
        let call = Call::ReadMemory {
            at: "counter".to_owned(),
            length: 4,
            core: None,
        };
        let on = "b".to_owned();
        assert_eq!(request.unwrap(), Request { on, call });
        let absent = read(r#"{"call": "read_registers", "names": null}"#).unwrap();
        assert_eq!(absent.call, Call::ReadRegisters { names: Vec::new() });
        for (written, meant) in [
            (
                r#"{"call": "read_memory", "at": 4096, "length": "0x10", "core": "1"}"#,
                r#"{"call": "read_memory", "at": "4096", "length": 16, "core": 1}"#,
            ),
            (
                r#"{"call": "run_until", "reaches": "main", "writes": "[\"a\", 16]", "bytes": 4.0, "faults": "true"}"#,
                r#"{"call": "run_until", "reaches": ["main"], "writes": ["a", "16"], "bytes": 4, "faults": true}"#,
            ),
            (
                r#"{"call": "write_register", "name": "r0", "value": 18446744073709551615}"#,
                r#"{"call": "write_register", "name": "r0", "value": "18446744073709551615"}"#,
            ),
        ] {
            assert_eq!(read(written).unwrap(), read(meant).unwrap(), "{written}");
        }
        for text in [
            r#"{"call": "step_instruction", "count": "many"}"#,
            r#"{"call": "step_instruction", "count": 1.5}"#,
            r#"{"call": "run_until", "faults": "perhaps"}"#,
            r#"{"call": "write_memory", "at": "4096", "hex": 12}"#,
            r#"{"call": "send", "text": 7}"#,
            r#"{"call": "status", "more": 1}"#,
            r#"{"call": "read_memory", "at": null, "length": 4}"#,
            r#"{"call": "read_memory", "at": "counter"}"#,
            r#"{"call": "read_memory", "at": "counter", "length": -1}"#,
            r#"{"call": "human_monitor_command", "line": "quit"}"#,
            r#"{"call": "status", "on": 1}"#,
            r#"{}"#,
        ] {
            assert_eq!(
                read(text).unwrap_err().kind,
                CallErrorKind::Invalid,
                "{text}"
            );
        }
    }
}
