//! `GET /session/{id}/messages/{messageId}`: one message with everything that is known of its way.

use serde::Serialize;

use super::{
    Api,
    fields::known_query,
    http::Request,
    messages::{MessageView, own_jid, view},
    recipient,
    respond::{Answer, ApiError, ok},
    time,
};
use crate::{
    storage::local::{StoredMessage, StoredReceipt},
    whatsapp::model::MessageStatus,
};

/// A message, its history, and in a group what each member did with it.
#[derive(Serialize)]
struct Progress {
    #[serde(flatten)]
    message: MessageView,
    history: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts: Option<Receipts>,
}

/// One status that was reached.
#[derive(Debug, Serialize, PartialEq)]
struct Step {
    status: &'static str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Members of a group, counted: who read a message has received it.
#[derive(Debug, Serialize, PartialEq)]
struct Receipts {
    delivered: usize,
    read: usize,
    played: usize,
    participants: Vec<Participant>,
}

#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Participant {
    participant: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    played_at: Option<String>,
}

pub(super) fn show(api: &Api, id: &str, message_id: &str, request: &Request) -> Answer {
    known_query(request, &["chat"])?;
    check_message_id("messageId", message_id)?;
    let chat = request.query("chat").map(|text| recipient::chat("chat", text)).transpose()?;
    let session = api.session(id)?;
    let found = api.store().message_progress(session.key(), message_id, chat.as_ref())?;
    let Some((message, receipts)) = found else { return Err(no_message()) };
    let history = history(&message);
    let is_shared = !message.record.chat.is_user() && message.record.from_me;
    let receipts = is_shared.then(|| count(&receipts));
    let message = view(message, own_jid(&session.snapshot()).as_deref());
    Ok(ok(&Progress { message, history, receipts }))
}

/// Ids come from many clients; all of them are short and visible.
///
/// # Errors
/// 400 naming `field`.
pub(super) fn check_message_id(field: &str, id: &str) -> Result<(), ApiError> {
    let is_valid =
        (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if is_valid { Ok(()) } else { Err(ApiError::field(field, "must be 1 to 128 visible ASCII characters")) }
}

pub(super) fn no_message() -> ApiError {
    ApiError::new(404, "MESSAGE_NOT_FOUND", "no message with this id").with_detail("field", "messageId")
}

/// What is known of the way of a message, in the order it happened.
fn history(message: &StoredMessage) -> Vec<Step> {
    let StoredMessage { record, times, error } = message;
    let step = |status: MessageStatus, at: u64, error: Option<String>| Step {
        status: status.as_str(),
        timestamp: time::from_seconds(at),
        error,
    };
    let is_ours = times.sent_s.is_some()
        || times.failed_s.is_some()
        || matches!(record.status, MessageStatus::Pending | MessageStatus::Failed);
    let first = match record.from_me {
        false => MessageStatus::Delivered,
        // Sent by another device of ours: what happened before nobody told us.
        true if !is_ours => MessageStatus::Sent,
        true => MessageStatus::Pending,
    };
    let mut later = [
        (MessageStatus::Sent, times.sent_s),
        (MessageStatus::Delivered, times.delivered_s),
        (MessageStatus::Read, times.read_s),
        (MessageStatus::Played, times.played_s),
        (MessageStatus::Failed, times.failed_s),
    ]
    .into_iter()
    .filter_map(|(status, at)| Some((status, at?)))
    .collect::<Vec<_>>();
    later.sort_by_key(|(_, at)| *at);
    let reason = |status| (status == MessageStatus::Failed).then(|| error.clone()).flatten();
    std::iter::once(step(first, record.timestamp, None))
        .chain(later.into_iter().map(|(status, at)| step(status, at, reason(status))))
        .collect()
}

/// `receipts` are in the order of their participants, and of each one in the order of progress.
fn count(receipts: &[StoredReceipt]) -> Receipts {
    let participants: Vec<Participant> = receipts
        .chunk_by(|one, other| one.participant == other.participant)
        .filter_map(|theirs| {
            let last = theirs.last()?;
            let at = |status: MessageStatus| {
                let reached = theirs.iter().find(|receipt| receipt.status == status);
                reached.map(|receipt| time::from_seconds(receipt.timestamp_s))
            };
            Some(Participant {
                participant: last.participant.to_string(),
                status: last.status.as_str(),
                delivered_at: at(MessageStatus::Delivered),
                read_at: at(MessageStatus::Read),
                played_at: at(MessageStatus::Played),
            })
        })
        .collect();
    let reached = |words: &[&str]| participants.iter().filter(|one| words.contains(&one.status)).count();
    Receipts {
        delivered: reached(&["delivered", "read", "played"]),
        read: reached(&["read", "played"]),
        played: reached(&["played"]),
        participants,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        storage::local::StatusTimes,
        whatsapp::{jid::Jid, model::MessageRecord},
    };

    fn message(from_me: bool, status: MessageStatus, times: StatusTimes) -> StoredMessage {
        let record = MessageRecord {
            id: "A".into(),
            chat: Jid::pn("6281200000002"),
            sender: Jid::pn("6281200000001"),
            from_me,
            kind: "text".into(),
            content: String::new(),
            push_name: None,
            target_id: None,
            timestamp: 100,
            status,
            raw: Vec::new(),
        };
        let error = (status == MessageStatus::Failed).then(|| "refused".to_owned());
        StoredMessage { record, times, error }
    }

    fn words(message: &StoredMessage) -> Vec<&'static str> {
        history(message).iter().map(|step| step.status).collect()
    }

    #[test]
    fn a_history_begins_with_what_we_know_first_and_goes_on_in_order() {
        let times = StatusTimes {
            sent_s: Some(101),
            delivered_s: Some(103),
            read_s: Some(102),
            ..StatusTimes::default()
        };
        assert_eq!(
            words(&message(true, MessageStatus::Read, times)),
            ["pending", "sent", "read", "delivered"]
        );
        assert_eq!(words(&message(true, MessageStatus::Sent, StatusTimes::default())), ["sent"]);
        assert_eq!(words(&message(true, MessageStatus::Pending, StatusTimes::default())), ["pending"]);
        assert_eq!(words(&message(false, MessageStatus::Delivered, StatusTimes::default())), ["delivered"]);
        let failed = message(
            true,
            MessageStatus::Failed,
            StatusTimes { failed_s: Some(175), ..StatusTimes::default() },
        );
        let history = history(&failed);
        assert_eq!(history[1].error.as_deref(), Some("refused"));
        assert_eq!(history[1].timestamp, "1970-01-01T00:02:55Z");
    }

    #[test]
    fn members_are_counted_once_and_a_reader_has_received() {
        let receipt = |user: &'static str, status, timestamp_s| StoredReceipt {
            participant: Jid::pn(user),
            status,
            timestamp_s,
        };
        let counted = count(&[
            receipt("1", MessageStatus::Delivered, 10),
            receipt("1", MessageStatus::Read, 12),
            receipt("2", MessageStatus::Read, 11),
            receipt("3", MessageStatus::Delivered, 13),
        ]);
        assert_eq!((counted.delivered, counted.read, counted.played), (3, 2, 0));
        assert_eq!(counted.participants[0].status, "read");
        assert_eq!(counted.participants[0].delivered_at.as_deref(), Some("1970-01-01T00:00:10Z"));
        assert_eq!(counted.participants[1].delivered_at, None);
    }
}
