//! Which lines are shown, by level and module.

use std::fmt;
use std::str::FromStr;

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "defmt's own words")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// As defmt writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which lines are shown: a level for all, and others for modules; written as `info`,
/// `warn,app::sensors=trace` or `app=debug,off`. Of several that fit a module the longest counts.
/// Lines without a level (`defmt::println!`) are always shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// For modules that no rule names. `None` shows nothing.
    default: Option<Level>,
    modules: Vec<(String, Option<Level>)>,
}

impl Default for Filter {
    /// Shows all.
    fn default() -> Self {
        Self {
            default: Some(Level::Trace),
            modules: Vec::new(),
        }
    }
}

impl Filter {
    /// Whether a line of this level and module is shown.
    #[must_use]
    pub fn takes(&self, level: Option<Level>, module: Option<&str>) -> bool {
        let Some(level) = level else { return true };
        let module = module.unwrap_or_default();
        let fits = |name: &str| {
            let rest = module.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let rules = self.modules.iter().filter(|(name, _)| fits(name));
        let rule = rules.max_by_key(|(name, _)| name.len());
        let least = rule.map_or(self.default, |(_, least)| *least);
        least.is_some_and(|least| level >= least)
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        let mut has_default = false;
        for rule in text.split(',').map(str::trim) {
            match rule.split_once('=') {
                Some((module, level)) if !module.trim().is_empty() => {
                    let module = module.trim().replace('-', "_");
                    filter.modules.push((module, least(level.trim())?));
                }
                None => {
                    filter.default = least(rule)?;
                    has_default = true;
                }
                Some(_) => return Err(format!("'{rule}' names no module")),
            }
        }
        // As with env_logger: who names modules alone wants to see those.
        if !has_default {
            filter.default = None;
        }
        Ok(filter)
    }
}

fn least(text: &str) -> Result<Option<Level>, String> {
    Ok(Some(match text.to_ascii_lowercase().as_str() {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "off" => return Ok(None),
        _ => {
            return Err(format!(
                "'{text}' is no level: trace, debug, info, warn, error or off"
            ));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_module_counts() {
        let filter: Filter = "warn, app=info,app::noisy=off,my-crate=trace"
            .parse()
            .unwrap();
        for (level, module, expected) in [
            (Level::Warn, "other", true),
            (Level::Info, "other", false),
            (Level::Info, "app", true),
            (Level::Info, "app::sensors", true),
            (Level::Error, "app::noisy::more", false),
            (Level::Info, "apple", false),
            (Level::Trace, "my_crate", true),
        ] {
            assert_eq!(
                filter.takes(Some(level), Some(module)),
                expected,
                "{level} {module}"
            );
        }
        assert!(filter.takes(None, Some("app::noisy")) && !filter.takes(Some(Level::Info), None));
        let alone: Filter = "app=debug".parse().unwrap();
        assert!(!alone.takes(Some(Level::Error), Some("other")));
        assert!(Filter::default().takes(Some(Level::Trace), None));
        for wrong in ["loud", "", "=info", "app=", "app=loud"] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }
}
