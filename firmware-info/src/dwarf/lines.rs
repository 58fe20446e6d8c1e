//! The line program of a unit: which line an address comes from, and which addresses a line has.

use std::sync::{Arc, OnceLock};

use gimli::{AttributeValue, ColumnType, DebugLineOffset, Reader as _, Section as _};

use super::{Budget, Bytes, LiveCode, Result};
use crate::code_lines::CodeLine;
use crate::error::DebugInfoError;
use crate::source::SourceLocation;

/// A longer path is cut.
const MAX_PATH: usize = 4096;

/// How many rows before an address are looked at for a line.
const NEAR: usize = 32;

#[derive(Default)]
pub(crate) struct Lines {
    files: Vec<FileName>,
    directories: Vec<Bytes>,
    comp_dir: Option<Bytes>,
    /// Version 5 counts files from 0, and directory 0 is the one of the compilation, in full.
    version: u16,
    sequences: Vec<Sequence>,
}

struct FileName {
    name: Bytes,
    directory: u64,
    path: OnceLock<Arc<str>>,
}

struct Sequence {
    begin: u64,
    end: u64,
    rows: Vec<Row>,
}

#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) address: u64,
    pub(crate) file: u64,
    /// 0 where the code comes from no line.
    pub(crate) line: u32,
    /// 0 where it is not known.
    pub(crate) column: u32,
    is_statement: bool,
}

impl Lines {
    pub(crate) fn parse(
        dwarf: &gimli::Dwarf<Bytes>,
        unit: &gimli::Unit<Bytes>,
        offset: DebugLineOffset,
        budget: &Budget,
        live: &LiveCode<'_>,
    ) -> Result<Self> {
        check_header(dwarf, offset, budget)?;
        let program = dwarf.debug_line.program(
            offset,
            unit.header.address_size(),
            unit.comp_dir.clone(),
            None,
        )?;
        let header = program.header();
        let string = |value: &AttributeValue<Bytes>| dwarf.attr_string(unit, value.clone());
        let mut lines = Self {
            directories: header
                .include_directories()
                .iter()
                .map(string)
                .collect::<Result<_, _>>()?,
            files: Vec::new(),
            comp_dir: unit.comp_dir.clone(),
            version: header.version(),
            sequences: Vec::new(),
        };
        for file in header.file_names() {
            lines.files.push(FileName {
                name: string(&file.path_name())?,
                directory: file.directory_index(),
                path: OnceLock::new(),
            });
        }
        let mut rows = program.rows();
        let mut current = Vec::new();
        while let Some((_, row)) = rows.next_row()? {
            budget.rows.take(1)?;
            if row.end_sequence() {
                lines.finish(std::mem::take(&mut current), row.address(), live);
                continue;
            }
            current.push(Row {
                address: row.address(),
                file: row.file_index(),
                line: row
                    .line()
                    .map_or(0, |line| u32::try_from(line.get()).unwrap_or(0)),
                column: match row.column() {
                    ColumnType::LeftEdge => 0,
                    ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or(0),
                },
                is_statement: row.is_stmt(),
            });
        }
        lines.sequences.sort_by_key(|sequence| sequence.begin);
        Ok(lines)
    }

    fn finish(&mut self, rows: Vec<Row>, end: u64, live: &LiveCode<'_>) {
        let Some(begin) = rows.first().map(|row| row.address) else {
            return;
        };
        let ordered = rows.is_sorted_by_key(|row| row.address);
        if begin < end && ordered && live.sequence(begin) {
            self.sequences.push(Sequence { begin, end, rows });
        }
    }

    /// The row that an address belongs to: of the last rows at or before it one that begins a
    /// statement, as gdb chooses, or else the last. Behind several statements that have the same
    /// address compilers add rows that only refine a position within one.
    pub(crate) fn row(&self, address: u64) -> Option<&Row> {
        let rows = self.rows_to(address)?;
        let last = rows.last()?;
        let first = rows.partition_point(|row| row.address < last.address);
        Some(chosen(&rows[first..], last))
    }

    /// Rows that have a line, before an address of code that the compiler made up: the nearest
    /// first, and not all of them.
    pub(crate) fn lines_before(&self, address: u64) -> impl Iterator<Item = &Row> {
        let rows = self.rows_to(address).unwrap_or_default();
        rows.iter().rev().take(NEAR).filter(|row| row.line != 0)
    }

    /// The rows at or before an address, of the sequence that it is in.
    fn rows_to(&self, address: u64) -> Option<&[Row]> {
        let after = self
            .sequences
            .partition_point(|sequence| sequence.begin <= address);
        let sequence = self.sequences[..after].last()?;
        let after = sequence.rows.partition_point(|row| row.address <= address);
        (address < sequence.end).then_some(&sequence.rows[..after])
    }

    /// All pieces of code that come from a line, each with the row that [`row`](Self::row) chooses.
    pub(crate) fn code(&self, found: &mut Vec<CodeLine>) {
        for sequence in &self.sequences {
            let mut rows = &sequence.rows[..];
            while let Some(first) = rows.first() {
                let count = rows.partition_point(|row| row.address == first.address);
                let (same, rest) = rows.split_at(count);
                rows = rest;
                let end = rest.first().map_or(sequence.end, |row| row.address);
                let row = same.last().map_or(first, |last| chosen(same, last));
                if row.line == 0 || first.address >= end {
                    continue;
                }
                let Some(file) = self.path(row.file) else {
                    continue;
                };
                found.push(CodeLine {
                    range: first.address..end,
                    file,
                    line: row.line,
                    begins_statement: row.is_statement,
                });
            }
        }
    }

    /// Where the code of a line begins, for each piece of code it has.
    pub(crate) fn addresses(&self, path: &str, line: u32, found: &mut Vec<(u32, u64)>) {
        let first = u64::from(self.version < 5);
        let files: Vec<u64> = (first..)
            .zip(&self.files)
            .filter(|(_, file)| self.matches(file, path))
            .map(|(index, _)| index)
            .collect();
        if files.is_empty() {
            return;
        }
        for sequence in &self.sequences {
            let mut last = None;
            for row in &sequence.rows {
                let here = (row.file, row.line);
                if row.is_statement
                    && row.line >= line
                    && files.contains(&row.file)
                    && last != Some(here)
                {
                    found.push((row.line, row.address));
                }
                last = Some(here);
            }
        }
    }

    /// The path ends with the one that is looked for, at a separator.
    fn matches(&self, file: &FileName, wanted: &str) -> bool {
        let last = |path: &str| {
            path.rsplit(['/', '\\'])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        // Compared before the whole path is put together: many files may have a long directory.
        let name = file
            .name
            .to_string_lossy()
            .map(|name| last(&name))
            .unwrap_or_default();
        if name != last(wanted) {
            return false;
        }
        let path = self.render(file);
        path.strip_suffix(wanted).is_some_and(|head| {
            head.is_empty() || head.ends_with(['/', '\\']) || wanted.starts_with('/')
        })
    }

    pub(crate) fn location(&self, row: &Row) -> Option<SourceLocation> {
        self.path(row.file).map(|file| SourceLocation {
            file,
            line: row.line,
            column: row.column,
            approximate: false,
        })
    }

    pub(crate) fn path(&self, index: u64) -> Option<Arc<str>> {
        let at = if self.version < 5 {
            index.checked_sub(1)?
        } else {
            index
        };
        let file = self.files.get(usize::try_from(at).ok()?)?;
        Some(file.path.get_or_init(|| self.render(file).into()).clone())
    }

    fn render(&self, file: &FileName) -> String {
        let text = |bytes: &Bytes| {
            bytes
                .to_string_lossy()
                .map(|text| text.into_owned())
                .unwrap_or_default()
        };
        let mut path = self.comp_dir.as_ref().map(text).unwrap_or_default();
        let directory = match (self.version, file.directory) {
            (..5, 0) => None,
            (..5, index) => self
                .directories
                .get(usize::try_from(index - 1).unwrap_or(usize::MAX)),
            (_, index) => self
                .directories
                .get(usize::try_from(index).unwrap_or(usize::MAX)),
        };
        if let Some(directory) = directory {
            join(&mut path, &text(directory));
        }
        join(&mut path, &text(&file.name));
        if path.len() > MAX_PATH {
            path.truncate(path.floor_char_boundary(MAX_PATH));
        }
        path
    }
}

/// Of the rows that have one address.
fn chosen<'a>(same: &'a [Row], last: &'a Row) -> &'a Row {
    let statement = same.iter().rev().find(|row| row.is_statement);
    statement.unwrap_or(last)
}

fn join(path: &mut String, part: &str) {
    let is_absolute = part.starts_with(['/', '\\']) || part.get(1..3) == Some(":\\");
    if is_absolute || path.is_empty() {
        part.clone_into(path);
    } else if !part.is_empty() {
        let windows = path.starts_with('\\') || path.get(1..3) == Some(":\\");
        if !path.ends_with(['/', '\\']) {
            path.push(if windows { '\\' } else { '/' });
        }
        path.push_str(part);
    }
}

/// Refuses a header whose lists of files could be endless: in version 5 an entry may take no byte.
fn check_header(
    dwarf: &gimli::Dwarf<Bytes>,
    offset: DebugLineOffset,
    budget: &Budget,
) -> Result<()> {
    let mut reader = dwarf.debug_line.reader().clone();
    reader.skip(offset.0)?;
    let (length, format) = reader.read_initial_length()?;
    reader.truncate(length)?;
    let version = reader.read_u16()?;
    if version >= 5 {
        reader.skip(2)?;
    }
    let header = reader.read_length(format)?;
    reader.truncate(header)?;
    budget.headers.take(header as u64)?;
    if version < 5 {
        return Ok(());
    }
    // Up to the lengths of the opcodes, of which there is one less than the base.
    reader.skip(5)?;
    let opcode_base = reader.read_u8()?;
    reader.skip(usize::from(opcode_base.saturating_sub(1)))?;
    // The directories; what the files are made of comes behind them.
    let encoding = gimli::Encoding {
        format,
        version,
        address_size: 4,
    };
    for _ in 0..2 {
        let forms: Vec<gimli::DwForm> = (0..reader.read_u8()?)
            .map(|_| {
                reader.read_uleb128()?;
                Ok(gimli::DwForm(reader.read_uleb128_u16()?))
            })
            .collect::<Result<_>>()?;
        let count = reader.read_uleb128()?;
        if count > reader.len() as u64 {
            return Err(DebugInfoError::Limit(
                "a line program has more files than bytes",
            ));
        }
        for _ in 0..count {
            for form in &forms {
                skip_form(&mut reader, *form, encoding)?;
            }
        }
    }
    Ok(())
}

/// Skips a value in one of the forms that DWARF 5 has for files; each takes a byte at least.
fn skip_form(reader: &mut Bytes, form: gimli::DwForm, encoding: gimli::Encoding) -> Result<()> {
    let size = match form {
        gimli::DW_FORM_string => {
            reader.read_null_terminated_slice()?;
            0
        }
        gimli::DW_FORM_line_strp | gimli::DW_FORM_strp | gimli::DW_FORM_sec_offset => {
            usize::from(encoding.format.word_size())
        }
        gimli::DW_FORM_udata | gimli::DW_FORM_strx => {
            reader.read_uleb128()?;
            0
        }
        gimli::DW_FORM_block => {
            let length = reader.read_uleb128()?;
            usize::try_from(length).unwrap_or(usize::MAX)
        }
        gimli::DW_FORM_data1 | gimli::DW_FORM_strx1 => 1,
        gimli::DW_FORM_data2 | gimli::DW_FORM_strx2 => 2,
        gimli::DW_FORM_strx3 => 3,
        gimli::DW_FORM_data4 | gimli::DW_FORM_strx4 => 4,
        gimli::DW_FORM_data8 => 8,
        gimli::DW_FORM_data16 => 16,
        other => {
            return Err(DebugInfoError::Damaged(format!(
                "a file is described by {other}"
            )));
        }
    };
    Ok(reader.skip(size)?)
}
