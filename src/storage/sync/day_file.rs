//! A part of a day of history as an object: an array of records as `GET /session/{id}/messages` shows them, with
//! what it takes to rebuild the history (`key`, `raw`, `sentAt`).
//!
//! Records of other programs are taken as far as they can be understood: a chat and an id, at least.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    storage::{
        events::rfc3339,
        local::{StatusTimes, StoredMessage},
    },
    whatsapp::{
        jid::Jid,
        model::{MessageRecord, MessageStatus},
    },
};

/// One message. Fields without a value are left out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    id: String,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default = "text")]
    r#type: String,
    #[serde(default)]
    content: String,
    timestamp: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    chat: Option<String>,
    #[serde(default)]
    from_me: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivered_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    played_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default)]
    key: Option<Key>,
    /// The message as it was sealed, base64.
    #[serde(default)]
    raw: String,
}

/// Names a message as Baileys does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    remote_jid: String,
    #[serde(default)]
    from_me: bool,
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    participant: Option<String>,
}

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) messages: Vec<StoredMessage>,
    /// Records that could not be understood.
    pub(super) refused: usize,
}

/// `own`: digits of this account's phone number.
pub(super) fn encode(messages: &[StoredMessage], own: Option<&str>) -> Vec<u8> {
    let records: Vec<Record> = messages.iter().map(|message| record(message, own)).collect();
    serde_json::to_vec(&records).expect("strings always serialize")
}

/// Reads a file; `None` when it is no JSON array.
pub(super) fn decode(bytes: &[u8]) -> Option<Decoded> {
    let records: Vec<Value> = serde_json::from_slice(bytes).ok()?;
    let mut decoded = Decoded::default();
    for record in records {
        match serde_json::from_value::<Record>(record).ok().and_then(message) {
            Some(message) => decoded.messages.push(message),
            None => decoded.refused += 1,
        }
    }
    Some(decoded)
}

fn record(message: &StoredMessage, own: Option<&str>) -> Record {
    let StoredMessage { record, times, error } = message;
    let chat = record.chat.to_string();
    let sender = record.sender.to_string();
    // What we sent, and what is said in a group, goes to the chat; the rest is for us.
    let to = match own {
        Some(own) if !record.from_me && record.chat.is_user() => format!("{own}@s.whatsapp.net"),
        _ => chat.clone(),
    };
    Record {
        id: record.id.clone(),
        from: Some(sender.clone()),
        to: Some(to),
        r#type: record.kind.clone(),
        content: record.content.clone(),
        timestamp: rfc3339(record.timestamp),
        status: Some(record.status.as_str().to_owned()),
        chat: Some(chat.clone()),
        from_me: Some(record.from_me),
        sender_name: record.push_name.clone(),
        target_id: record.target_id.clone(),
        sent_at: times.sent_s.map(rfc3339),
        delivered_at: times.delivered_s.map(rfc3339),
        read_at: times.read_s.map(rfc3339),
        played_at: times.played_s.map(rfc3339),
        failed_at: times.failed_s.map(rfc3339),
        error: error.clone(),
        key: Some(Key {
            remote_jid: chat,
            from_me: record.from_me,
            id: record.id.clone(),
            participant: (!record.chat.is_user()).then_some(sender),
        }),
        raw: STANDARD.encode(&record.raw),
    }
}

fn message(record: Record) -> Option<StoredMessage> {
    let key = record.key.as_ref();
    let from_me = record.from_me.or(key.map(|key| key.from_me)).unwrap_or(false);
    let peer = if from_me { &record.to } else { &record.from };
    let chat = record.chat.as_ref().or(key.map(|key| &key.remote_jid)).or(peer.as_ref())?;
    let chat = jid(chat)?;
    let sender = record.from.as_deref().and_then(jid).unwrap_or_else(|| chat.clone());
    let status = record.status.as_deref().and_then(status);
    let moment = |text: Option<&String>| text.and_then(|text| seconds(text));
    Some(StoredMessage {
        record: MessageRecord {
            id: (!record.id.is_empty()).then_some(record.id)?,
            chat,
            sender,
            from_me,
            kind: record.r#type,
            content: record.content,
            push_name: record.sender_name,
            target_id: record.target_id,
            timestamp: seconds(&record.timestamp)?,
            // Never sent again by mistake: only our own files may say that a message still waits.
            status: status.unwrap_or(MessageStatus::Sent),
            raw: STANDARD.decode(&record.raw).ok()?,
        },
        times: StatusTimes {
            sent_s: moment(record.sent_at.as_ref()),
            delivered_s: moment(record.delivered_at.as_ref()),
            read_s: moment(record.read_at.as_ref()),
            played_s: moment(record.played_at.as_ref()),
            failed_s: moment(record.failed_at.as_ref()),
        },
        error: record.error,
    })
}

/// A JID, or the digits of a phone number.
fn jid(text: &str) -> Option<Jid> {
    let digits = text.trim_start_matches('+');
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Jid::pn(digits.to_owned()));
    }
    text.parse().ok()
}

fn status(word: &str) -> Option<MessageStatus> {
    use MessageStatus::{Delivered, Failed, Pending, Played, Read, Sent};
    [Pending, Sent, Delivered, Read, Played, Failed].into_iter().find(|status| status.as_str() == word)
}

/// RFC 3339 or Unix seconds.
fn seconds(text: &str) -> Option<u64> {
    let stamp = text.parse::<u64>().ok();
    stamp.or_else(|| u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_second()).ok())
}

fn text() -> String {
    "text".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(chat: &str, from_me: bool) -> StoredMessage {
        StoredMessage {
            record: MessageRecord {
                id: "3EB0AA".into(),
                chat: chat.parse().unwrap(),
                sender: Jid::pn("6281200000002"),
                from_me,
                kind: "text".into(),
                content: "Hello \u{1f44b}\u{1f3fd}\n".into(),
                push_name: Some("Budi".into()),
                target_id: None,
                timestamp: 1_705_314_600,
                status: MessageStatus::Read,
                raw: vec![0, 1, 255],
            },
            times: StatusTimes { sent_s: Some(1_705_314_601), read_s: Some(5), ..StatusTimes::default() },
            error: None,
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        for (chat, from_me) in [
            ("6281200000002@s.whatsapp.net", false),
            ("6281200000002@s.whatsapp.net", true),
            ("120363000000000001@g.us", false),
        ] {
            let message = example(chat, from_me);
            let bytes = encode(std::slice::from_ref(&message), Some("6281200000001"));
            let decoded = decode(&bytes).unwrap();
            assert_eq!((decoded.messages, decoded.refused), (vec![message], 0));
        }
    }

    #[test]
    fn records_have_the_fields_of_the_api_and_those_that_rebuild_the_history() {
        let bytes = encode(&[example("120363000000000001@g.us", false)], Some("6281200000001"));
        let records: Value = serde_json::from_slice(&bytes).unwrap();
        let wanted = serde_json::json!([{
            "id": "3EB0AA", "from": "6281200000002@s.whatsapp.net", "to": "120363000000000001@g.us",
            "type": "text", "content": "Hello \u{1f44b}\u{1f3fd}\n", "timestamp": "2024-01-15T10:30:00Z",
            "status": "read", "chat": "120363000000000001@g.us", "fromMe": false, "senderName": "Budi",
            "sentAt": "2024-01-15T10:30:01Z", "readAt": "1970-01-01T00:00:05Z",
            "key": { "remoteJid": "120363000000000001@g.us", "fromMe": false, "id": "3EB0AA",
                     "participant": "6281200000002@s.whatsapp.net" },
            "raw": "AAH/",
        }]);
        assert_eq!(records, wanted);
    }

    #[test]
    fn records_of_others_are_taken_as_far_as_they_are_understood() {
        let foreign = serde_json::json!([
            { "id": "A", "from": "+6281200000002", "to": "+6281200000001", "type": "text", "content": "hi",
              "timestamp": "2024-01-15T10:30:00Z", "status": "delivered" },
            { "id": "B", "timestamp": "2024-01-15T10:30:00Z" },
            "nonsense",
        ]);
        let decoded = decode(foreign.to_string().as_bytes()).unwrap();
        assert_eq!((decoded.messages.len(), decoded.refused), (1, 2));
        assert_eq!(decoded.messages[0].record.chat, Jid::pn("6281200000002"));
        for broken in ["", "{}", "[{\"id\":", "null"] {
            assert!(decode(broken.as_bytes()).is_none(), "{broken}");
        }
    }
}
