//! The tests of a firmware that has them (`embedded-test`): listed, and run on machines of their own.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use qemu_controller::testing::{Progress, TestCase, TestResult, TestRun, embedded_tests};
use tokio::time::timeout;

use super::answer::{Answer, TestAnswer, TestAnswers};
use super::error::{CallError, Kind};
use super::start::{Policy, Wanted};
use crate::report::chain;

/// How long one test may take that does not say so itself.
const TEST: Duration = Duration::from_secs(10);

/// How many tests an answer has, and how much of what each printed, in bytes: the end.
const TESTS: usize = 500;
const OUTPUT: usize = 1024;

/// So many machines run side by side.
const THREADS: usize = 2;

fn failed(error: &dyn std::error::Error) -> CallError {
    CallError::new(Kind::Failed, chain(error))
}

/// Those whose names have one of these texts in them; all where there is none.
fn of(path: &Path, filters: &[String]) -> Result<Vec<TestCase>, CallError> {
    let tests = embedded_tests(path).map_err(|error| failed(&error))?;
    let tests = tests.ok_or_else(|| {
        let message = "the firmware has no tests of embedded-test (no section .embedded_test)";
        CallError::new(Kind::Invalid, message)
    })?;
    let is_meant = |test: &TestCase| {
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| test.name.contains(filter.as_str()))
    };
    Ok(tests.into_iter().filter(is_meant).collect())
}

pub(crate) fn list(
    policy: &Policy,
    firmware: &Path,
    filters: &[String],
) -> Result<Answer, CallError> {
    let tests = of(&policy.file(firmware)?, filters)?;
    let more = tests.len().saturating_sub(TESTS);
    let listed = tests.into_iter().take(TESTS).map(|test| TestAnswer {
        result: if test.ignored { "ignored" } else { "not run" },
        name: test.name,
        why: None,
        output: None,
    });
    Ok(Answer::Tests(TestAnswers::new(listed.collect(), more)))
}

/// Runs them, for so long at the most: those that were not run by then are named, too.
pub(crate) async fn run(
    policy: &Policy,
    wanted: &Wanted,
    filters: &[String],
    deadline: Duration,
) -> Result<Answer, CallError> {
    let path = policy.file(&wanted.firmware)?;
    let mut tests = of(&path, filters)?;
    tests.retain(|test| !test.ignored);
    // The run answers the tests' own calls; whatever else they ask, QEMU does not.
    let config = policy.semihosting.of(policy.machine(wanted)?);
    let results = Mutex::new(vec![None; tests.len()]);
    let run = TestRun::new(config).threads(THREADS).deadline(TEST);
    let running = run.run(&tests, |progress| {
        if let (Progress::Finished(index, result), Ok(mut results)) = (progress, results.lock()) {
            results[index] = Some(result.clone());
        }
    });
    if let Ok(Err(error)) = timeout(deadline, running).await {
        return Err(failed(&error));
    }
    let results = results.into_inner().unwrap_or_default();
    let answers = tests.into_iter().zip(results);
    let mut answers: Vec<_> = answers.map(|(test, result)| answer(test, result)).collect();
    // Those that did not pass first: these are asked for.
    answers.sort_by_key(|test| test.result == "passed");
    let more = answers.len().saturating_sub(TESTS);
    let counted = TestAnswers::new(answers, more);
    Ok(Answer::Tests(counted.at_most(TESTS)))
}

/// What became of a test; `None` where it was not run.
fn answer(test: TestCase, result: Option<TestResult>) -> TestAnswer {
    let failed = result
        .as_ref()
        .filter(|result| !result.outcome.is_success());
    TestAnswer {
        name: test.name,
        result: match (&result, failed) {
            (None, _) => "not run",
            (_, None) => "passed",
            (_, Some(_)) => "failed",
        },
        why: failed.map(|result| result.outcome.to_string()),
        output: failed.map(|result| {
            let from = result.output.len().saturating_sub(OUTPUT);
            String::from_utf8_lossy(&result.output[from..]).into_owned()
        }),
    }
}
