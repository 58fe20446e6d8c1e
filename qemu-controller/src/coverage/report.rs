//! What ran, by file, line and function, for each test.

use std::collections::BTreeMap;

use firmware_info::SourceFunction;

/// Which lines and functions ran, by file; of several tests, each apart.
///
/// [`merge`](Self::merge) adds up runs, [`to_lcov`](Self::to_lcov) and
/// [`from_lcov`](Self::from_lcov) are the way to and from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// By test, `""` for none, and path.
    pub(super) tests: BTreeMap<String, BTreeMap<String, FileCoverage>>,
}

/// The lines and functions of a source file that have code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileCoverage {
    /// In how many runs each line ran.
    pub lines: BTreeMap<u32, u64>,
    /// The functions by name.
    pub functions: BTreeMap<String, FunctionCoverage>,
    /// Branches: none of QEMU's, but kept where a file that was read has some.
    pub branches: BTreeMap<Branch, Option<u64>>,
}

/// A function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionCoverage {
    /// Where it begins.
    pub line: u32,
    /// In how many runs it ran.
    pub count: u64,
}

/// A branch as lcov numbers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Branch {
    /// The line.
    pub line: u32,
    /// The block and the branch, as they were written.
    pub name: String,
}

/// How much of something ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Lines with code.
    pub lines: usize,
    /// Those that ran.
    pub lines_hit: usize,
    /// Functions.
    pub functions: usize,
    /// Those that ran.
    pub functions_hit: usize,
}

impl Coverage {
    /// Adds a function, which ran in so many runs.
    pub(super) fn add_function(&mut self, test: &str, function: &SourceFunction, count: u64) {
        let SourceFunction {
            name, file, line, ..
        } = function;
        let functions = &mut self.file(test, file).functions;
        // Two of one name in a file: the name tells them apart, since lcov goes by that.
        let other = functions
            .get(&**name)
            .is_some_and(|known| known.line != *line);
        let name = match other {
            true => format!("{name} at line {line}"),
            false => name.to_string(),
        };
        functions.insert(name, FunctionCoverage { line: *line, count });
    }

    pub(super) fn file(&mut self, test: &str, file: &str) -> &mut FileCoverage {
        if !self.tests.contains_key(test) {
            self.tests.insert(test.to_owned(), BTreeMap::new());
        }
        let files = self.tests.entry(test.to_owned()).or_default();
        files.entry(file.to_owned()).or_default()
    }

    /// Adds another run's: the counts of each line and function are added up.
    pub fn merge(&mut self, other: &Self) {
        for (test, files) in &other.tests {
            for (path, file) in files {
                self.file(test, path).merge(file);
            }
        }
    }

    /// Leaves out the files that `wanted` does not take, by path.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        for files in self.tests.values_mut() {
            files.retain(|path, _| wanted(path));
        }
    }

    /// Leaves out the files that nothing ran of.
    pub fn leave_out_what_did_not_run(&mut self) {
        for files in self.tests.values_mut() {
            files.retain(|_, file| file.lines.values().any(|count| *count > 0));
        }
    }

    /// The files in the order of their paths, all tests together.
    #[must_use]
    pub fn files(&self) -> BTreeMap<&str, FileCoverage> {
        let mut files = BTreeMap::<&str, FileCoverage>::new();
        for (path, file) in self.tests.values().flatten() {
            files.entry(path).or_default().merge(file);
        }
        files
    }

    /// The tests whose names are known.
    pub fn tests(&self) -> impl Iterator<Item = &str> {
        let names = self.tests.keys().map(String::as_str);
        names.filter(|name| !name.is_empty())
    }

    /// The tests, of those with a name, that ran this line.
    pub fn tests_of<'a>(&'a self, path: &'a str, line: u32) -> impl Iterator<Item = &'a str> {
        let ran = move |files: &BTreeMap<String, FileCoverage>| {
            let file = files.get(path);
            file.and_then(|file| file.lines.get(&line))
                .is_some_and(|count| *count > 0)
        };
        let tests = self.tests.iter().filter(move |(_, files)| ran(files));
        tests
            .map(|(test, _)| test.as_str())
            .filter(|test| !test.is_empty())
    }

    /// How much ran, of all files.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let files = self.files();
        files.values().map(FileCoverage::totals).sum()
    }
}

impl FileCoverage {
    fn merge(&mut self, other: &Self) {
        for (line, count) in &other.lines {
            let known = self.lines.entry(*line).or_default();
            *known = known.saturating_add(*count);
        }
        for (name, function) in &other.functions {
            let known = self.functions.entry(name.clone()).or_default();
            known.line = function.line;
            known.count = known.count.saturating_add(function.count);
        }
        for (branch, taken) in &other.branches {
            let known = self.branches.entry(branch.clone()).or_default();
            *known = match (*known, *taken) {
                (Some(a), Some(b)) => Some(a.saturating_add(b)),
                (a, b) => a.or(b),
            };
        }
    }

    /// How much of it ran.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            lines: self.lines.len(),
            lines_hit: self.lines.values().filter(|count| **count > 0).count(),
            functions: self.functions.len(),
            functions_hit: self
                .functions
                .values()
                .filter(|function| function.count > 0)
                .count(),
        }
    }
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(totals: I) -> Self {
        totals.fold(Self::default(), |sum, one| Self {
            lines: sum.lines + one.lines,
            lines_hit: sum.lines_hit + one.lines_hit,
            functions: sum.functions + one.functions,
            functions_hit: sum.functions_hit + one.functions_hit,
        })
    }
}
