//! `cargo xtask firmware`: builds the firmware images with `rustc` alone, or checks the committed
//! ones.

mod image;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use self::image::Image;
use crate::workspace;

/// Rebuild the firmware images under xtask/firmware/ (with rustc alone; no target has to be
/// installed)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing: rebuild into a temporary folder, compare with what is committed, and fail
    /// where it differs
    #[arg(long)]
    check: bool,
    /// Only these images, by the name of their folder [default: all]
    names: Vec<String>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let folder = workspace::root().join("xtask/firmware");
    let mut names = image_names(&folder)?;
    for name in &args.names {
        ensure!(
            names.contains(name),
            "there is no image `{name}`; there are: {}",
            names.join(", ")
        );
    }
    if !args.names.is_empty() {
        names.retain(|name| args.names.contains(name));
    }
    if args.check {
        check(&folder, &names)
    } else {
        rebuild(&folder, &names)
    }
}

/// The images: each folder that holds an assembly file of its own name.
fn image_names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if source(folder, &name).is_file() {
            names.push(name);
        }
    }
    ensure!(
        !names.is_empty(),
        "there is no image in {}",
        folder.display()
    );
    names.sort();
    Ok(names)
}

fn source(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).join(name).with_extension("s")
}

fn committed(folder: &Path, name: &str) -> PathBuf {
    source(folder, name).with_extension("elf")
}

fn rebuild(folder: &Path, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let (bytes, rebuilt) = build(folder, name)?;
        let target = committed(folder, name);
        let unchanged = fs::read(&target)
            .ok()
            .and_then(|old| Image::parse(&old).ok())
            .is_some_and(|old| old.says_the_same(&rebuilt));
        if !unchanged {
            fs::write(&target, bytes)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
        let word = if unchanged { "unchanged" } else { "written" };
        println!(
            "{name:<18} {word:<10} {:>4} bytes loaded",
            rebuilt.loaded_bytes()
        );
    }
    Ok(())
}

fn check(folder: &Path, names: &[String]) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for name in names {
        let differences = compare(folder, name)?;
        println!(
            "{name:<18} {}",
            if differences.is_empty() {
                "as committed"
            } else {
                "DIFFERS"
            }
        );
        for difference in &differences {
            println!("    {difference}");
        }
        if !differences.is_empty() {
            wrong.push(name.as_str());
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "what is committed differs from its source: {}; `cargo xtask firmware {}` rebuilds it",
        wrong.join(", "),
        wrong.join(" ")
    )
}

/// In what the committed image differs from its source; nothing when all is well.
fn compare(folder: &Path, name: &str) -> anyhow::Result<Vec<String>> {
    let (_, rebuilt) = build(folder, name)?;
    let path = committed(folder, name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(vec![format!("{} cannot be read: {error}", path.display())]),
    };
    let mut differences = match Image::parse(&bytes) {
        Ok(image) => image.differences(&rebuilt),
        Err(error) => vec![format!("{} is not an image: {error:#}", path.display())],
    };
    let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
    if !readme.contains(&format!("`{name}`")) {
        differences.push(format!("xtask/firmware/README.md does not name `{name}`"));
    }
    Ok(differences)
}

/// Assembles and links one image, in a folder that is gone afterwards.
fn build(folder: &Path, name: &str) -> anyhow::Result<(Vec<u8>, Image)> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let elf = scratch.path().join("image.elf");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc)
        .current_dir(folder) // `.include` and the linker script are looked up from here
        .env("FIRMWARE_SOURCE", format!("{name}/{name}.s"))
        .env("RUSTC_BOOTSTRAP", "1") // `no_core` is an unstable feature
        .args([
            "--edition",
            "2021",
            "--crate-name",
            "firmware",
            "--crate-type",
            "bin",
        ])
        .args([
            "--target",
            "thumbv7m-none-eabi",
            "-C",
            "panic=abort",
            "-C",
            "link-arg=-Tlink.ld",
        ])
        // Without a page size the linker pads the file to 128 KiB.
        .args(["-C", "link-arg=-zmax-page-size=4"])
        // Local symbols (each constant is one) would only get in a debugger's way.
        .args(["-C", "link-arg=--discard-all"])
        .arg("-o")
        .arg(&elf)
        .arg("shim.rs")
        .output()
        .with_context(|| format!("cannot run {}", rustc.display()))?;
    if !output.status.success() {
        bail!(
            "building {name} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let bytes = fs::read(&elf).with_context(|| format!("rustc wrote no image for {name}"))?;
    let image =
        Image::parse(&bytes).with_context(|| format!("the image built for {name} is not one"))?;
    Ok((bytes, image))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of the sources that a test may spoil.
    fn sources() -> tempfile::TempDir {
        let folder = workspace::root().join("xtask/firmware");
        let copy = tempfile::tempdir().unwrap();
        for part in ["parts", "tick"] {
            fs::create_dir(copy.path().join(part)).unwrap();
            for entry in fs::read_dir(folder.join(part)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(
                    &path,
                    copy.path().join(part).join(path.file_name().unwrap()),
                )
                .unwrap();
            }
        }
        for file in ["shim.rs", "link.ld", "README.md"] {
            fs::copy(folder.join(file), copy.path().join(file)).unwrap();
        }
        copy
    }

    fn edit(path: &Path, from: &str, to: &str) {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{} has no {from:?}", path.display());
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    #[test]
    fn what_is_committed_is_what_the_source_says() {
        let copy = sources();
        assert_eq!(image_names(copy.path()).unwrap(), ["tick"]);
        assert_eq!(compare(copy.path(), "tick").unwrap(), [""; 0]);
    }

    #[test]
    fn a_changed_instruction_is_found_where_it_is() {
        let copy = sources();
        edit(
            &copy.path().join("parts/ticking.s"),
            "adds    r0, r0, #1",
            "adds    r0, r0, #2",
        );
        let differences = compare(copy.path(), "tick").unwrap();
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(differences[0].contains("in `main_loop`"), "{differences:?}");
    }

    #[test]
    fn a_renamed_symbol_is_found() {
        let copy = sources();
        edit(
            &copy.path().join("parts/ticking.s"),
            "variable tick_count",
            "variable line_count",
        );
        edit(
            &copy.path().join("parts/ticking.s"),
            "    ldr     r1, =tick_count",
            "    ldr     r1, =line_count",
        );
        edit(
            &copy.path().join("parts/ticking.s"),
            "    ldr     r4, =tick_count",
            "    ldr     r4, =line_count",
        );
        let differences = compare(copy.path(), "tick").unwrap();
        assert_eq!(differences.len(), 2, "{differences:?}");
        assert!(
            differences
                .iter()
                .any(|d| d.contains("`tick_count`") && d.contains("committed")),
            "{differences:?}"
        );
        assert!(
            differences
                .iter()
                .any(|d| d.contains("`line_count`") && d.contains("rebuilt")),
            "{differences:?}"
        );
    }

    #[test]
    fn a_missing_or_broken_image_is_a_difference() {
        let copy = sources();
        let elf = committed(copy.path(), "tick");
        fs::write(&elf, "text").unwrap();
        assert!(compare(copy.path(), "tick").unwrap()[0].contains("is not an image"));
        fs::remove_file(&elf).unwrap();
        assert!(compare(copy.path(), "tick").unwrap()[0].contains("cannot be read"));
    }

    #[test]
    fn a_mistake_in_the_source_is_shown_as_the_assembler_says_it() {
        let copy = sources();
        edit(
            &copy.path().join("parts/ticking.s"),
            "bl      tick",
            "blip    tick",
        );
        let error = compare(copy.path(), "tick").unwrap_err().to_string();
        assert!(
            error.contains("building tick failed") && error.contains("blip"),
            "{error}"
        );
    }

    #[test]
    fn an_undocumented_image_is_a_difference() {
        let copy = sources();
        fs::write(copy.path().join("README.md"), "nothing").unwrap();
        assert!(compare(copy.path(), "tick").unwrap()[0].contains("does not name `tick`"));
    }

    #[test]
    fn rebuilding_leaves_an_image_alone_that_is_up_to_date() {
        let copy = sources();
        let elf = committed(copy.path(), "tick");
        let before = fs::read(&elf).unwrap();
        rebuild(copy.path(), &["tick".to_owned()]).unwrap();
        assert_eq!(fs::read(&elf).unwrap(), before);
        fs::remove_file(&elf).unwrap();
        rebuild(copy.path(), &["tick".to_owned()]).unwrap();
        assert_eq!(compare(copy.path(), "tick").unwrap(), [""; 0]);
    }
}
