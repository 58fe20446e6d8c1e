//! A stub's target description: which annexes to read, then architecture and registers out of them.
//!
//! The description is `target.xml`, which includes others by `<xi:include href="…"/>`.
//! [`TargetReader`] names what to read next until all is there; [`TargetReader::finish`] then walks
//! it in document order, since a register without a number follows the one before it. Read with
//! quick-xml: the documents are small, but the prefix `xi:` is never declared, which readers that
//! know namespaces refuse.

use std::collections::BTreeMap;
use std::ops::Range;

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};

use crate::reply::is_error;

/// The annex that every description begins with.
pub const ROOT: &str = "target.xml";

/// All annexes together, in bytes. QEMU's largest (AArch64) are below 200 KiB.
const MAX_BYTES: usize = 1024 * 1024;
/// What may be walked when the documents are put together: one that is included again counts again,
/// and so does a feature's name for each of its registers. Every document once is within it.
const MAX_ASSEMBLED: usize = 2 * MAX_BYTES;
const MAX_ANNEXES: usize = 64;
const MAX_DEPTH: usize = 8;
const MAX_INCLUDES: usize = 256;
const MAX_REGISTERS: usize = 16 * 1024;
/// The largest of AArch64 has half as much (ZA, with vectors of 256 bytes).
const MAX_BITS: u32 = 1024 * 1024;

/// What a target description says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Target {
    /// BFD's name of the architecture, for example `arm`.
    pub architecture: Option<String>,
    /// Every register, in the order of the documents.
    pub registers: Vec<Register>,
}

/// One register of a target description.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Register {
    /// Its name, for example `xpsr`.
    pub name: String,
    /// Its size in bits.
    pub bits: u32,
    /// Its number in the protocol's `p` and `P` packets.
    pub number: u32,
    /// The feature it belongs to, for example `org.gnu.gdb.arm.m-profile`.
    pub feature: String,
}

impl Target {
    /// The register of this name.
    #[must_use]
    pub fn register(&self, name: &str) -> Option<&Register> {
        self.registers.iter().find(|register| register.name == name)
    }

    /// Takes the reply to `g` apart: the registers in the order of their numbers, as far as the
    /// bytes go.
    #[must_use]
    pub fn split<'a>(&'a self, bytes: &'a [u8]) -> Vec<(&'a Register, &'a [u8])> {
        let places = self.places().into_iter();
        let split = places.map_while(|(register, place)| Some((register, bytes.get(place)?)));
        split.collect()
    }

    /// Where each register is in the reply to `g`, in the order of their numbers. A reply may end
    /// before the last of them: those of co-processors are mostly not in it.
    #[must_use]
    pub fn places(&self) -> Vec<(&Register, Range<usize>)> {
        let mut registers: Vec<&Register> = self.registers.iter().collect();
        registers.sort_by_key(|register| register.number);
        let mut end = 0_usize;
        let places = registers.into_iter().map(|register| {
            let begin = end;
            end = end.saturating_add(register.bits.div_ceil(8) as usize);
            (register, begin..end)
        });
        places.collect()
    }

    /// The core's own registers, without those of co-processors and the system: what every debugger
    /// needs to attach.
    ///
    /// They are those of the features that gdb itself requires: `….core`, `….cpu` and
    /// `….m-profile`.
    pub fn core_registers(&self) -> impl Iterator<Item = &Register> {
        self.registers.iter().filter(|register| {
            [".core", ".cpu", ".m-profile"]
                .iter()
                .any(|ending| register.feature.ends_with(ending))
        })
    }
}

/// Why a target description could not be read. The stub is there all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Not UTF-8, not XML, or an attribute is missing or of the wrong kind.
    #[error("target description '{annex}' is malformed at byte {offset}: {problem}")]
    Malformed {
        /// Which document.
        annex: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// Larger, deeper or with more parts than any real description.
    #[error("target description exceeds the limit of {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// A document was never given, or the stub refuses it.
    #[error("target description '{0}' is missing")]
    Missing(String),
}

/// Collects a target description's documents.
#[derive(Debug, Default)]
pub struct TargetReader {
    documents: BTreeMap<String, String>,
    wanted: Vec<String>,
    bytes: usize,
    /// What has arrived of the next annex.
    partial: Vec<u8>,
}

impl TargetReader {
    /// Begins with [`ROOT`] wanted.
    #[must_use]
    pub fn new() -> Self {
        Self {
            wanted: vec![ROOT.to_owned()],
            ..Self::default()
        }
    }

    /// The next annex to read; `None` when all are there.
    #[must_use]
    pub fn next_annex(&self) -> Option<&str> {
        self.wanted.first().map(String::as_str)
    }

    /// The payload that asks for the next `length` bytes of the description; `None` when all is
    /// there.
    #[must_use]
    pub fn question(&self, length: usize) -> Option<Vec<u8>> {
        let annex = self.next_annex()?;
        let offset = self.partial.len();
        Some(format!("qXfer:features:read:{annex}:{offset:x},{length:x}").into_bytes())
    }

    /// Takes the reply to [`question`](Self::question). False when it is none: nothing was taken.
    ///
    /// # Errors
    /// When the stub refuses, or what it gave cannot be read: there is no description then.
    pub fn handle_reply(&mut self, payload: &[u8]) -> Result<bool, TargetError> {
        let annex = self.next_annex().unwrap_or(ROOT).to_owned();
        let (is_last, piece) = match payload {
            [b'm', piece @ ..] => (false, piece),
            [b'l', piece @ ..] => (true, piece),
            refused if refused.is_empty() || is_error(refused) => {
                return Err(TargetError::Missing(annex));
            }
            _ => return Ok(false),
        };
        // An empty piece that is not the last would go on without end.
        if piece.is_empty() && !is_last {
            return Err(TargetError::Missing(annex));
        }
        self.check_size(self.partial.len() + piece.len())?;
        self.partial.extend_from_slice(piece);
        if is_last {
            let content = std::mem::take(&mut self.partial);
            self.add(&annex, &content)?;
        }
        Ok(true)
    }

    /// Takes the whole of one annex, and notes which others it includes.
    ///
    /// # Errors
    /// When it is no XML or a limit is passed. Nothing was added then.
    pub fn add(&mut self, annex: &str, content: &[u8]) -> Result<(), TargetError> {
        self.check_size(content.len())?;
        let text = std::str::from_utf8(content).map_err(|error| TargetError::Malformed {
            annex: annex.to_owned(),
            offset: error.valid_up_to() as u64,
            problem: "it is not UTF-8".to_owned(),
        })?;
        let mut wanted = self.wanted.clone();
        wanted.retain(|wanted| wanted != annex);
        let known = self.documents.len() + usize::from(!self.documents.contains_key(annex));
        walk(annex, text, &mut |piece| {
            let Piece::Include(href) = piece else {
                return Ok(());
            };
            if href == annex || self.documents.contains_key(&href) || wanted.contains(&href) {
                return Ok(());
            }
            // Here and not after the walk: the list that is searched for each include stays this
            // short.
            if known + wanted.len() == MAX_ANNEXES {
                return Err(TargetError::Limit {
                    what: "documents",
                    limit: MAX_ANNEXES,
                });
            }
            wanted.push(href);
            Ok(())
        })?;
        self.bytes += content.len();
        self.wanted = wanted;
        self.documents.insert(annex.to_owned(), text.to_owned());
        Ok(())
    }

    /// Whether `more` further bytes would still be within the limit: to be asked while an annex
    /// arrives in pieces.
    ///
    /// # Errors
    /// [`TargetError::Limit`] when they would not.
    pub fn check_size(&self, more: usize) -> Result<(), TargetError> {
        if self.bytes.saturating_add(more) > MAX_BYTES {
            return Err(TargetError::Limit {
                what: "bytes",
                limit: MAX_BYTES,
            });
        }
        Ok(())
    }

    /// Puts the documents together.
    ///
    /// # Errors
    /// When a document is missing or malformed, or a limit is passed (documents that include
    /// themselves among them).
    pub fn finish(&self) -> Result<Target, TargetError> {
        let mut assembly = Assembly {
            documents: &self.documents,
            target: Target::default(),
            next: 0,
            includes: 0,
            assembled: 0,
        };
        assembly.document(ROOT, 0)?;
        Ok(assembly.target)
    }
}

struct Assembly<'a> {
    documents: &'a BTreeMap<String, String>,
    target: Target,
    next: u32,
    includes: usize,
    /// Bytes, against [`MAX_ASSEMBLED`].
    assembled: usize,
}

impl Assembly<'_> {
    fn document(&mut self, annex: &str, depth: usize) -> Result<(), TargetError> {
        if depth > MAX_DEPTH {
            return Err(TargetError::Limit {
                what: "nested includes",
                limit: MAX_DEPTH,
            });
        }
        self.includes += 1;
        if self.includes > MAX_INCLUDES {
            return Err(TargetError::Limit {
                what: "includes",
                limit: MAX_INCLUDES,
            });
        }
        let text = self
            .documents
            .get(annex)
            .ok_or_else(|| TargetError::Missing(annex.to_owned()))?;
        self.count(text.len())?;
        let mut feature = String::new();
        walk(annex, text, &mut |piece| {
            match piece {
                Piece::Architecture(name) => {
                    self.target.architecture.get_or_insert(name);
                }
                Piece::Feature(name) => feature = name,
                Piece::Include(href) => self.document(&href, depth + 1)?,
                Piece::Register { name, bits, number } => {
                    self.register(name, bits, number, &feature)?
                }
            }
            Ok(())
        })
    }

    fn count(&mut self, bytes: usize) -> Result<(), TargetError> {
        self.assembled = self.assembled.saturating_add(bytes);
        if self.assembled > MAX_ASSEMBLED {
            return Err(TargetError::Limit {
                what: "bytes with every include",
                limit: MAX_ASSEMBLED,
            });
        }
        Ok(())
    }

    fn register(
        &mut self,
        name: String,
        bits: u32,
        number: Option<u32>,
        feature: &str,
    ) -> Result<(), TargetError> {
        if self.target.registers.len() == MAX_REGISTERS {
            return Err(TargetError::Limit {
                what: "registers",
                limit: MAX_REGISTERS,
            });
        }
        if bits > MAX_BITS {
            return Err(TargetError::Limit {
                what: "bits in a register",
                limit: MAX_BITS as usize,
            });
        }
        self.count(feature.len())?;
        let number = number.unwrap_or(self.next);
        self.next = number.saturating_add(1);
        self.target.registers.push(Register {
            name,
            bits,
            number,
            feature: feature.to_owned(),
        });
        Ok(())
    }
}

/// What one document holds that matters here.
enum Piece {
    Architecture(String),
    Feature(String),
    Include(String),
    Register {
        name: String,
        bits: u32,
        number: Option<u32>,
    },
}

/// Goes through one document once, without recursion: depth costs nothing.
fn walk(
    annex: &str,
    text: &str,
    found: &mut dyn FnMut(Piece) -> Result<(), TargetError>,
) -> Result<(), TargetError> {
    let mut reader = Reader::from_str(text);
    let mut in_architecture = false;
    let mut architecture = String::new();
    loop {
        let malformed = |reader: &Reader<&[u8]>, problem: String| TargetError::Malformed {
            annex: annex.to_owned(),
            offset: reader.buffer_position(),
            problem,
        };
        let event = reader.read_event().map_err(|error| {
            let offset = reader.error_position();
            TargetError::Malformed {
                annex: annex.to_owned(),
                offset,
                problem: error.to_string(),
            }
        })?;
        match event {
            Event::Eof => return Ok(()),
            Event::Start(tag) if tag.local_name().as_ref() == "architecture" => {
                in_architecture = true;
                architecture.clear();
            }
            Event::Start(tag) | Event::Empty(tag) => {
                if let Some(piece) =
                    read_tag(&tag).map_err(|problem| malformed(&reader, problem))?
                {
                    found(piece)?;
                }
            }
            Event::Text(content) if in_architecture => {
                architecture.push_str(&content.xml10_content())
            }
            Event::End(tag) if in_architecture && tag.local_name().as_ref() == "architecture" => {
                in_architecture = false;
                let name = architecture.trim();
                if !name.is_empty() {
                    found(Piece::Architecture(name.to_owned()))?;
                }
            }
            _ => {}
        }
    }
}

fn read_tag(tag: &BytesStart<'_>) -> Result<Option<Piece>, String> {
    let name = tag.local_name();
    Ok(match name.as_ref() {
        "feature" => Some(Piece::Feature(required(tag, "name")?)),
        "include" => Some(Piece::Include(required(tag, "href")?)),
        "reg" => Some(Piece::Register {
            name: required(tag, "name")?,
            bits: number(&required(tag, "bitsize")?)?,
            number: attribute(tag, "regnum")?
                .as_deref()
                .map(number)
                .transpose()?,
        }),
        _ => None,
    })
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = tag
        .try_get_attribute(name)
        .map_err(|error| error.to_string())?;
    let Some(found) = found else { return Ok(None) };
    let value = found
        .normalized_value(XmlVersion::Implicit1_0)
        .map_err(|error| error.to_string())?;
    Ok(Some(value.into_owned()))
}

fn required(tag: &BytesStart<'_>, name: &str) -> Result<String, String> {
    let missing = || format!("<{}> has no attribute '{name}'", tag.name().as_ref());
    attribute(tag, name)?.ok_or_else(missing)
}

fn number(text: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("'{text}' is no number"))
}
