//! Which tests are meant.

use qemu_controller::testing::TestCase;

use super::options::{Format, Options};

/// The tests that the filters leave, in the order in which they are run.
pub(super) struct Selection {
    pub(super) tests: Vec<Selected>,
    pub(super) filtered_out: usize,
    /// What the order was made by.
    pub(super) seed: Option<u64>,
}

pub(super) struct Selected {
    pub(super) test: TestCase,
    /// It is listed and counted, and not run.
    pub(super) is_ignored: bool,
}

impl Selection {
    pub(super) fn new(all: Vec<TestCase>, options: &Options) -> Self {
        let count = all.len();
        // As it is listed it is to be found by.
        let shown = all.into_iter().map(|mut test| {
            test.name = crate::escape::line(&test.name);
            test
        });
        let wanted = shown.filter(|test| is_wanted(test, options));
        let mut tests: Vec<_> = wanted
            .map(|test| Selected {
                is_ignored: options.bench
                    || test.ignored && !options.ignored && !options.include_ignored,
                test,
            })
            .collect();
        let seed = options.seed();
        if let Some(seed) = seed {
            fastrand::Rng::with_seed(seed).shuffle(&mut tests);
        }
        Self {
            filtered_out: count - tests.len(),
            tests,
            seed,
        }
    }

    pub(super) fn to_run(&self) -> Vec<TestCase> {
        let run = self.tests.iter().filter(|test| !test.is_ignored);
        run.map(|test| test.test.clone()).collect()
    }

    /// As `--list` prints them.
    pub(super) fn list(&self, options: &Options) -> String {
        let name = |test: &Selected| format!("{}: test\n", test.test.name);
        let mut text: String = self.tests.iter().map(name).collect();
        if options.format() == Format::Pretty {
            let plural = if self.tests.len() == 1 { "" } else { "s" };
            text += &format!("\n{} test{plural}, 0 benchmarks\n", self.tests.len());
        }
        text
    }
}

fn is_wanted(test: &TestCase, options: &Options) -> bool {
    let is_meant = |filter: &String| match options.exact {
        true => test.name == *filter,
        false => test.name.contains(filter.as_str()),
    };
    let is_in = options.filters.is_empty() || options.filters.iter().any(is_meant);
    let is_out = options.skip.iter().any(is_meant) || options.ignored && !test.ignored;
    is_in && !is_out
}
