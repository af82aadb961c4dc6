//! Which event of a session goes out next, and which ones need not go out at all.
//!
//! | event | goes out |
//! |---|---|
//! | refused before, asked for again | first, oldest first |
//! | a kind that nobody wants, or that the backend does not know | never |
//! | `session-status` with a QR | only as the session's newest status: an older QR is worthless |
//! | `session-status`, where requests are few | only as the session's newest status |
//! | anything of a session that the backend deleted | not before it is started again |
//! | `session-status` of a session that another worker may have | never: it would claim the session |

use std::{collections::BTreeSet, sync::Arc};

use serde::Deserialize;

use crate::storage::local::{DeadLetter, OutboxPage, StoredEvent};

/// The kind that every backend gets.
pub(super) const SESSION_STATUS: &str = "session-status";

/// What decides about a session's events.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Kinds that are sent at the moment, [`SESSION_STATUS`] among them.
    pub(super) kinds: Arc<BTreeSet<&'static str>>,
    /// Number of the session's newest `session-status`.
    pub(super) last_status: u64,
    /// The backend does not know the session.
    pub(super) is_muted: bool,
    /// Statuses that are not the newest are left out.
    pub(super) coalesce: bool,
    /// This worker holds the session.
    pub(super) is_ours: bool,
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice<'p> {
    /// Everything up to here is settled without being sent.
    pub(super) skipped_to: u64,
    /// How many wanted ones were left out because a newer one says it all.
    pub(super) superseded: u64,
    /// The session was started again: the backend wants to hear of it.
    pub(super) unmuted: bool,
    /// What goes out.
    pub(super) pick: Option<Pick<'p>>,
}

/// Something to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pick<'p> {
    /// The next event of the log.
    Event(&'p StoredEvent),
    /// One that was refused before.
    Replay(&'p DeadLetter),
}

impl Pick<'_> {
    pub(super) fn event(&self) -> &StoredEvent {
        match self {
            Self::Event(event) => event,
            Self::Replay(letter) => &letter.event,
        }
    }
}

/// The first event of the page that goes out, and what is passed over on the way.
pub(super) fn choose<'p>(page: &'p OutboxPage, cursor: u64, view: &View) -> Choice<'p> {
    let mut choice = Choice { skipped_to: cursor, superseded: 0, unmuted: false, pick: None };
    if let Some(letter) = page.replays.first() {
        choice.pick = Some(Pick::Replay(letter));
        return choice;
    }
    let mut is_muted = view.is_muted;
    for event in &page.events {
        let is_status = event.kind == SESSION_STATUS;
        if is_muted && is_status && status_of(event) == Some("connecting") {
            is_muted = false;
            choice.unmuted = true;
        }
        if !is_muted && view.kinds.contains(event.kind.as_str()) {
            let is_newest = event.seq >= view.last_status;
            let is_superseded = !is_newest && (view.coalesce || status_of(event) == Some("qr_required"));
            let is_worthless = is_status && (is_superseded || !view.is_ours);
            if !is_worthless {
                choice.pick = Some(Pick::Event(event));
                return choice;
            }
            choice.superseded += 1;
        }
        choice.skipped_to = event.seq;
    }
    choice
}

/// The status word of a `session-status` event.
fn status_of(event: &StoredEvent) -> Option<&str> {
    #[derive(Deserialize)]
    struct Status<'a> {
        #[serde(borrow)]
        status: &'a str,
    }
    serde_json::from_str::<Status<'_>>(&event.payload).ok().map(|payload| payload.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, kind: &str, payload: &str) -> StoredEvent {
        let (kind, payload) = (kind.to_owned(), payload.to_owned());
        StoredEvent { seq, event_id: format!("u-{seq}"), kind, payload, created_ms: 1000 + seq }
    }

    fn status(seq: u64, word: &str) -> StoredEvent {
        event(seq, SESSION_STATUS, &format!(r#"{{"status":"{word}"}}"#))
    }

    fn page(events: Vec<StoredEvent>) -> OutboxPage {
        OutboxPage { session_id: "a".into(), replays: Vec::new(), events }
    }

    fn view(last_status: u64) -> View {
        let kinds = Arc::new(BTreeSet::from([SESSION_STATUS, "message"]));
        View { kinds, last_status, is_muted: false, coalesce: false, is_ours: true }
    }

    fn picked(choice: &Choice<'_>) -> Option<u64> {
        choice.pick.as_ref().map(|pick| pick.event().seq)
    }

    #[test]
    fn kinds_that_nobody_wants_are_passed_over() {
        let page =
            page(vec![event(4, "login", "{}"), event(5, "message-status", "{}"), event(6, "message", "{}")]);
        let choice = choose(&page, 3, &view(0));
        assert_eq!((choice.skipped_to, picked(&choice)), (5, Some(6)));
    }

    #[test]
    fn only_the_newest_qr_goes_out_and_none_once_the_status_moved_on() {
        let page = page(vec![status(1, "connecting"), status(2, "qr_required"), status(3, "qr_required")]);
        assert_eq!(picked(&choose(&page, 0, &view(3))), Some(1));
        let rest = OutboxPage { events: page.events[1..].to_vec(), ..page };
        let choice = choose(&rest, 1, &view(3));
        assert_eq!((choice.skipped_to, choice.superseded, picked(&choice)), (2, 1, Some(3)));
        // The status that followed is not in this page.
        let choice = choose(&rest, 1, &view(9));
        assert_eq!((choice.skipped_to, choice.superseded, picked(&choice)), (3, 2, None));
    }

    #[test]
    fn where_requests_are_few_only_the_last_status_goes_out() {
        let page = page(vec![
            status(1, "connecting"),
            status(2, "connected"),
            event(3, "message", "{}"),
            status(4, "reconnecting"),
        ]);
        let sparing = View { coalesce: true, ..view(4) };
        let choice = choose(&page, 0, &sparing);
        assert_eq!((choice.skipped_to, picked(&choice)), (2, Some(3)), "messages are never left out");
        let rest = OutboxPage { events: page.events[3..].to_vec(), ..page.clone() };
        assert_eq!(picked(&choose(&rest, 3, &sparing)), Some(4));
        assert_eq!(picked(&choose(&page, 0, &view(4))), Some(1), "otherwise every status goes out");
    }

    #[test]
    fn a_session_the_backend_deleted_is_silent_until_it_is_started_again() {
        let page = page(vec![status(1, "reconnecting"), event(2, "message", "{}"), status(3, "connecting")]);
        let muted = View { is_muted: true, ..view(3) };
        let choice = choose(&page, 0, &muted);
        assert_eq!((choice.unmuted, choice.skipped_to, picked(&choice)), (true, 2, Some(3)));
        let silent = OutboxPage { events: page.events[..2].to_vec(), ..page.clone() };
        let choice = choose(&silent, 0, &muted);
        assert_eq!((choice.unmuted, choice.skipped_to, picked(&choice)), (false, 2, None));
    }

    #[test]
    fn a_worker_does_not_speak_for_sessions_that_another_one_may_have() {
        let page = page(vec![status(1, "disconnected"), event(2, "message", "{}"), status(3, "error")]);
        let theirs = View { is_ours: false, ..view(3) };
        let choice = choose(&page, 0, &theirs);
        assert_eq!((choice.skipped_to, picked(&choice)), (1, Some(2)), "what it received is still told");
        let rest = OutboxPage { events: page.events[2..].to_vec(), ..page.clone() };
        assert_eq!(picked(&choose(&rest, 2, &theirs)), None);
    }

    #[test]
    fn what_was_refused_and_is_asked_for_again_goes_first() {
        let letter = DeadLetter {
            key: 7,
            session_id: "a".into(),
            event: event(2, "message", "{}"),
            failed_ms: 0,
            status: 400,
            reason: String::new(),
            attempts: 1,
            replay: true,
        };
        let mut page = page(vec![event(9, "message", "{}")]);
        page.replays.push(letter);
        let choice = choose(&page, 8, &view(0));
        assert_eq!((choice.skipped_to, picked(&choice)), (8, Some(2)));
    }
}
