//! The QEMU object model: `qom-list`, `qom-get`, `qom-set`.

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use crate::{
    command::{Command, Empty},
    raw::RawJson,
};

command_with_arguments! {
    /// `qom-list`: the properties of an object.
    QomList = "qom-list" -> Vec<ObjectPropertyInfo> {
        /// The object's path.
        path: &'a str,
    }
    /// `qom-get`: the value of a property.
    QomGet = "qom-get" -> RawJson {
        /// The object's path.
        path: &'a str,
        /// The property.
        property: &'a str,
    }
}

/// `qom-set`: gives a property a value.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct QomSet<'a, V> {
    /// The object's path.
    pub path: &'a str,
    /// The property.
    pub property: &'a str,
    /// Its new value, of the property's own type.
    pub value: V,
}

impl<'a, V: Serialize> QomSet<'a, V> {
    /// The command with these arguments.
    pub fn new(path: &'a str, property: &'a str, value: V) -> Self {
        Self {
            path,
            property,
            value,
        }
    }
}

impl<V: Serialize> Command for QomSet<'_, V> {
    const NAME: &'static str = "qom-set";
    type Return = Empty;
}

object! {
    /// A property of an object.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ObjectPropertyInfo {
        /// Its name.
        pub name: String,
        /// Its type, for example `bool`, `child<sd-card>` or `link<memory-region>`.
        #[serde(rename = "type")]
        pub kind: String,
        /// What it is for.
        #[serde(default)]
        pub description: Option<String>,
    }
}
