//! The cores of a machine by name: of clusters, each core's own and its model.

use std::fmt;

use qmp_proto::commands::{QomGet, QueryCpusFast};

use crate::client::Shared;
use crate::client::command::{Deadline, command};
use crate::error::CommandError;
use crate::session::Session;

/// A core of a machine. Displayed as `core 1`, or `core 4 (cortex-r5f, rpu-cluster)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreName {
    /// Its number, from 0 on. In QEMU's stub it is the thread of the next number.
    pub number: usize,
    /// Where it is, on a machine that has clusters of cores.
    pub cluster: Option<ClusterName>,
}

/// A core's place among clusters of cores, which may differ in all: model, memory, devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterName {
    /// The cluster, by QEMU's name of it: `rpu-cluster`.
    pub name: String,
    /// The core's model: `cortex-r5f`.
    pub model: String,
}

impl CoreName {
    pub(crate) fn numbered(number: usize) -> Self {
        Self {
            number,
            cluster: None,
        }
    }

    /// All of a machine, in order.
    pub(crate) async fn all(
        shared: &Shared,
        deadline: impl Into<Deadline>,
    ) -> Result<Vec<Self>, CommandError> {
        let deadline = deadline.into();
        let cpus = command(shared, deadline, &QueryCpusFast).await?;
        let paths: Vec<&str> = cpus.iter().map(|cpu| &*cpu.qom_path).collect();
        let mut names: Vec<_> = (0..cpus.len()).map(Self::numbered).collect();
        let Some(clusters) = clusters(&paths) else {
            return Ok(names);
        };
        for ((core, path), cluster) in names.iter_mut().zip(paths).zip(clusters) {
            core.cluster = Some(ClusterName {
                name: cluster.to_owned(),
                model: cpu_model(&qom_type(shared, deadline, path).await?).to_owned(),
            });
        }
        Ok(names)
    }
}

impl Session {
    /// The machine's cores, in order, by name.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn cores(&self) -> Result<Vec<CoreName>, CommandError> {
        CoreName::all(&self.inner.shared, self.deadline).await
    }
}

impl fmt::Display for CoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}", self.number)?;
        match &self.cluster {
            Some(cluster) => write!(f, " ({}, {})", cluster.model, cluster.name),
            None => Ok(()),
        }
    }
}

/// Of each core's path in the object model (`/machine/soc/rpu-cluster/rpu-cpu[0]`) what holds it
/// and not all cores; nothing where that is no place of the board's.
fn clusters<'a>(paths: &[&'a str]) -> Option<Vec<&'a str>> {
    let split: Vec<Vec<&str>> = paths.iter().map(|path| path.split('/').collect()).collect();
    let first = split.first()?;
    let is_shared = |at: &usize| split.iter().all(|path| path.get(*at) == first.get(*at));
    let shared = (0..first.len()).take_while(is_shared).count();
    let clusters = split.iter().map(|path| match path[shared..] {
        // QEMU's own folders for what has no place.
        ["unattached" | "peripheral" | "peripheral-anon", ..] => None,
        [cluster, _, ..] => Some(cluster),
        _ => None,
    });
    clusters.collect()
}

/// The type of an object of QEMU's, such as `cortex-m3-arm-cpu`.
pub(crate) async fn qom_type(
    shared: &Shared,
    deadline: impl Into<Deadline>,
    path: &str,
) -> Result<String, CommandError> {
    let value = command(shared, deadline, &QomGet::new(path, "type")).await?;
    Ok(value.parse().unwrap_or_default())
}

/// The CPU model of a type such as `cortex-m3-arm-cpu`.
pub(crate) fn cpu_model(qom_type: &str) -> &str {
    let model = qom_type
        .strip_suffix("-cpu")
        .and_then(|rest| rest.rsplit_once('-'));
    model.map_or(qom_type, |(model, _)| model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models() {
        assert_eq!(
            ["cortex-m3-arm-cpu", "max-arm-cpu", "odd"].map(cpu_model),
            ["cortex-m3", "max", "odd"]
        );
    }

    #[test]
    fn clusters_are_what_holds_a_core_and_not_all() {
        let rows: [(&[&str], Option<&[&str]>); 6] = [
            (
                &[
                    "/machine/soc/apu-cluster/apu-cpu[0]",
                    "/machine/soc/rpu-cluster/rpu-cpu[0]",
                ],
                Some(&["apu-cluster", "rpu-cluster"]),
            ),
            (
                &["/machine/bmc/cpu[0]", "/machine/bic/armv7m/cpu"],
                Some(&["bmc", "bic"]),
            ),
            (&["/machine/soc/cpu[0]", "/machine/soc/cpu[1]"], None),
            (
                &[
                    "/machine/unattached/device[0]",
                    "/machine/unattached/device[3]",
                ],
                None,
            ),
            (
                &["/machine/unattached/device[0]", "/machine/peripheral/x"],
                None,
            ),
            (&["/machine/armv7m/cpu"], None),
        ];
        for (paths, expected) in rows {
            assert_eq!(clusters(paths).as_deref(), expected, "{paths:?}");
        }
    }
}
