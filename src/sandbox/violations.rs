//! What clients did wrong: one record per broken rule, with enough context to find the cause.

use serde::Serialize;

/// One objection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// Position in the list since the start, from 1.
    pub number: u64,
    /// Wall clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The connection it happened on.
    pub connection: u64,
    /// Phone number of the account, once it is known.
    pub phone: Option<String>,
    /// The rule that was broken, a stable word like `ack-without-recipient`.
    pub rule: &'static str,
    /// In words.
    pub detail: String,
    /// Shape of the stanza: tags and attribute names, no content.
    pub stanza: String,
}

/// All violations so far, oldest dropped beyond `MAX_KEPT`.
#[derive(Debug, Default)]
pub struct Violations {
    kept: std::collections::VecDeque<Violation>,
    total: u64,
}

impl Violations {
    /// Adds one; its number is set here.
    pub fn record(&mut self, mut violation: Violation) {
        self.total += 1;
        violation.number = self.total;
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(violation);
    }

    /// How many there were, dropped ones included.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Those still kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.kept.iter()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.total = 0;
    }
}

/// Enough to find a cause; a client that breaks a rule per message must not eat the memory.
const MAX_KEPT: usize = 10_000;
