//! What a check found, and how it is shown.

use serde::Serialize;

/// How bad it is. Ordered: the worst decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Nothing to do.
    Ok,
    /// The worker runs, but something will hurt.
    Warn,
    /// The worker cannot run, or not do its work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at, one or two words.
    pub(super) check: &'static str,
    /// How bad it is.
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) finding: String,
    /// What to do; only with `warn` and `fail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, finding: finding.into(), advice: None }
    }

    pub(super) fn warn(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, finding: finding.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fail(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, finding: finding.into(), advice: Some(advice.into()) }
    }

    fn line(&self) -> String {
        let word = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let advice = self.advice.as_ref().map_or(String::new(), |advice| format!(" -> {advice}"));
        format!("{word:<4} {:<15} {}{advice}\n", self.check, self.finding)
            .replace('\n', " ")
            .trim_end()
            .to_owned()
            + "\n"
    }
}

/// The worst verdict; no finding is fine.
pub(super) fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

/// One line per finding.
pub(super) fn text(findings: &[Finding]) -> String {
    findings.iter().map(Finding::line).collect()
}

/// `{"verdict":…,"findings":[…]}` and a line break.
pub(super) fn json(findings: &[Finding]) -> String {
    format!("{}\n", serde_json::json!({ "verdict": worst(findings), "findings": findings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_one_line_and_the_worst_one_counts() {
        let findings = [
            Finding::ok("settings", "fine"),
            Finding::fail("disk", "full\nreally", "free some space"),
            Finding::warn("limits", "low", "raise them"),
        ];
        let expected = "ok   settings        fine\nfail disk            full really -> free some space\n\
                        warn limits          low -> raise them\n";
        assert_eq!(text(&findings), expected);
        assert_eq!(worst(&findings), Verdict::Fail);
        let parsed: serde_json::Value = serde_json::from_str(&json(&findings)).unwrap();
        assert_eq!(parsed["verdict"], "fail");
        assert_eq!(
            parsed["findings"][0],
            serde_json::json!({"check":"settings","verdict":"ok","finding":"fine"})
        );
        assert_eq!(parsed["findings"][2]["advice"], "raise them");
    }
}
