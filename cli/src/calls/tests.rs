//! The tests of a firmware: listed, and run on machines of their own.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use qemu_controller::testing::{
    FirmwareTests, Outcome, PrintedTests, Progress, TestCase, TestResult, TestRun, TestRunError,
};
use tokio::time::timeout;

use super::answer::{Answer, TestAnswer, TestAnswers};
use super::call::Start;
use super::error::CallError;
use super::start::Policy;
use crate::args::Run;
use crate::logs::Logs;
use crate::test_run::{self, firmware_name};

/// How long one test may take that does not say so itself.
const TEST: Duration = Duration::from_secs(10);

/// How many tests an answer has, and how much of what each printed, in bytes: the end.
const TESTS: usize = 500;
const OUTPUT: usize = 1024;

/// So many machines run side by side.
const THREADS: usize = 2;

fn find(path: &Path, said: Option<test_run::TestKind>) -> Result<FirmwareTests, CallError> {
    let found = test_run::TestKind::find(said, path).map_err(|error| CallError::failed(&error))?;
    found.ok_or_else(|| {
        CallError::invalid(
            "the firmware shows no tests: it has none of embedded-test, defmt-test or Unity; \
             `kind` says `lines` of one that prints results, and `one` of one whose exit is one",
        )
    })
}

/// Whether a test's name has one of these texts in it, where there are any.
fn is_meant(test: &TestCase, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter))
}

pub(crate) fn list(
    policy: &Policy,
    firmware: &Path,
    said: Option<test_run::TestKind>,
    filters: &[String],
) -> Result<Answer, CallError> {
    let mut tests = match find(&policy.file(firmware)?, said)? {
        FirmwareTests::Listed(tests) => tests,
        FirmwareTests::Printed(PrintedTests::One) => {
            vec![TestCase::named(firmware_name(Some(firmware)))]
        }
        FirmwareTests::Printed(_) => {
            let message = "the firmware runs its tests by itself, and which there are is known once \
                           it has: run_tests runs them";
            return Err(CallError::invalid(message));
        }
    };
    tests.retain(|test| is_meant(test, filters));
    let more = tests.len().saturating_sub(TESTS);
    let listed = tests.into_iter().take(TESTS).map(|test| TestAnswer {
        result: if test.ignored { "ignored" } else { "not run" },
        name: test.name,
        why: None,
        output: None,
    });
    Ok(Answer::Tests(TestAnswers::new(listed.collect(), more)))
}

/// Runs them, for so long at the most: of those that the ELF file lists the ones that were not run by
/// then are named, too.
pub(crate) async fn run(
    policy: &Policy,
    wanted: &Start,
    said: Option<test_run::TestKind>,
    filters: &[String],
    deadline: Duration,
) -> Result<Answer, CallError> {
    let path = policy.file(&wanted.firmware)?;
    let tests = find(&path, said)?;
    // As `run` reads them where nothing is said.
    let logs = Logs::of(&Run {
        firmware: Some(path.clone()),
        ..Run::default()
    });
    let logs = logs.map_err(|failure| CallError::invalid(failure.words()))?;
    // The run answers the calls of tests that are listed; whatever else they ask, QEMU does not.
    let (config, board) = policy.machine(wanted)?;
    let config = policy.semihosting.of(logs.config(config));
    let run = logs.of_tests(TestRun::new(config));
    let results = match tests {
        FirmwareTests::Listed(mut tests) => {
            tests.retain(|test| is_meant(test, filters) && !test.ignored);
            listed(run, tests, deadline).await
        }
        FirmwareTests::Printed(kind) => {
            let name = firmware_name(Some(&path));
            let ran = run.deadline(deadline).run_printed(kind, &name, |_| {});
            ran.await.map(|results| {
                let results = results.into_iter();
                let meant = results.filter(|(test, _)| is_meant(test, filters));
                meant.map(|(test, result)| (test, Some(result))).collect()
            })
        }
    };
    let mut results: Vec<_> = match results {
        Ok(results) => results,
        Err(TestRunError::Start(error)) => return Err(board.refusal(error).await),
        Err(error) => return Err(CallError::failed(&error)),
    };
    // Those that did not pass first: these are asked for.
    results.sort_by_key(|(_, result)| matches!(result, Some(ran) if ran.outcome.is_success()));
    let answers = results
        .into_iter()
        .map(|(test, result)| answer(test, result));
    let answers: Vec<_> = answers.collect();
    let more = answers.len().saturating_sub(TESTS);
    let counted = TestAnswers::new(answers, more);
    Ok(Answer::Tests(counted.at_most(TESTS)))
}

/// Runs tests that the ELF file lists; the result is `None` of one that was not run in time.
async fn listed(
    run: TestRun,
    tests: Vec<TestCase>,
    deadline: Duration,
) -> Result<Vec<(TestCase, Option<TestResult>)>, TestRunError> {
    let results = Mutex::new(vec![None; tests.len()]);
    let run = run.threads(THREADS).deadline(TEST);
    let running = run.run(&tests, |progress| {
        if let (Progress::Finished(index, result), Ok(mut results)) = (progress, results.lock()) {
            results[index] = Some(result.clone());
        }
    });
    if let Ok(Err(error)) = timeout(deadline, running).await {
        return Err(error);
    }
    let results = results.into_inner().unwrap_or_default();
    Ok(tests.into_iter().zip(results).collect())
}

/// What became of a test; `None` where it was not run.
fn answer(test: TestCase, result: Option<TestResult>) -> TestAnswer {
    let failed = result
        .as_ref()
        .filter(|result| !result.outcome.is_success());
    TestAnswer {
        name: test.name,
        result: match result.as_ref().map(|result| &result.outcome) {
            None => "not run",
            Some(Outcome::Ignored) => "ignored",
            Some(_) if failed.is_some() => "failed",
            Some(_) => "passed",
        },
        why: failed.map(|result| result.outcome.to_string()),
        output: failed.map(|result| {
            let from = result.output.len().saturating_sub(OUTPUT);
            String::from_utf8_lossy(&result.output[from..]).into_owned()
        }),
    }
}
