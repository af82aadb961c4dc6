//! The durable form of an event: its kind and its JSON, as the event log keeps it and later deliveries send it.
//!
//! | kind | fields |
//! |---|---|
//! | `message` | `id chat chatPn chatLid sender senderPn senderLid participant fromMe type content pushName targetId timestamp status offline` |
//! | `message-status` | `id chat status participant timestamp error` |
//! | `message-undecryptable` | `id chat sender` |
//! | `identity-changed` | `user` |
//! | `group-changed` | `group` |
//! | `paired`, `login` | `jid lid pushName` |
//! | `ready` | (none) |
//! | `unlinked` | `reason` |
//! | `qr` | `code expiresInSeconds` |
//! | `passkey` | `options` |
//!
//! The session writes two more kinds, `session-status` and `session-gap` (`from to reason`). Absent values are left out;
//! times are RFC 3339. `sender` and `chat` are the phone number when it is known; `…Pn` and `…Lid` are both names of a
//! person, as far as they are known. `participant` is the author in a group. `offline`: it came before everything that
//! had waited for the session had come.

use serde::Serialize;

use crate::whatsapp::{
    jid::Jid,
    model::{Arrival, Event, MessageRecord},
};

/// Every kind there is.
pub const KINDS: [&str; 13] = [
    "session-status",
    "session-gap",
    "message",
    "message-status",
    "message-undecryptable",
    "identity-changed",
    "group-changed",
    "paired",
    "login",
    "ready",
    "unlinked",
    "qr",
    "passkey",
];

/// Kind and JSON object of an event.
#[must_use]
pub fn encode(event: &Event) -> (&'static str, String) {
    match event {
        Event::Message(record, arrival) => ("message", json(&Message::new(record, arrival))),
        Event::MessageStatus { chat, id, status, participant, timestamp, error } => (
            "message-status",
            json(&Status {
                id,
                chat: chat.to_string(),
                status: status.as_str(),
                participant: participant.as_ref().map(Jid::to_string),
                timestamp: rfc3339(*timestamp),
                error: error.as_deref(),
            }),
        ),
        Event::Undecryptable { chat, id, sender } => (
            "message-undecryptable",
            serde_json::json!({"id": id, "chat": chat.to_string(), "sender": sender.to_string()}).to_string(),
        ),
        Event::IdentityChanged { user } => {
            ("identity-changed", serde_json::json!({"user": user.to_string()}).to_string())
        }
        Event::GroupChanged { group } => {
            ("group-changed", serde_json::json!({"group": group.to_string()}).to_string())
        }
        Event::Paired { jid, lid } => ("paired", json(&Account::new(jid, lid.as_ref(), None))),
        Event::Connected { jid, lid, push_name } => {
            ("login", json(&Account::new(jid, lid.as_ref(), push_name.as_deref())))
        }
        Event::Ready => ("ready", "{}".to_owned()),
        Event::LoggedOut { reason } => ("unlinked", serde_json::json!({"reason": reason}).to_string()),
        Event::Qr { code, expires_in } => {
            ("qr", serde_json::json!({"code": code, "expiresInSeconds": expires_in.as_secs()}).to_string())
        }
        Event::PasskeyRequired { options } => {
            ("passkey", serde_json::json!({"options": options}).to_string())
        }
    }
}

/// RFC 3339 in UTC; the epoch for a time no calendar has.
#[must_use]
pub fn rfc3339(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// As [`rfc3339`], for Unix milliseconds; whole seconds have no fraction.
#[must_use]
pub fn rfc3339_ms(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    id: &'a str,
    chat: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_pn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_lid: Option<String>,
    sender: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_pn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_lid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<String>,
    from_me: bool,
    r#type: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_id: Option<&'a str>,
    timestamp: String,
    status: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    offline: bool,
}

/// Phone number and LID of a person, from one name and perhaps the other.
fn names(name: &Jid, other: Option<&Jid>) -> (Option<String>, Option<String>) {
    let find = |wanted: fn(&Jid) -> bool| {
        [Some(name), other].into_iter().flatten().find(|jid| wanted(jid)).map(|jid| jid.to_user().to_string())
    };
    (find(Jid::is_pn), find(Jid::is_lid))
}

impl<'a> Message<'a> {
    fn new(record: &'a MessageRecord, arrival: &Arrival) -> Self {
        let (chat_pn, chat_lid) = names(&record.chat, arrival.chat_alt.as_ref());
        let (sender_pn, sender_lid) = names(&record.sender, arrival.sender_alt.as_ref());
        Self {
            id: &record.id,
            chat: record.chat.to_string(),
            chat_pn,
            chat_lid,
            sender: record.sender.to_string(),
            sender_pn,
            sender_lid,
            participant: record.chat.is_group().then(|| record.sender.to_string()),
            from_me: record.from_me,
            r#type: &record.kind,
            content: &record.content,
            push_name: record.push_name.as_deref(),
            target_id: record.target_id.as_deref(),
            timestamp: rfc3339(record.timestamp),
            status: record.status.as_str(),
            offline: arrival.offline,
        }
    }
}

#[derive(Serialize)]
struct Status<'a> {
    id: &'a str,
    chat: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<String>,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Account<'a> {
    jid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_name: Option<&'a str>,
}

impl<'a> Account<'a> {
    fn new(jid: &Jid, lid: Option<&Jid>, push_name: Option<&'a str>) -> Self {
        Self { jid: jid.to_string(), lid: lid.map(Jid::to_string), push_name }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and booleans always serialize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::model::MessageStatus;

    #[test]
    fn a_message_event_says_who_where_what_and_when() {
        let record = MessageRecord {
            id: "3EB0AA".into(),
            chat: Jid::pn("6281200000001"),
            sender: Jid::pn("6281200000001"),
            from_me: false,
            kind: "text".into(),
            content: "say \"hi\"\n".into(),
            push_name: Some("Ani".into()),
            target_id: None,
            timestamp: 1_705_314_600,
            status: MessageStatus::Delivered,
            raw: vec![1],
        };
        let arrival =
            Arrival { sender_alt: Some(Jid::lid("123450000001")), offline: true, ..Arrival::default() };
        let (kind, text) = encode(&Event::Message(Box::new(record), Box::new(arrival)));
        assert_eq!(kind, "message");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "id": "3EB0AA", "chat": "6281200000001@s.whatsapp.net",
                "chatPn": "6281200000001@s.whatsapp.net",
                "sender": "6281200000001@s.whatsapp.net", "senderPn": "6281200000001@s.whatsapp.net",
                "senderLid": "123450000001@lid", "offline": true, "fromMe": false, "type": "text",
                "content": "say \"hi\"\n", "pushName": "Ani", "timestamp": "2024-01-15T10:30:00Z",
                "status": "delivered",
            })
        );
    }

    #[test]
    fn a_time_no_calendar_has_is_no_panic() {
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00Z");
    }
}
