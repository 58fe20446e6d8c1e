//! lcov's text form (`man geninfo`), which genhtml, editors and CI services read.

use std::io::{self, BufRead, Write};

use super::report::{Branch, Coverage, FileCoverage};

/// Longer lines are no record.
const MAX_LINE: u64 = 64 * 1024;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LcovError {
    /// It can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is no record of lcov's.
    #[error("line {number} is no record of lcov's: {text}")]
    Record {
        /// Its number, from 1.
        number: usize,
        /// Its beginning.
        text: String,
    },
}

impl Coverage {
    /// Writes it in lcov's form. A count is in how many runs something ran.
    ///
    /// # Errors
    /// The writer's own.
    pub fn to_lcov(&self, mut writer: impl Write) -> io::Result<()> {
        for (test, files) in &self.tests {
            for (path, file) in files {
                writeln!(writer, "TN:{}\nSF:{}", test_name(test), one_line(path))?;
                write_file(&mut writer, file)?;
            }
        }
        writer.flush()
    }

    /// Reads what [`to_lcov`](Self::to_lcov), lcov itself or another tool wrote. Records that only
    /// add up others, and those of checksums, are passed over.
    ///
    /// # Errors
    /// [`LcovError`].
    pub fn from_lcov(mut reader: impl BufRead) -> Result<Self, LcovError> {
        let mut coverage = Self::default();
        let (mut test, mut path) = (String::new(), None::<String>);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            let no_record = || LcovError::Record {
                number,
                text: text.chars().take(80).collect(),
            };
            match text.split_once(':') {
                Some(("TN", name)) => test = name.to_owned(),
                Some(("SF", name)) => path = Some(name.to_owned()),
                Some((kind, value)) => match &path {
                    Some(path) => read(coverage.file(&test, path), kind, value),
                    None => None,
                }
                .ok_or_else(no_record)?,
                None if text == "end_of_record" => path = None,
                None if text.is_empty() || text.starts_with('#') => {}
                None => return Err(no_record()),
            }
        }
        Ok(coverage)
    }
}

fn write_file(writer: &mut impl Write, file: &FileCoverage) -> io::Result<()> {
    for (name, function) in &file.functions {
        writeln!(writer, "FN:{},{}", function.line, one_line(name))?;
    }
    for (name, function) in &file.functions {
        writeln!(writer, "FNDA:{},{}", function.count, one_line(name))?;
    }
    let totals = file.totals();
    writeln!(
        writer,
        "FNF:{}\nFNH:{}",
        totals.functions, totals.functions_hit
    )?;
    for (branch, taken) in &file.branches {
        let taken = taken.map_or("-".to_owned(), |taken| taken.to_string());
        writeln!(
            writer,
            "BRDA:{},{},{taken}",
            branch.line,
            one_line(&branch.name)
        )?;
    }
    if !file.branches.is_empty() {
        let taken = file.branches.values().flatten();
        let taken = taken.filter(|taken| **taken > 0).count();
        writeln!(writer, "BRF:{}\nBRH:{taken}", file.branches.len())?;
    }
    for (line, count) in &file.lines {
        writeln!(writer, "DA:{line},{count}")?;
    }
    writeln!(
        writer,
        "LF:{}\nLH:{}\nend_of_record",
        totals.lines, totals.lines_hit
    )
}

/// Reads a record of a file; `None` where it is none.
fn read(file: &mut FileCoverage, kind: &str, value: &str) -> Option<()> {
    match kind {
        "DA" => {
            // A checksum may follow.
            let (line, rest) = value.split_once(',')?;
            let count = rest.split(',').next()?.parse::<i64>().ok()?;
            let known = file.lines.entry(line.parse().ok()?).or_default();
            // gcov writes negative ones where its counters overflowed.
            *known = known.saturating_add(u64::try_from(count).unwrap_or(0));
        }
        "FN" => {
            let (line, name) = value.split_once(',')?;
            // The line of the function's end may come before the name.
            let name = match name.split_once(',') {
                Some((end, name)) if end.parse::<u32>().is_ok() => name,
                _ => name,
            };
            let function = file.functions.entry(name.to_owned()).or_default();
            function.line = line.parse().ok()?;
        }
        "FNDA" => {
            let (count, name) = value.split_once(',')?;
            let count = count.parse::<u64>().ok()?;
            let known = &mut file.functions.entry(name.to_owned()).or_default().count;
            *known = known.saturating_add(count);
        }
        "BRDA" => {
            let (line, rest) = value.split_once(',')?;
            let (name, taken) = rest.rsplit_once(',')?;
            let branch = Branch {
                line: line.parse().ok()?,
                name: name.to_owned(),
            };
            let taken = match taken {
                "-" => None,
                taken => Some(taken.parse::<u64>().ok()?),
            };
            let known = file.branches.entry(branch).or_default();
            *known = match (*known, taken) {
                (Some(a), Some(b)) => Some(a.saturating_add(b)),
                (a, b) => a.or(b),
            };
        }
        // Sums, versions, newer lcov's function aliases and conditions.
        _ => kind
            .bytes()
            .all(|byte| byte.is_ascii_uppercase())
            .then_some(())?,
    }
    Some(())
}

/// lcov takes letters, digits and underscores.
fn test_name(name: &str) -> String {
    let legal = |c: char| match c.is_ascii_alphanumeric() {
        true => c,
        false => '_',
    };
    name.chars().map(legal).collect()
}

/// The firmware's texts may hold anything; a record ends with its line.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::FunctionCoverage;
    use super::*;

    fn written(coverage: &Coverage) -> String {
        let mut bytes = Vec::new();
        coverage.to_lcov(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn example() -> Coverage {
        let mut coverage = Coverage::default();
        let file = coverage.file("m::one", "src/a.c");
        file.lines = [(3, 1), (4, 0), (10, 1)].into();
        let functions = [("f<u8, u16>", 3, 1), ("f<u8, u16> at line 9", 9, 0)];
        file.functions = functions
            .map(|(name, line, count)| (name.to_owned(), FunctionCoverage { line, count }))
            .into();
        coverage.file("m::one", "odd\n\x1bname.c").lines = [(1, 0)].into();
        coverage
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = written(&example());
        assert_eq!(
            text,
            "TN:m__one\nSF:odd??name.c\nFNF:0\nFNH:0\nDA:1,0\nLF:1\nLH:0\nend_of_record\n\
             TN:m__one\nSF:src/a.c\nFN:3,f<u8, u16>\nFN:9,f<u8, u16> at line 9\n\
             FNDA:1,f<u8, u16>\nFNDA:0,f<u8, u16> at line 9\nFNF:2\nFNH:1\n\
             DA:3,1\nDA:4,0\nDA:10,1\nLF:3\nLH:2\nend_of_record\n"
        );
        let read = Coverage::from_lcov(text.as_bytes()).unwrap();
        assert_eq!(written(&read), text);
        let mut twice = read.clone();
        twice.merge(&read);
        assert_eq!(twice.totals(), read.totals());
        assert_eq!(twice.files()["src/a.c"].lines[&3], 2);
        assert_eq!(read.tests().collect::<Vec<_>>(), ["m__one"]);
        assert_eq!(read.tests_of("src/a.c", 3).count(), 1);
        assert_eq!(read.tests_of("src/a.c", 4).count(), 0);
    }

    #[test]
    fn files_of_other_tools_are_read() {
        let text = "TN:\nSF:/a.c\nFN:3,7,main\nFNDA:4,main\nFNF:1\nFNH:1\nBRDA:5,0,0,1\n\
                    BRDA:5,0,1,-\nBRF:2\nBRH:1\nDA:4,-1\nDA:5,8,checksum\nVER:x\nLF:2\nLH:1\n\
                    end_of_record\n";
        let mut coverage = Coverage::from_lcov(text.as_bytes()).unwrap();
        assert_eq!(coverage.files()["/a.c"].functions["main"].line, 3);
        coverage.merge(&coverage.clone());
        let merged = written(&coverage);
        for record in ["DA:5,16", "FNDA:8,main", "BRDA:5,0,0,2", "BRDA:5,0,1,-"] {
            assert!(merged.contains(&format!("{record}\n")), "{merged}");
        }
        for wrong in [
            "\x7fELF",
            "DA:1,1\n",
            "SF:a\nDA:x,1\n",
            "SF:a\nDA:1\n",
            "SF:a\nbr:1\n",
        ] {
            let error = Coverage::from_lcov(wrong.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("no record"), "{error}");
        }
    }
}
