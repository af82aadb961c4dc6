//! Environment text: read once, problems collected, leftovers with our prefixes reported with the nearest name.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use super::SETTINGS;

/// One problem with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Name of the variable.
    pub name: String,
    /// What is wrong, without the value: it may be a secret.
    pub problem: String,
}

/// All problems of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigProblems(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        for ConfigProblem { name, problem } in &self.0 {
            write!(f, "\n  {name} {problem}")?;
        }
        Ok(())
    }
}

/// The environment on its way to a configuration.
pub(super) struct Raw {
    vars: BTreeMap<String, String>,
    problems: Vec<ConfigProblem>,
}

impl Raw {
    /// Empty values count as unset: that is what an empty line in an environment file means.
    pub(super) fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let trimmed = vars.into_iter().map(|(name, value)| (name, value.trim().to_owned()));
        Self { vars: trimmed.filter(|(_, value)| !value.is_empty()).collect(), problems: Vec::new() }
    }

    pub(super) fn problem(&mut self, name: &str, problem: impl Into<String>) {
        self.problems.push(ConfigProblem { name: name.to_owned(), problem: problem.into() });
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.vars.contains_key(name)
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    /// The variable itself, or the content of the file named by `<name>_FILE`.
    pub(super) fn secret(&mut self, name: &str) -> Option<String> {
        let file_name = format!("{name}_FILE");
        let (value, file) = (self.text(name), self.text(&file_name));
        match (value, file) {
            (Some(_), Some(_)) => {
                self.problem(name, format!("and {file_name} must not both be set"));
                None
            }
            (value, None) => value,
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {
                    self.problem(&file_name, "names an empty file");
                    None
                }
                Ok(text) => Some(text.trim().to_owned()),
                Err(error) => {
                    self.problem(&file_name, format!("names a file that cannot be read: {error}"));
                    None
                }
            },
        }
    }

    pub(super) fn number<T>(&mut self, name: &str, default: T, bounds: RangeInclusive<T>) -> T
    where
        T: std::str::FromStr + PartialOrd + Copy + fmt::Display,
    {
        let Some(text) = self.text(name) else { return default };
        match text.parse().ok().filter(|value| bounds.contains(value)) {
            Some(value) => value,
            None => {
                self.problem(
                    name,
                    format!("must be a whole number from {} to {}", bounds.start(), bounds.end()),
                );
                default
            }
        }
    }

    /// One of several words; the first is the default.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> T {
        let default = choices.first().expect("every choice has options").1;
        let Some(text) = self.text(name) else { return default };
        match choices.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)) {
            Some((_, value)) => *value,
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.problem(name, format!("must be one of: {}", words.join(", ")));
                default
            }
        }
    }

    /// `true` or `false`, when it is set.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.text(name)?.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => {
                self.problem(name, "must be true or false");
                None
            }
        }
    }

    /// Warnings, when there was no problem.
    pub(super) fn finish(self, not_yet: &[&'static str]) -> Result<Vec<String>, ConfigProblems> {
        if !self.problems.is_empty() {
            return Err(ConfigProblems(self.problems));
        }
        let mut warnings = Vec::new();
        let unused: Vec<&str> =
            self.vars.keys().map(String::as_str).filter(|name| not_yet.contains(name)).collect();
        if !unused.is_empty() {
            warnings.push(format!("set, but not used by this version yet: {}", unused.join(", ")));
        }
        for name in self.vars.keys() {
            let is_ours = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if is_ours && !not_yet.contains(&name.as_str()) && !is_known(name) {
                let hint =
                    nearest(name, not_yet).map_or(String::new(), |near| format!("; did you mean {near}?"));
                warnings.push(format!("unknown setting {name}{hint}"));
            }
        }
        Ok(warnings)
    }
}

fn is_known(name: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        setting.name == name || setting.is_secret && name.strip_suffix("_FILE") == Some(setting.name)
    })
}

/// The known name with the fewest edits, when they are few.
fn nearest(name: &str, not_yet: &[&'static str]) -> Option<&'static str> {
    SETTINGS
        .iter()
        .map(|setting| setting.name)
        .chain(not_yet.iter().copied())
        .map(|known| (edit_distance(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            left = (diagonal + usize::from(letter != *other)).min(above + 1).min(left + 1);
            diagonal = above;
            row[j + 1] = left;
        }
    }
    row[b.len()]
}

/// Names that begin like this are meant for us.
const PREFIXES: [&str; 8] =
    ["WORKER_", "WHATSAPP_", "MINIO_", "STORAGE_", "RETENTION_", "BACKEND_", "WEBHOOK_", "SANDBOX_"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("WORKER_PORT", "WORKER_PORT"), 0);
    }
}
