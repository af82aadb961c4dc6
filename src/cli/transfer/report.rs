//! What an import or an export did, for people and for programs.

use serde_json::{Map, Value, json};

use super::{Options, Refusal};
use crate::storage::sync::Summary;

/// The outcome of one run.
pub(super) struct Report<'a> {
    pub(super) command: &'static str,
    pub(super) options: &'a Options,
    pub(super) outcome: &'a Result<Summary, Refusal>,
}

impl Report<'_> {
    /// Lines that begin with one word.
    pub(super) fn text(&self) -> String {
        let summary = match self.outcome {
            Ok(summary) => summary,
            Err(refusal) => return format!("refused  {}\n", with_causes(refusal)),
        };
        let Options { session, place, .. } = self.options;
        let mut text = format!("account  {} of session {session}\n", summary.phone);
        let kinds: Vec<String> =
            summary.found.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let mut line = |word: &str, rest: &str| text += &format!("{word:<8} {rest}\n");
        line("found", &kinds.join(", "));
        summary.changes.iter().for_each(|change| line("change", change));
        if !summary.kept.is_empty() {
            line("kept", &format!("as they are, not read: {}", summary.kept.join(", ")));
        }
        for (file, reason) in &summary.refused {
            line("refused", &format!("{file}: {reason}"));
        }
        let done = match (self.command, self.options.dry_run) {
            (_, true) => format!("nothing; it would be {} files", summary.files),
            ("import", _) => {
                format!("{} files; POST /session/create and connect go on with them", summary.files)
            }
            _ => format!(
                "{} files to {place}; workers leave the session alone until it is connected",
                summary.files
            ),
        };
        line("written", &done);
        text
    }

    /// One object and a line break.
    pub(super) fn json(&self) -> String {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        put("session", json!(self.options.session));
        put("dryRun", json!(self.options.dry_run));
        match self.outcome {
            Err(refusal) => {
                put("verdict", json!("unusable"));
                put("error", json!(with_causes(refusal)));
            }
            Ok(summary) => {
                let refused = summary.refused.iter();
                let refused: Vec<Value> =
                    refused.map(|(file, reason)| json!({ "file": file, "reason": reason })).collect();
                put("verdict", json!(if refused.is_empty() { "ok" } else { "partial" }));
                put("phoneNumber", json!(summary.phone));
                put("found", json!(summary.found));
                put("changes", json!(summary.changes));
                put("kept", json!(summary.kept));
                put("refused", json!(refused));
                put("files", json!(summary.files));
            }
        }
        format!("{}\n", Value::Object(fields))
    }
}

/// An error and everything behind it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
