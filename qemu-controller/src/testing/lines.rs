//! What the lines that a firmware prints say of its tests.

use std::borrow::Cow;

use super::PrintedTests;
use crate::colours::without_colours;

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// This test has begun, or has come to its end.
    Test(Cow<'a, str>, Ending),
    /// The test that has begun has come to this end.
    Result(Ending),
    /// All tests have run.
    Over { failed: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Passed,
    Failed,
    Ignored,
    /// It began, and that is all.
    Begun,
}

/// What a line without its end says, if anything.
pub(super) fn read(kind: PrintedTests, line: &str) -> Option<Said<'_>> {
    match kind {
        PrintedTests::One => None,
        PrintedTests::Lines => rust_line(line),
        PrintedTests::Unity => unity_line(line),
        PrintedTests::Defmt => defmt_line(line),
    }
}

/// Why a test failed, as the line with its result says: Unity's `FILE:LINE:NAME:FAIL: why`.
pub(super) fn reason(kind: PrintedTests, line: &str) -> Option<&str> {
    let is_unity = kind == PrintedTests::Unity;
    let (_, why) = line.split_once(":FAIL: ").filter(|_| is_unity)?;
    Some(why.trim_end())
}

/// Of `defmt-test`, whatever the log format has before it: ``(1/4) running `NAME`...``. A test has
/// passed when the next one begins, or all are said to have. One that is ignored it runs all the
/// same, and takes no notice of what comes of it.
fn defmt_line(line: &str) -> Option<Said<'_>> {
    if line.ends_with("all tests passed!") {
        return Some(Said::Over { failed: false });
    }
    let (before, name) = line.strip_suffix("`...")?.rsplit_once(" `")?;
    let (count, ending) = match before.rsplit_once(") ")? {
        (count, "running") => (count, Ending::Begun),
        (count, "ignoring") => (count, Ending::Ignored),
        _ => return None,
    };
    let (_, count) = count.rsplit_once('(')?;
    let (number, all) = count.split_once('/')?;
    let are_numbers = is_number(number) && is_number(all);
    are_numbers.then_some(Said::Test(name.into(), ending))
}

/// `test NAME ... ok`, `NAME... [ok]`, `test result: ok. …`.
fn rust_line(line: &str) -> Option<Said<'_>> {
    if let Some(result) = line.strip_prefix("test result: ") {
        let failed = !result.starts_with("ok");
        return Some(Said::Over { failed });
    }
    let (name, rest) = match line.strip_prefix("test ") {
        Some(test) => test.split_once(" ...")?,
        None => match line.split_once("...") {
            // Other lines have three dots too.
            Some((name, rest))
                if name.contains("::")
                    && !name.contains(char::is_whitespace)
                    && (rest.trim_start().is_empty() || rust_word(rest).is_some()) =>
            {
                (name, rest)
            }
            _ => return rust_word(line).map(Said::Result),
        },
    };
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    let ending = rust_word(rest).unwrap_or(Ending::Begun);
    Some(Said::Test(name.into(), ending))
}

/// The word for a result, alone on what is left of a line.
fn rust_word(rest: &str) -> Option<Ending> {
    let word = rest.trim().trim_start_matches('[').trim_end_matches(']');
    let word = word.split([',', '<']).next().unwrap_or_default().trim();
    match word.to_ascii_lowercase().as_str() {
        "ok" | "passed" => Some(Ending::Passed),
        "failed" => Some(Ending::Failed),
        "ignored" => Some(Ending::Ignored),
        _ => None,
    }
}

/// `FILE:LINE:NAME:PASS`, `…:FAIL: why`, `3 Tests 1 Failures 0 Ignored`; of the fixture
/// `TEST(GROUP, NAME) PASS`, `TEST(GROUP, NAME)FILE:LINE::FAIL: why`, `IGNORE_TEST(GROUP, NAME)`,
/// where the test may print in between. A test of the fixture is called `GROUP::NAME`.
fn unity_line(line: &str) -> Option<Said<'_>> {
    if let Some(failed) = unity_summary(line) {
        return Some(Said::Over { failed });
    }
    if let Some((name, _)) = line.strip_prefix("IGNORE_").and_then(of_fixture) {
        return Some(Said::Test(name.into(), Ending::Ignored));
    }
    if let Some((name, rest)) = of_fixture(line) {
        let ending = fixture_result(rest).unwrap_or(Ending::Begun);
        return Some(Said::Test(name.into(), ending));
    }
    match unity_result(line) {
        Some(("", ending)) => Some(Said::Result(ending)),
        Some((name, ending)) => Some(Said::Test(unity_name(name), ending)),
        None => fixture_result(line).map(Said::Result),
    }
}

/// The name of a test as it is shown.
pub(super) fn unity_name(name: &str) -> Cow<'_, str> {
    match of_fixture(name) {
        Some((name, "")) => name.into(),
        _ => name.into(),
    }
}

/// `TEST(GROUP, NAME)`, and what follows it.
fn of_fixture(line: &str) -> Option<(String, &str)> {
    let (names, rest) = line.strip_prefix("TEST(")?.split_once(')')?;
    let (group, name) = names.split_once(", ")?;
    Some((format!("{group}::{name}"), rest))
}

fn fixture_result(rest: &str) -> Option<Ending> {
    if let Some((_, ending)) = unity_result(rest) {
        return Some(ending);
    }
    // The time that it took, where it is taken.
    let plain = match rest.rsplit_once(" (") {
        Some((plain, time)) if time.ends_with(" ms)") => plain,
        _ => rest,
    };
    plain.ends_with(" PASS").then_some(Ending::Passed)
}

/// The test's name and result behind `FILE:LINE:`. All of them may have colons.
fn unity_result(line: &str) -> Option<(&str, Ending)> {
    let words = [
        (":PASS", Ending::Passed),
        (":FAIL", Ending::Failed),
        (":IGNORE", Ending::Ignored),
    ];
    let ends_word = |end: usize| matches!(line[end..].chars().next(), None | Some(':' | ' '));
    let found = words.into_iter().filter_map(|(word, ending)| {
        let mut places = line.match_indices(word).map(|(at, _)| at);
        Some((places.find(|at| ends_word(at + word.len()))?, ending))
    });
    let (end, ending) = found.min_by_key(|(place, _)| *place)?;
    let before = &line[..end];
    let mut colons = before.rmatch_indices(':').map(|(at, _)| at);
    let colon = colons.find(|&at| {
        let fields = before[..at].rsplit_once(':');
        fields.is_some_and(|(_, number)| is_number(number))
    })?;
    Some((&before[colon + 1..], ending))
}

/// Whether one failed, of `N Tests N Failures N Ignored`.
fn unity_summary(line: &str) -> Option<bool> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        [tests, "Tests", failures, "Failures", ignored, "Ignored"]
            if [tests, failures, ignored].into_iter().all(is_number) =>
        {
            Some(failures.bytes().any(|digit| digit != b'0'))
        }
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A line as it is kept and read.
pub(super) fn plain(line: &[u8]) -> String {
    without_colours(&String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: PrintedTests, rows: &[(&str, Option<Said<'_>>)]) {
        for (line, expected) in rows {
            assert_eq!(read(kind, line), *expected, "{line}");
        }
    }

    fn test(name: &str, ending: Ending) -> Option<Said<'_>> {
        Some(Said::Test(name.into(), ending))
    }

    fn over(failed: bool) -> Option<Said<'static>> {
        Some(Said::Over { failed })
    }

    #[test]
    fn lines_as_of_rust() {
        let rows = [
            ("running 4 tests", None),
            ("test a::one ... ok", test("a::one", Ending::Passed)),
            ("test two ... FAILED", test("two", Ending::Failed)),
            (
                "test three - should panic ... ignored",
                test("three", Ending::Ignored),
            ),
            ("test four ... ok <0.01s>", test("four", Ending::Passed)),
            ("crate::five...\t[ok]", test("crate::five", Ending::Passed)),
            ("crate::six...", test("crate::six", Ending::Begun)),
            ("[failed]", Some(Said::Result(Ending::Failed))),
            ("test seven ... ", test("seven", Ending::Begun)),
            ("waiting... ok", None),
            ("loading file...", None),
            ("test result: ok. 3 passed; 0 failed", over(false)),
            ("test result: FAILED. 3 passed; 1 failed", over(true)),
        ];
        check(PrintedTests::Lines, &rows);
    }

    #[test]
    fn lines_as_of_defmt_test() {
        let rows = [
            ("INFO it begins", None),
            ("(1/5) running `one`...", test("one", Ending::Begun)),
            ("DEBUG (1/2) running", None),
            ("0.7 (2/5) ignoring `two`...", test("two", Ending::Ignored)),
            ("all tests passed!", over(false)),
        ];
        check(PrintedTests::Defmt, &rows);
    }

    #[test]
    fn lines_as_of_unity() {
        let rows = [
            (
                "test/t.c:12:test_adds:PASS",
                test("test_adds", Ending::Passed),
            ),
            (
                "C:\\t.c:20:test_fails:FAIL: Expected 1 Was 2. b:PASS",
                test("test_fails", Ending::Failed),
            ),
            (
                "t.c:30:test_later:IGNORE",
                test("test_later", Ending::Ignored),
            ),
            (
                "half a line: t.c:3:test_of(\"a:b\", 2):PASS (3 ms)",
                test("test_of(\"a:b\", 2)", Ending::Passed),
            ),
            (
                ".!.t.c:3:TEST(sums, adds):FAIL: no",
                test("sums::adds", Ending::Failed),
            ),
            ("t.c:31:test_later:INFO: x", None),
            ("TEST(sums, adds) PASS", test("sums::adds", Ending::Passed)),
            (
                "TEST(sums, adds) PASS (12 ms)",
                test("sums::adds", Ending::Passed),
            ),
            (
                "TEST(sums, adds)t.c:3::FAIL: no",
                test("sums::adds", Ending::Failed),
            ),
            ("TEST(sums, adds)", test("sums::adds", Ending::Begun)),
            ("what it prints PASS", Some(Said::Result(Ending::Passed))),
            ("t.c:3::IGNORE", Some(Said::Result(Ending::Ignored))),
            (
                "IGNORE_TEST(sums, adds)",
                test("sums::adds", Ending::Ignored),
            ),
            ("-----------------------", None),
            ("3 Tests 1 Failures 1 Ignored ", over(true)),
            ("3 Tests 0 Failures 1 Ignored ", over(false)),
            ("OK", None),
            (
                "12:30:45 t.c:3:test_adds:PASS",
                test("test_adds", Ending::Passed),
            ),
            ("12:30:45", None),
            ("a:b", None),
        ];
        check(PrintedTests::Unity, &rows);
    }
}
