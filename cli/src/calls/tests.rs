//! The tests of a firmware that has them (`embedded-test`): listed, and run on machines of their own.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use qemu_controller::testing::{Progress, TestCase, TestRun, embedded_tests};
use tokio::time::timeout;

use super::answer::{Answer, TestAnswer, Tests};
use super::error::{CallError, Kind};
use super::start::{Policy, Wanted};
use crate::report::chain;

/// How long one test may take that does not say so itself.
const TEST: Duration = Duration::from_secs(10);

/// How many tests are told of, and how much of what each printed, in bytes: the end.
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
    Ok(Answer::Tests(Tests::new(listed.collect(), more)))
}

/// Runs them, for so long at the most: those that were not run by then are told, too.
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
    let config = policy.machine(wanted)?;
    let config = match policy.semihosting() {
        Some(semihosting) => config.semihosting(semihosting),
        None => config,
    };
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
    let told = tests.into_iter().zip(results).map(|(test, result)| {
        let is_success = result.as_ref().map(|result| result.outcome.is_success());
        TestAnswer {
            name: test.name,
            result: match is_success {
                Some(true) => "passed",
                Some(false) => "failed",
                None => "not run",
            },
            why: result
                .as_ref()
                .filter(|result| !result.outcome.is_success())
                .map(|result| result.outcome.to_string()),
            output: result
                .filter(|result| !result.outcome.is_success())
                .map(|result| {
                    let from = result.output.len().saturating_sub(OUTPUT);
                    String::from_utf8_lossy(&result.output[from..]).into_owned()
                }),
        }
    });
    // Those that did not pass first: these are asked for.
    let mut told: Vec<_> = told.collect();
    told.sort_by_key(|test| test.result == "passed");
    let more = told.len().saturating_sub(TESTS);
    let counted = Tests::new(told, more);
    Ok(Answer::Tests(counted.at_most(TESTS)))
}
