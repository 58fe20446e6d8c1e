//! Typed commands that `qmp-proto` does not have yet.
use qmp_proto::Command;
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
pub(crate) struct QueryChardev;
#[derive(Deserialize)]
pub(crate) struct ChardevInfo {
    pub(crate) label: String,
    pub(crate) filename: String,
}
impl Command for QueryChardev {
    const NAME: &'static str = "query-chardev";
    type Return = Vec<ChardevInfo>;
}
#[derive(Serialize)]
pub(crate) struct QueryCpusFast;
#[derive(Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub struct CpuInfoFast {
    pub cpu_index: i64,
    pub qom_path: String,
    pub thread_id: i64,
}
impl Command for QueryCpusFast {
    const NAME: &'static str = "query-cpus-fast";
    type Return = Vec<CpuInfoFast>;
}
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct HumanMonitorCommand {
    command_line: String,
}
impl HumanMonitorCommand {
    pub(crate) fn new(s: &str) -> Self {
        Self {
            command_line: s.into(),
        }
    }
}
impl Command for HumanMonitorCommand {
    const NAME: &'static str = "human-monitor-command";
    type Return = String;
}
