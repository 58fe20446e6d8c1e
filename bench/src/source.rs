//! Looking up lines of an ELF: `firmware-info` beside binutils' addr2line, the crate of that name, and
//! gdb's start.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use firmware_info::Firmware;

use crate::Bench;
use crate::report::{Limit, Report};
use crate::stats::{Contender, milliseconds, take_turns};

const OURS: &str = "firmware-info";
const CRATE: &str = "addr2line 0.27, the crate";
const BINUTILS: &str = "arm-none-eabi-addr2line";
const GDB: &str = "gdb-multiarch, its start alone";

const LOOKUPS: usize = 10_000;

/// The largest image of the fixtures.
const FIXTURE: &str = "firmware-info/fixtures/rust/debug.elf";

/// The generated image: so many copies of so many functions.
const COPIES: usize = 60;
const FUNCTIONS: usize = 1500;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let fixture = bench.root.join(FIXTURE);
    measure(
        bench,
        report,
        "source, 0.4 MB",
        &fixture,
        bench.rounds(5, 20),
    )?;
    let large = generated(&bench.out).context("the generated image")?;
    let bytes = fs::metadata(&large)?.len();
    ensure!(
        bytes > 90_000_000,
        "the generated image has {bytes} bytes only"
    );
    measure(bench, report, "source, 100 MB", &large, bench.rounds(2, 5))
}

fn measure(
    _: &Bench,
    report: &mut Report,
    subject: &'static str,
    image: &Path,
    rounds: usize,
) -> Result<()> {
    let addresses = addresses(image)?;
    let first = &addresses[..1];
    let contenders = vec![
        Contender::new(OURS, || {
            let since = Instant::now();
            let firmware = Firmware::open(image)?;
            let lookup =
                |address: &u64| firmware.source_frames(*address).map(|frames| frames.len());
            ensure!(lookup(&addresses[0])? > 0, "nothing was found");
            let at_first = milliseconds(since);
            for address in &addresses {
                lookup(address)?;
            }
            Ok(vec![at_first, milliseconds(since)])
        }),
        Contender::new(CRATE, || {
            let since = Instant::now();
            let loader =
                addr2line::Loader::new(image).map_err(|error| anyhow::anyhow!("{error}"))?;
            let lookup = |address: &u64| -> Result<usize> {
                let frames = loader.find_frames(*address);
                let mut frames = frames.map_err(|error| anyhow::anyhow!("{error}"))?;
                let mut count = 0;
                while let Some(frame) = frames.next().map_err(|error| anyhow::anyhow!("{error}"))? {
                    if let Some(function) = &frame.function {
                        count += usize::from(!function.demangle()?.is_empty());
                    }
                }
                Ok(count)
            };
            lookup(&addresses[0])?;
            let at_first = milliseconds(since);
            for address in &addresses {
                lookup(address)?;
            }
            Ok(vec![at_first, milliseconds(since)])
        }),
        Contender::new(BINUTILS, || {
            let since = Instant::now();
            binutils(image, first)?;
            let (at_first, since) = (milliseconds(since), Instant::now());
            binutils(image, &addresses)?;
            Ok(vec![at_first, milliseconds(since)])
        }),
        Contender::new(GDB, || {
            let since = Instant::now();
            let line = format!("info line *{:#x}", addresses[0]);
            let mut gdb = Command::new("gdb-multiarch");
            gdb.args(["-nx", "-batch", "-ex", &line]).arg(image);
            let output = gdb.output().context("gdb-multiarch")?;
            ensure!(output.status.success(), "gdb-multiarch: {}", output.status);
            Ok(vec![milliseconds(since), f64::NAN])
        }),
    ];
    let measured = take_turns(rounds, contenders)?;
    let quantities = [("to the first lookup", "ms"), ("to 10,000 lookups", "ms")];
    report.rows(subject, &quantities, &measured);
    for (quantity, name) in [(0, "first lookup"), (1, "10,000 lookups")] {
        let what = format!("{subject}: {name}, against the crate addr2line");
        report.ratio(
            &what,
            &measured,
            (OURS, CRATE),
            quantity,
            Limit::AtMost(1.5),
        );
        let what = format!("{subject}: {name}, against binutils");
        report.ratio(
            &what,
            &measured,
            (OURS, BINUTILS),
            quantity,
            Limit::AtMost(1.0),
        );
    }
    Ok(())
}

/// Addresses all over the code, in no order.
fn addresses(image: &Path) -> Result<Vec<u64>> {
    let firmware = Firmware::open(image)?;
    let sections = firmware.sections().iter();
    let code = sections.filter(|section| section.executable);
    let code = code.max_by_key(|section| section.size).context("no code")?;
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (code.address + (state >> 33) % code.size) & !1
    };
    let main = firmware.symbol("main").map(|symbol| symbol.address)?;
    Ok(std::iter::once(main)
        .chain(std::iter::repeat_with(&mut random))
        .take(LOOKUPS)
        .collect())
}

fn binutils(image: &Path, addresses: &[u64]) -> Result<()> {
    let mut child = Command::new(BINUTILS)
        .args(["-f", "-i", "-C", "-e"])
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context(BINUTILS)?;
    let lines: String = addresses
        .iter()
        .map(|address| format!("{address:#x}\n"))
        .collect();
    child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(lines.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "{BINUTILS}: {status}");
    Ok(())
}

/// An image with 100 MB of debug information: one object of generated C, many times under other
/// names.
fn generated(out: &Path) -> Result<PathBuf> {
    let folder = out.join("generated-elf");
    let image = folder.join("large.elf");
    if image.is_file() {
        return Ok(image);
    }
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("piece.c"), piece())?;
    fs::write(folder.join("main.c"), "int main(void) { for (;;) { } }\n")?;
    let tool = |name: &str, words: &[&str]| -> Result<()> {
        let program = format!("arm-none-eabi-{name}");
        let mut command = Command::new(&program);
        let status = command
            .args(words)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .status();
        let status = status.with_context(|| program.clone())?;
        ensure!(status.success(), "{program}: {status}");
        Ok(())
    };
    let compile = ["-mcpu=cortex-m3", "-mthumb", "-g", "-O1", "-c"];
    for source in ["piece.c", "main.c"] {
        tool("gcc", &[&compile[..], &[source]].concat())?;
    }
    let mut objects = vec!["main.o".to_owned()];
    for number in 0..COPIES {
        let object = format!("piece{number}.o");
        tool(
            "objcopy",
            &[&format!("--prefix-symbols=p{number}_"), "piece.o", &object],
        )?;
        objects.push(object);
    }
    let objects = objects.iter().map(String::as_str);
    let words: Vec<&str> = ["-e", "main", "-o", "large.elf"]
        .into_iter()
        .chain(objects)
        .collect();
    tool("ld", &words)?;
    for number in 0..COPIES {
        fs::remove_file(folder.join(format!("piece{number}.o")))?;
    }
    Ok(image)
}

/// Functions with locals, a structure each, and one that is inlined.
fn piece() -> String {
    let mut text = String::from(
        "static inline int mix(int a, int b) { int c = a * 31 + b; return c ^ (c >> 7); }\n",
    );
    for number in 0..FUNCTIONS {
        text += &format!(
            "struct shape{number} {{ int width, height, depth; char name[{}]; struct shape{number} *next; }};\n\
             int area{number}(const struct shape{number} *shape, int scale) {{\n\
                 int sum = 0;\n\
                 for (const struct shape{number} *at = shape; at; at = at->next) {{\n\
                     int width = mix(at->width, scale), height = mix(at->height, {number});\n\
                     sum += width * height + mix(at->depth, sum);\n\
                 }}\n\
                 return sum;\n\
             }}\n",
            number % 40 + 1
        );
    }
    text
}
