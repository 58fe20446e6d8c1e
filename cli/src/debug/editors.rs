//! What an editor has to be told so that its debugger finds the machine of `debug`.

use std::path::Path;

use clap::ValueEnum;
use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};

use super::gdb_ui;

/// An editor, and its debugger where it has several.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(super) enum Editor {
    /// VS Code with the extension Cortex-Debug
    CortexDebug,
    /// VS Code with Microsoft's C/C++ extension
    Cpptools,
    /// VS Code with CodeLLDB
    Codelldb,
    /// VS Code with LLDB DAP
    LldbDap,
    /// Neovim with nvim-dap, and gdb 14 or newer
    NvimDap,
    /// Helix with gdb 14 or newer
    Helix,
    /// Zed with gdb 14 or newer
    Zed,
    /// gdb itself
    Gdbinit,
}

/// What the entry is about.
pub(super) struct Entry<'a> {
    pub(super) elf: &'a Path,
    /// The editor's project.
    pub(super) project: &'a Path,
    /// Where the debugger connects.
    pub(super) target: &'a str,
    pub(super) gdb: &'a str,
}

/// An entry as its file has it.
pub(super) enum Form {
    /// An object of a list: the key of the list, unless the file is the list, and the key and the
    /// text by which an object of it is known.
    Object(Option<&'static str>, &'static str, String, CstInputValue),
    /// All of the file.
    Whole(String),
}

impl Editor {
    /// The file that it reads, in the project.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::CortexDebug | Self::Cpptools | Self::Codelldb | Self::LldbDap => {
                ".vscode/launch.json"
            }
            Self::NvimDap => ".nvim.lua",
            Self::Helix => ".helix/languages.toml",
            Self::Zed => ".zed/debug.json",
            Self::Gdbinit => ".gdbinit",
        }
    }

    /// What has to be known beside the entry.
    pub(super) fn note(self) -> Option<&'static str> {
        match self {
            Self::NvimDap => Some("Neovim reads .nvim.lua where `exrc` is set"),
            Self::Gdbinit => Some(
                "gdb reads it where your own ~/.config/gdb/gdbinit has `add-auto-load-safe-path` with \
                 this folder",
            ),
            _ => None,
        }
    }

    pub(super) fn form(self, entry: &Entry<'_>) -> Form {
        let name = entry.name();
        let elf = |folder: &str| match entry.elf.strip_prefix(entry.project) {
            Ok(path) => format!("{folder}/{}", path.display()),
            Err(_) => entry.elf.display().to_string(),
        };
        let folder = "${workspaceFolder}";
        let (target, gdb) = (entry.target, entry.gdb);
        match self {
            Self::CortexDebug => launch(
                name,
                &[
                    ("type", text("cortex-debug")),
                    ("request", text("launch")),
                    ("servertype", text("external")),
                    ("gdbTarget", text(target)),
                    ("gdbPath", text(gdb)),
                    ("executable", text(&elf(folder))),
                    ("cwd", text(folder)),
                    ("runToEntryPoint", text("main")),
                ],
            ),
            Self::Cpptools => launch(
                name,
                &[
                    ("type", text("cppdbg")),
                    ("request", text("launch")),
                    ("MIMode", text("gdb")),
                    ("miDebuggerPath", text(gdb)),
                    ("miDebuggerServerAddress", text(target)),
                    ("useExtendedRemote", CstInputValue::Bool(true)),
                    ("stopAtConnect", CstInputValue::Bool(true)),
                    ("program", text(&elf(folder))),
                    ("cwd", text(folder)),
                ],
            ),
            Self::Codelldb => launch(
                name,
                &[
                    ("type", text("lldb")),
                    ("request", text("launch")),
                    (
                        "targetCreateCommands",
                        list(&[format!("target create {}", lldb_word(&elf(folder)))]),
                    ),
                    (
                        "processCreateCommands",
                        list(&[format!("gdb-remote {target}")]),
                    ),
                ],
            ),
            Self::LldbDap => launch(
                name,
                &[
                    ("type", text("lldb-dap")),
                    ("request", text("launch")),
                    ("program", text(&elf(folder))),
                    ("cwd", text(folder)),
                    ("launchCommands", list(&[format!("gdb-remote {target}")])),
                    ("stopOnEntry", CstInputValue::Bool(true)),
                ],
            ),
            Self::Zed => {
                let members = object(
                    ("label", &name),
                    &[
                        ("adapter", text("GDB")),
                        ("request", text("attach")),
                        ("program", text(&elf("$ZED_WORKTREE_ROOT"))),
                        ("target", text(target)),
                    ],
                );
                Form::Object(None, "label", name, members)
            }
            Self::NvimDap => Form::Whole(format!(
                "local dap = require(\"dap\")\n\
                 dap.adapters.gdb = {{ type = \"executable\", command = \"{gdb}\", args = {{ \"-i\", \"dap\" }} }}\n\
                 for _, language in ipairs({{ \"c\", \"cpp\", \"rust\" }}) do\n  \
                   dap.configurations[language] = dap.configurations[language] or {{}}\n  \
                   table.insert(dap.configurations[language], {{\n    \
                     name = {name:?},\n    type = \"gdb\",\n    request = \"attach\",\n    \
                     program = {:?},\n    target = \"{target}\",\n  \
                   }})\nend\n",
                elf(folder)
            )),
            Self::Helix => Form::Whole(
                ["rust", "c", "cpp"]
                    .map(|language| {
                        format!(
                            "[[language]]\nname = \"{language}\"\n\n\
                 [language.debugger]\nname = \"gdb\"\ntransport = \"stdio\"\ncommand = \"{gdb}\"\n\
                 args = [\"-i\", \"dap\"]\n\n\
                 [[language.debugger.templates]]\nname = {name:?}\nrequest = \"attach\"\n\
                 completion = []\nargs = {{ program = {:?}, target = \"{target}\" }}\n",
                            entry.elf.display().to_string()
                        )
                    })
                    .join("\n"),
            ),
            Self::Gdbinit => Form::Whole(gdb_ui::script(target)),
        }
    }
}

impl Entry<'_> {
    fn name(&self) -> String {
        let name = self.elf.file_stem().unwrap_or(self.elf.as_os_str());
        format!("QEMU: {}", name.to_string_lossy())
    }
}

impl Form {
    /// The entry alone.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Whole(text) => text.clone(),
            Self::Object(.., members) => match CstRootNode::parse("", &ParseOptions::default()) {
                Ok(root) => {
                    root.set_value(members.clone());
                    root.to_string().trim_end().to_owned() + "\n"
                }
                Err(error) => error.to_string(),
            },
        }
    }
}

/// An entry of VS Code's `launch.json`.
fn launch(name: String, members: &[(&str, CstInputValue)]) -> Form {
    let name = match members.first() {
        // One for each extension.
        Some((_, CstInputValue::String(kind))) => format!("{name} ({kind})"),
        _ => name,
    };
    let members = object(("name", &name), members);
    Form::Object(Some("configurations"), "name", name, members)
}

fn object((key, name): (&str, &str), members: &[(&str, CstInputValue)]) -> CstInputValue {
    let members = members
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()));
    CstInputValue::Object(
        [(key.to_owned(), text(name))]
            .into_iter()
            .chain(members)
            .collect(),
    )
}

fn text(text: &str) -> CstInputValue {
    CstInputValue::String(text.to_owned())
}

/// One word of a command of LLDB's, which knows no escapes between single quotes.
fn lldb_word(text: &str) -> String {
    match text.contains('\'') {
        true => format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")),
        false => format!("'{text}'"),
    }
}

fn list(texts: &[String]) -> CstInputValue {
    CstInputValue::Array(texts.iter().map(|line| text(line)).collect())
}

#[cfg(test)]
mod tests {
    use super::lldb_word;

    #[test]
    fn a_path_is_one_word_of_lldb_s() {
        for (path, word) in [
            ("/src/a b/x.elf", "'/src/a b/x.elf'"),
            (r#"/src/a "b"/x.elf"#, r#"'/src/a "b"/x.elf'"#),
            ("/home/o'brien/x.elf", r#""/home/o'brien/x.elf""#),
            (r#"/o'"\/x.elf"#, r#""/o'\"\\/x.elf""#),
        ] {
            assert_eq!(lldb_word(path), word);
        }
    }
}
