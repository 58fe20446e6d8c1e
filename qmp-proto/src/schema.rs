//! An index over `query-qmp-schema`: does this QEMU know this command, this argument, this event?

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use serde::Deserialize;

use crate::{
    error::ParseError,
    raw::{RawJson, RawReturn},
};

/// The commands and events that one QEMU has, so that a client decides by them and not by the
/// version.
///
/// Paths name a member, a member of that, and so on, with `/` between: `file/cache/direct`. Lists
/// are stepped through, and where an object has variants, all of them count.
///
/// ```
/// use qmp_proto::{RawJson, Schema};
///
/// # let reply = serde_json::json!([
/// #     {"name": "screendump", "meta-type": "command", "arg-type": "7", "ret-type": "0"},
/// #     {"name": "7", "meta-type": "object", "members": [{"name": "format", "type": "8", "default": null}]},
/// #     {"name": "8", "meta-type": "enum", "members": [{"name": "ppm"}, {"name": "png"}], "values": ["ppm", "png"]},
/// #     {"name": "0", "meta-type": "object", "members": []},
/// # ]);
/// # let reply = RawJson::from_value(&reply)?;
/// let schema = Schema::read(&reply)?; // the reply to `QueryQmpSchema`
/// assert!(schema.has_command("screendump"));
/// assert!(schema.has_argument("screendump", "format"));
/// assert!(schema.argument_values("screendump", "format").is_some_and(|formats| formats.contains(&"png")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Schema {
    entities: BTreeMap<String, SchemaEntity>,
}

/// An entry of the schema, of whatever kind; each kind uses some of the fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SchemaEntity {
    name: String,
    meta_type: String,
    arg_type: Option<String>,
    ret_type: Option<String>,
    element_type: Option<String>,
    #[serde(default)]
    allow_oob: bool,
    #[serde(default)]
    members: Vec<SchemaMember>,
    #[serde(default)]
    variants: Vec<SchemaVariant>,
    #[serde(default)]
    values: Vec<String>,
}

/// A member of an object (name and type), of an enum (a name) or of an alternate (a type).
#[derive(Debug, Clone, Deserialize)]
struct SchemaMember {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct SchemaVariant {
    #[serde(rename = "type")]
    kind: String,
}

impl Schema {
    /// Reads the reply to [`QueryQmpSchema`](crate::commands::QueryQmpSchema).
    ///
    /// # Errors
    /// [`ParseError`] where it is not a schema.
    pub fn read(reply: &RawReturn) -> Result<Self, ParseError> {
        let mut entities: Vec<SchemaEntity> = RawJson::parse(reply)?;
        for entity in &mut entities {
            // Before 6.2 an enum had `values` alone; `values` may go some day.
            if entity.meta_type == "enum" && entity.values.is_empty() {
                entity.values = entity
                    .members
                    .iter()
                    .filter_map(|member| member.name.clone())
                    .collect();
            }
        }
        Ok(Self {
            entities: entities
                .into_iter()
                .map(|entity| (entity.name.clone(), entity))
                .collect(),
        })
    }

    /// Whether it has this command.
    pub fn has_command(&self, command: &str) -> bool {
        self.command(command).is_some()
    }

    /// Whether this command can be executed out of band.
    pub fn allows_oob(&self, command: &str) -> bool {
        self.command(command)
            .is_some_and(|command| command.allow_oob)
    }

    /// Whether this command has this argument.
    pub fn has_argument(&self, command: &str, path: &str) -> bool {
        self.command(command)
            .is_some_and(|command| self.has_path(command.arg_type.as_deref(), path))
    }

    /// The names that this argument of a command, or an item of it where it is a list, can have:
    /// those of all variants and alternates together, each once. `None` if there is no such
    /// argument or it is nowhere an enum.
    pub fn argument_values(&self, command: &str, path: &str) -> Option<Vec<&str>> {
        let mut open = self.resolve(self.command(command)?.arg_type.as_deref()?, path);
        let mut enums = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(kind) = open.pop() {
            let Some(entity) = self.entities.get(kind).filter(|_| seen.insert(kind)) else {
                continue;
            };
            match &*entity.meta_type {
                "enum" => enums.push(entity),
                "array" => open.extend(entity.element_type.as_deref()),
                "alternate" => open.extend(
                    entity
                        .members
                        .iter()
                        .filter_map(|member| member.kind.as_deref()),
                ),
                _ => {}
            }
        }
        let mut known = BTreeSet::new();
        let values = enums
            .iter()
            .flat_map(|entity| &entity.values)
            .map(|value| &**value);
        (!enums.is_empty()).then(|| values.filter(|value| known.insert(*value)).collect())
    }

    /// Whether what this command returns has this member.
    pub fn has_returned_field(&self, command: &str, path: &str) -> bool {
        self.command(command)
            .is_some_and(|command| self.has_path(command.ret_type.as_deref(), path))
    }

    /// Whether it has this event.
    pub fn has_event(&self, event: &str) -> bool {
        self.event(event).is_some()
    }

    /// Whether this event's data have this member.
    pub fn has_event_field(&self, event: &str, path: &str) -> bool {
        self.event(event)
            .is_some_and(|event| self.has_path(event.arg_type.as_deref(), path))
    }

    /// The names of all commands, sorted.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.names_of("command")
    }

    /// The names of all events, sorted.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.names_of("event")
    }

    fn names_of<'a>(&'a self, meta_type: &'a str) -> impl Iterator<Item = &'a str> {
        self.entities
            .values()
            .filter(move |entity| entity.meta_type == meta_type)
            .map(|entity| &*entity.name)
    }

    fn command(&self, name: &str) -> Option<&SchemaEntity> {
        self.entities
            .get(name)
            .filter(|entity| entity.meta_type == "command")
    }

    fn event(&self, name: &str) -> Option<&SchemaEntity> {
        self.entities
            .get(name)
            .filter(|entity| entity.meta_type == "event")
    }

    fn has_path(&self, from: Option<&str>, path: &str) -> bool {
        from.is_some_and(|from| !self.resolve(from, path).is_empty())
    }

    /// The types that `path` names in a value of the type `from`: several where variants differ,
    /// none where there is no such member.
    fn resolve<'a>(&'a self, from: &'a str, path: &str) -> Vec<&'a str> {
        let mut kinds = Vec::from([from]);
        for name in path.split('/') {
            kinds = self.member_types(kinds, name);
        }
        kinds
    }

    /// The types that a member of this name has in any of these types, through lists, variants and
    /// alternates.
    fn member_types<'a>(&'a self, mut open: Vec<&'a str>, name: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        // A real schema has no circles here, but nothing keeps a peer from sending some.
        let mut seen = BTreeSet::new();
        while let Some(kind) = open.pop() {
            let Some(entity) = self.entities.get(kind).filter(|_| seen.insert(kind)) else {
                continue;
            };
            open.extend(entity.element_type.as_deref());
            open.extend(entity.variants.iter().map(|variant| &*variant.kind));
            for member in &entity.members {
                match (&member.name, &member.kind) {
                    (Some(of), Some(kind)) if of == name => found.push(&**kind),
                    (None, Some(kind)) => open.push(kind),
                    _ => {}
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(entities: serde_json::Value) -> Schema {
        Schema::read(&RawJson::from_value(&entities).unwrap()).unwrap()
    }

    fn small() -> Schema {
        schema(serde_json::json!([
            {"name": "add", "meta-type": "command", "arg-type": "1", "ret-type": "5", "allow-oob": true, "features": ["x"]},
            {"name": "bare", "meta-type": "command", "arg-type": "none", "ret-type": "none"},
            {"name": "GONE", "meta-type": "event", "arg-type": "1"},
            {"name": "1", "meta-type": "object", "members": [{"name": "file", "type": "2"}, {"name": "mode", "type": "4"}],
             "variants": [{"case": "a", "type": "absent"}, {"case": "b", "type": "3"}], "tag": "mode"},
            {"name": "2", "meta-type": "alternate", "members": [{"type": "str"}, {"type": "3"}]},
            {"name": "3", "meta-type": "object", "members": [{"name": "direct", "type": "bool", "default": null}]},
            {"name": "4", "meta-type": "enum", "members": [{"name": "a"}, {"name": "b"}]},
            {"name": "5", "meta-type": "array", "element-type": "3"},
            {"name": "none", "meta-type": "object", "members": []},
            {"name": "str", "meta-type": "builtin", "json-type": "string"},
            {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
        ]))
    }

    #[test]
    fn it_answers_for_commands_arguments_events_and_returns() {
        let schema = small();
        assert!(schema.has_command("add") && schema.has_command("bare"));
        assert!(
            !schema.has_command("GONE") && !schema.has_command("3") && !schema.has_command("adds")
        );
        assert!(schema.has_event("GONE") && !schema.has_event("add") && !schema.has_event("STOP"));
        assert!(
            schema.allows_oob("add") && !schema.allows_oob("bare") && !schema.allows_oob("GONE")
        );
        for path in ["file", "mode", "direct", "file/direct"] {
            assert!(schema.has_argument("add", path), "{path}");
            assert!(schema.has_event_field("GONE", path), "{path}");
        }
        for path in [
            "",
            "fil",
            "file/",
            "file/mode",
            "mode/a",
            "direct/x",
            "/file",
        ] {
            assert!(!schema.has_argument("add", path), "{path}");
            assert!(!schema.has_event_field("GONE", path), "{path}");
        }
        assert!(!schema.has_argument("bare", "file") && !schema.has_argument("GONE", "file"));
        assert!(!schema.has_event_field("add", "file"));
        assert!(
            schema.has_returned_field("add", "direct") && !schema.has_returned_field("add", "file")
        );
        assert_eq!(schema.argument_values("add", "mode").unwrap(), ["a", "b"]);
        assert_eq!(schema.argument_values("add", "direct"), None);
        assert_eq!(schema.argument_values("add", "nothing"), None);
        assert_eq!(schema.commands().collect::<Vec<_>>(), ["add", "bare"]);
        assert_eq!(schema.events().collect::<Vec<_>>(), ["GONE"]);
    }

    #[test]
    fn values_are_taken_where_an_enum_has_no_members() {
        let schema = schema(serde_json::json!([
            {"name": "c", "meta-type": "command", "arg-type": "1"},
            {"name": "1", "meta-type": "object", "members": [{"name": "e", "type": "2"}]},
            {"name": "2", "meta-type": "enum", "values": ["x"]},
        ]));
        assert_eq!(schema.argument_values("c", "e").unwrap(), ["x"]);
    }

    #[test]
    fn values_are_those_of_all_variants_alternates_and_items() {
        let schema = schema(serde_json::json!([
            {"name": "c", "meta-type": "command", "arg-type": "1"},
            {"name": "1", "meta-type": "object", "members": [{"name": "list", "type": "[4]"}, {"name": "either", "type": "6"}],
             "variants": [{"type": "2"}, {"type": "3"}, {"type": "7"}]},
            {"name": "2", "meta-type": "object", "members": [{"name": "policy", "type": "4"}]},
            {"name": "3", "meta-type": "object", "members": [{"name": "policy", "type": "5"}]},
            {"name": "7", "meta-type": "object", "members": [{"name": "policy", "type": "str"}]},
            {"name": "4", "meta-type": "enum", "values": ["a", "b"]},
            {"name": "5", "meta-type": "enum", "values": ["b", "c"]},
            {"name": "6", "meta-type": "alternate", "members": [{"type": "str"}, {"type": "[4]"}, {"type": "6"}]},
            {"name": "[4]", "meta-type": "array", "element-type": "4"},
            {"name": "str", "meta-type": "builtin", "json-type": "string"},
        ]));
        let values = |path| {
            let mut values = schema.argument_values("c", path).unwrap();
            values.sort_unstable();
            values
        };
        assert_eq!(values("policy"), ["a", "b", "c"]);
        assert_eq!(values("list"), ["a", "b"]);
        assert_eq!(values("either"), ["a", "b"]);
    }

    #[test]
    fn circles_end() {
        let schema = schema(serde_json::json!([
            {"name": "c", "meta-type": "command", "arg-type": "1", "ret-type": "2"},
            {"name": "1", "meta-type": "object", "variants": [{"type": "1"}, {"type": "1"}, {"type": "2"}]},
            {"name": "2", "meta-type": "array", "element-type": "2"},
        ]));
        assert!(!schema.has_argument("c", "a/b"));
        assert_eq!(schema.argument_values("c", "a"), None);
        assert!(!schema.has_returned_field("c", "a"));
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for other in [
            serde_json::json!({}),
            serde_json::json!([1]),
            serde_json::json!([{"name": "x"}]),
        ] {
            Schema::read(&RawJson::from_value(&other).unwrap()).unwrap_err();
        }
    }
}
