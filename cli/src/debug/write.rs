//! `debug --write`: an editor's entry goes into the project. What somebody wrote stays.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstRootNode};

use super::editors::{Editor, Entry, Form};
use crate::config_file;
use crate::failure::Failure;

/// Writes the entry; what was done, in words.
pub(super) fn write(editor: Editor, entry: &Entry<'_>) -> Result<String, Failure> {
    let file = entry.project.join(editor.file());
    let failed = |error: io::Error| Failure::Debug(format!("{}: {error}", editor.file()));
    let before = match config_file::read_text(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let form = editor.form(entry);
    let after = match (&form, before.as_deref()) {
        (Form::Whole(text), None) => text.clone(),
        (Form::Whole(text), Some(before)) if before.contains(text.trim_end()) => {
            return Ok(format!("{} has the entry already", editor.file()));
        }
        (Form::Whole(_), Some(_)) => {
            return Err(Failure::Debug(format!(
                "{} is there already, and stays as it is: `--print {}` has what belongs into it",
                editor.file(),
                clap::ValueEnum::to_possible_value(&editor)
                    .map(|value| value.get_name().to_owned())
                    .unwrap_or_default()
            )));
        }
        (Form::Object(list, key, name, object), before) => {
            let merged = merged(before.unwrap_or_default(), *list, (key, name), object);
            match merged
                .map_err(|why| Failure::Debug(format!("{} stays as it is: {why}", editor.file())))?
            {
                Some(after) => after,
                None => return Ok(format!("{} has an entry {name:?} already", editor.file())),
            }
        }
    };
    replace(&file, &after).map_err(failed)?;
    let note = editor
        .note()
        .map(|note| format!("; {note}"))
        .unwrap_or_default();
    Ok(format!("{} has the entry now{note}", editor.file()))
}

/// The text with the object in its list; `None` where one of this name is there already.
fn merged(
    text: &str,
    list: Option<&str>,
    (key, name): (&str, &str),
    object: &CstInputValue,
) -> Result<Option<String>, String> {
    let root =
        CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| error.to_string())?;
    let is_empty = root.value().is_none();
    let objects: Option<CstArray> = match list {
        None => root.array_value_or_create(),
        Some(list) => root.object_value_or_create().and_then(|root| {
            if is_empty {
                root.append("version", CstInputValue::String("0.2.0".to_owned()));
            }
            root.array_value_or_create(list)
        }),
    };
    let objects = objects.ok_or_else(|| match list {
        Some(list) => format!("{list:?} is no list"),
        None => "it is no list".to_owned(),
    })?;
    let has_it = objects.elements().iter().any(|element| {
        let value = element
            .as_object()
            .and_then(|object| object.get(key)?.value());
        let text = value.and_then(|value| value.as_string_lit()?.decoded_value().ok());
        text.as_deref() == Some(name)
    });
    if has_it {
        return Ok(None);
    }
    objects.ensure_multiline();
    objects.append(object.clone());
    let text = root.to_string();
    Ok(Some(text.trim_end().to_owned() + "\n"))
}

/// Writes beside the file first: it is there whole, or as it was. A link stays one.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let file = match file.canonicalize() {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        Err(error) => return Err(error),
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    let permissions = fs::metadata(&file).map(|before| before.permissions());
    let permissions =
        permissions.unwrap_or_else(|_| std::os::unix::fs::PermissionsExt::from_mode(0o644));
    new.as_file().set_permissions(permissions)?;
    new.as_file().sync_all()?;
    new.persist(&file).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            elf: Path::new("/p/target/app.elf"),
            project: Path::new("/p"),
            target: "127.0.0.1:1234",
            gdb: "gdb-multiarch",
        }
    }

    fn merge(text: &str, editor: Editor) -> Result<Option<String>, String> {
        match editor.form(&entry()) {
            Form::Object(list, key, name, object) => merged(text, list, (key, &name), &object),
            Form::Whole(_) => panic!("{editor:?}"),
        }
    }

    #[test]
    fn what_stands_in_the_file_stays() {
        let before = "// mine\n{\n\t\"version\": \"0.2.0\", // old\n\t\"configurations\": [\n\t\t{ \"name\": \"other\", },\n\t\t/* last */\n\t],\n\t\"inputs\": []\n}\n";
        let after = merge(before, Editor::CortexDebug).unwrap().unwrap();
        for kept in [
            "// mine\n",
            "// old\n",
            "{ \"name\": \"other\", }",
            "/* last */",
            "\"inputs\": []",
        ] {
            assert!(after.contains(kept), "{kept} in {after}");
        }
        assert!(
            after.contains("\"executable\": \"${workspaceFolder}/target/app.elf\""),
            "{after}"
        );
        assert_eq!(merge(&after, Editor::CortexDebug), Ok(None));
        let both = merge(&after, Editor::LldbDap).unwrap().unwrap();
        assert!(
            both.contains("(cortex-debug)") && both.contains("(lldb-dap)"),
            "{both}"
        );
    }

    #[test]
    fn a_file_is_begun_where_there_is_none() {
        let text = merge("", Editor::Cpptools).unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["version"], "0.2.0");
        assert_eq!(
            json["configurations"][0]["miDebuggerServerAddress"],
            "127.0.0.1:1234"
        );
        let text = merge("\n", Editor::Zed).unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json[0]["label"], "QEMU: app");
    }

    #[test]
    fn what_cannot_be_merged_is_refused() {
        for text in [
            "[]",
            "{ \"configurations\": 1 }",
            "{ \"configurations\": [ }",
            "\"text\"",
        ] {
            assert!(merge(text, Editor::Codelldb).is_err(), "{text}");
        }
        assert!(merge("{}", Editor::Zed).is_err());
    }

    #[test]
    fn each_editor_s_entry_is_one_of_its_language() {
        for editor in <Editor as clap::ValueEnum>::value_variants() {
            let text = editor.form(&entry()).text();
            assert!(text.contains("1234"), "{text}");
            match editor.file().rsplit('.').next().unwrap() {
                "json" => drop(serde_json::from_str::<serde_json::Value>(&text).unwrap()),
                "toml" => drop(text.parse::<toml::Table>().unwrap()),
                _ => {}
            }
        }
    }

    #[test]
    fn a_pipe_in_the_place_of_the_file_is_not_waited_for() {
        let project = tempfile::tempdir().unwrap();
        let file = project.path().join(Editor::Zed.file());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap();
        let entry = Entry {
            project: project.path(),
            ..entry()
        };
        let Err(Failure::Debug(why)) = write(Editor::Zed, &entry) else {
            panic!("a pipe is no file");
        };
        assert!(why.contains("it is a pipe"), "{why}");
    }
}
