//! What a protobuf `Message` says: its kind, the text worth showing, the message it is about. And the other way:
//! the protobuf of a text to send. Knows nothing of stanzas and encryption.

use crate::whatsapp::{
    jid::Jid,
    model::{OutgoingContent, QuotedMessage},
    proto::{ContextInfo, ExtendedTextMessage, Message, MessageContextInfo, MessageKey, protocol_message},
};

/// How deep wrappers may be nested. Real ones use two.
const MAX_WRAPPERS: usize = 8;

/// What the history shows of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extract {
    /// The REST `type`.
    pub(super) kind: &'static str,
    /// Text, caption, emoji, name, …; empty when there is none.
    pub(super) content: String,
    /// The message this one is about.
    pub(super) target_id: Option<String>,
}

impl Extract {
    fn new(kind: &'static str, content: Option<&str>) -> Self {
        Self { kind, content: content.unwrap_or_default().to_owned(), target_id: None }
    }

    fn about(mut self, key: Option<&MessageKey>) -> Self {
        self.target_id = key.and_then(|key| key.id.clone());
        self
    }
}

/// Takes off the wrappers that only say how a message is to be shown (ephemeral, view once, caption, …).
/// The context of an outer layer (message secret) is kept when the inner one has none.
/// `deviceSentMessage` is not a wrapper of this kind: it says who a message went to.
pub(super) fn unwrap(mut message: Message) -> Message {
    for _ in 0..MAX_WRAPPERS {
        let Some(mut inner) = wrapped(&mut message) else { break };
        if inner.message_context_info.is_none() {
            inner.message_context_info = message.message_context_info.take();
        }
        message = *inner;
    }
    message
}

fn wrapped(message: &mut Message) -> Option<Box<Message>> {
    [
        &mut message.ephemeral_message,
        &mut message.view_once_message,
        &mut message.view_once_message_v2,
        &mut message.view_once_message_v2_extension,
        &mut message.document_with_caption_message,
        &mut message.edited_message,
        &mut message.group_mentioned_message,
        &mut message.bot_invoke_message,
        &mut message.lottie_sticker_message,
        &mut message.event_cover_image,
        &mut message.status_mention_message,
        &mut message.poll_creation_option_image_message,
        &mut message.associated_child_message,
        &mut message.group_status_mention_message,
        &mut message.poll_creation_message_v4,
        &mut message.status_add_yours,
        &mut message.group_status_message,
        &mut message.limit_sharing_message,
        &mut message.bot_task_message,
        &mut message.question_message,
        &mut message.group_status_message_v2,
        &mut message.bot_forwarded_message,
        &mut message.spoiler_message,
    ]
    .into_iter()
    .find_map(|slot| slot.take()?.message)
}

/// What an unwrapped message says; `None` when it carries nothing to show (only keys, only context).
pub(super) fn extract(message: &Message) -> Option<Extract> {
    text(message)
        .or_else(|| media(message))
        .or_else(|| social(message))
        .or_else(|| place_or_person(message))
        .or_else(|| answer(message))
        .or_else(|| protocol(message))
        .or_else(|| leftover(message))
}

fn text(message: &Message) -> Option<Extract> {
    if let Some(text) = &message.conversation {
        return Some(Extract::new("text", Some(text)));
    }
    let extended = message.extended_text_message.as_ref()?;
    Some(Extract::new("text", extended.text.as_deref()))
}

fn media(message: &Message) -> Option<Extract> {
    if let Some(image) = &message.image_message {
        return Some(Extract::new("image", image.caption.as_deref()));
    }
    if let Some(video) = &message.video_message {
        return Some(Extract::new("video", video.caption.as_deref()));
    }
    if let Some(video) = &message.ptv_message {
        return Some(Extract::new("ptv", video.caption.as_deref()));
    }
    if let Some(audio) = &message.audio_message {
        return Some(Extract::new(if audio.ptt == Some(true) { "ptt" } else { "audio" }, None));
    }
    if let Some(document) = &message.document_message {
        let title = document.caption.as_deref().or(document.file_name.as_deref());
        return Some(Extract::new("document", title.or(document.title.as_deref())));
    }
    if message.sticker_message.is_some() {
        return Some(Extract::new("sticker", None));
    }
    if message.sticker_pack_message.is_some() {
        return Some(Extract::new("sticker_pack", None));
    }
    message.album_message.as_ref().map(|_| Extract::new("album", None))
}

fn social(message: &Message) -> Option<Extract> {
    if let Some(reaction) = &message.reaction_message {
        return Some(Extract::new("reaction", reaction.text.as_deref()).about(reaction.key.as_ref()));
    }
    if let Some(reaction) = &message.enc_reaction_message {
        return Some(Extract::new("enc_reaction", None).about(reaction.target_message_key.as_ref()));
    }
    let polls = [
        &message.poll_creation_message,
        &message.poll_creation_message_v2,
        &message.poll_creation_message_v3,
        &message.poll_creation_message_v5,
        &message.poll_creation_message_v6,
    ];
    if let Some(poll) = polls.into_iter().flatten().next() {
        return Some(Extract::new("poll", poll.name.as_deref()));
    }
    if let Some(vote) = &message.poll_update_message {
        return Some(Extract::new("poll_vote", None).about(vote.poll_creation_message_key.as_ref()));
    }
    if let Some(result) = &message.poll_result_snapshot_message {
        return Some(Extract::new("poll_result", result.name.as_deref()));
    }
    if let Some(event) = &message.event_message {
        return Some(Extract::new("event", event.name.as_deref()));
    }
    if message.enc_event_response_message.is_some() {
        return Some(Extract::new("event_response", None));
    }
    if let Some(comment) = &message.enc_comment_message {
        return Some(Extract::new("enc_comment", None).about(comment.target_message_key.as_ref()));
    }
    if let Some(comment) = &message.comment_message {
        let said = comment.message.as_deref().and_then(text).map(|said| said.content);
        return Some(Extract::new("comment", said.as_deref()).about(comment.target_message_key.as_ref()));
    }
    if let Some(pin) = &message.pin_in_chat_message {
        return Some(Extract::new("pin", None).about(pin.key.as_ref()));
    }
    let keep = message.keep_in_chat_message.as_ref()?;
    Some(Extract::new("keep", None).about(keep.key.as_ref()))
}

fn place_or_person(message: &Message) -> Option<Extract> {
    if let Some(place) = &message.location_message {
        let words = place.name.clone().or_else(|| place.address.clone());
        let content = words.unwrap_or_else(|| coordinates(place.degrees_latitude, place.degrees_longitude));
        return Some(Extract::new("location", Some(&content)));
    }
    if let Some(place) = &message.live_location_message {
        let content = coordinates(place.degrees_latitude, place.degrees_longitude);
        return Some(Extract::new("live_location", Some(place.caption.as_ref().unwrap_or(&content))));
    }
    if let Some(contact) = &message.contact_message {
        return Some(Extract::new("contact", contact.display_name.as_deref()));
    }
    if let Some(contacts) = &message.contacts_array_message {
        return Some(Extract::new("contacts", contacts.display_name.as_deref()));
    }
    let invite = message.group_invite_message.as_ref()?;
    Some(Extract::new("group_invite", invite.caption.as_deref()))
}

fn coordinates(latitude: Option<f64>, longitude: Option<f64>) -> String {
    format!("{},{}", latitude.unwrap_or_default(), longitude.unwrap_or_default())
}

fn answer(message: &Message) -> Option<Extract> {
    if let Some(reply) = &message.buttons_response_message {
        return Some(Extract::new("button_reply", reply.selected_button_id.as_deref()));
    }
    if let Some(reply) = &message.template_button_reply_message {
        return Some(Extract::new("button_reply", reply.selected_id.as_deref()));
    }
    if let Some(reply) = &message.list_response_message {
        let row = reply.single_select_reply.as_ref().and_then(|reply| reply.selected_row_id.as_deref());
        return Some(Extract::new("list_reply", row.or(reply.title.as_deref())));
    }
    let reply = message.interactive_response_message.as_ref()?;
    Some(Extract::new("interactive_reply", reply.body.as_ref().and_then(|body| body.text.as_deref())))
}

/// The protocol messages that belong to a conversation. Those between our own devices are handled elsewhere.
fn protocol(message: &Message) -> Option<Extract> {
    use protocol_message::Type;

    let protocol = message.protocol_message.as_ref()?;
    match Type::try_from(protocol.r#type?).ok()? {
        Type::Revoke => Some(Extract::new("revoke", None).about(protocol.key.as_ref())),
        Type::MessageEdit => {
            let edited = protocol.edited_message.as_deref().cloned().map(unwrap);
            let content = edited.as_ref().and_then(extract).map(|edited| edited.content);
            Some(Extract::new("edit", content.as_deref()).about(protocol.key.as_ref()))
        }
        Type::EphemeralSetting => {
            let seconds = protocol.ephemeral_expiration.unwrap_or_default().to_string();
            Some(Extract::new("ephemeral_setting", Some(&seconds)))
        }
        _ => None,
    }
}

/// Kinds that are recognised but not looked into.
fn leftover(message: &Message) -> Option<Extract> {
    let kind = if message.call.is_some() || message.call_log_messsage.is_some() {
        "call"
    } else if message.placeholder_message.is_some() {
        "placeholder"
    } else if message.secret_encrypted_message.is_some() {
        "secret_encrypted"
    } else if message.request_phone_number_message.is_some() {
        "request_phone_number"
    } else if message.template_message.is_some() || message.highly_structured_message.is_some() {
        "template"
    } else if message.buttons_message.is_some() || message.interactive_message.is_some() {
        "interactive"
    } else if message.list_message.is_some() {
        "list"
    } else if message.product_message.is_some() || message.order_message.is_some() {
        "product"
    } else if is_silent(message) {
        return None;
    } else {
        "unknown"
    };
    Some(Extract::new(kind, None))
}

/// Only keys, context or protocol messages: nothing a person would see.
fn is_silent(message: &Message) -> bool {
    let mut rest = message.clone();
    rest.sender_key_distribution_message = None;
    rest.fast_ratchet_key_sender_key_distribution_message = None;
    rest.message_context_info = None;
    // What protocol messages mean is decided by `protocol` and by who sent them.
    rest.protocol_message.is_some() || rest == Message::default()
}

/// How long messages of the chat live, as the message itself says, seconds.
pub(super) fn context_info(message: &Message) -> Option<&ContextInfo> {
    message.extended_text_message.as_ref()?.context_info.as_deref()
}

/// What a chat asks of every message in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ephemeral {
    /// Seconds until messages disappear; 0 = never.
    pub(super) expiration_s: u32,
    /// When that was set, Unix seconds.
    pub(super) set_at_s: i64,
}

/// The protobuf of an outgoing message. `secret` ties later additions (polls, edits, reports) to it.
/// `quoted`: what the quoted message said, when it is known ([`as_quoted`]).
pub(super) fn build(
    content: &OutgoingContent,
    secret: [u8; 32],
    ephemeral: Ephemeral,
    quoted: Option<Message>,
) -> Message {
    let OutgoingContent::Text { body, quote, mentions } = content;
    let context = MessageContextInfo { message_secret: Some(secret.to_vec()), ..Default::default() };
    let mut message = Message { message_context_info: Some(Box::new(context)), ..Default::default() };
    if quote.is_none() && mentions.is_empty() && ephemeral.expiration_s == 0 {
        message.conversation = Some(body.clone());
        return message;
    }
    let mut info = ContextInfo {
        mentioned_jid: mentions.iter().map(|jid| jid.to_user().to_string()).collect(),
        ..Default::default()
    };
    if let Some(quote) = quote {
        add_quote(&mut info, quote, quoted);
    }
    if ephemeral.expiration_s > 0 {
        info.expiration = Some(ephemeral.expiration_s);
        info.ephemeral_setting_timestamp = (ephemeral.set_at_s > 0).then_some(ephemeral.set_at_s);
    }
    message.extended_text_message = Some(Box::new(ExtendedTextMessage {
        text: Some(body.clone()),
        context_info: Some(Box::new(info)),
        ..Default::default()
    }));
    message
}

fn add_quote(info: &mut ContextInfo, quote: &QuotedMessage, quoted: Option<Message>) {
    info.stanza_id = Some(quote.id.clone());
    info.participant = Some(quote.participant.to_user().to_string());
    // Without any body recipients show nothing; with an empty one, what their own history has under the id.
    let unknown = || Message { conversation: Some(String::new()), ..Default::default() };
    info.quoted_message = Some(Box::new(quoted.unwrap_or_else(unknown)));
}

/// A message as it stands in a quote: without its own context, so that quotes of quotes do not pile up.
pub(super) fn as_quoted(message: Message) -> Message {
    let mut message = unwrap(message);
    message.message_context_info = None;
    let contexts = [
        message.extended_text_message.as_mut().map(|text| &mut text.context_info),
        message.image_message.as_mut().map(|image| &mut image.context_info),
        message.video_message.as_mut().map(|video| &mut video.context_info),
        message.audio_message.as_mut().map(|audio| &mut audio.context_info),
        message.document_message.as_mut().map(|document| &mut document.context_info),
        message.sticker_message.as_mut().map(|sticker| &mut sticker.context_info),
        message.location_message.as_mut().map(|location| &mut location.context_info),
        message.contact_message.as_mut().map(|contact| &mut contact.context_info),
    ];
    contexts.into_iter().flatten().for_each(|context| *context = None);
    message
}

/// What the stanza around a message says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StanzaKind {
    /// `type` of `<message>`.
    pub(super) kind: &'static str,
    /// `mediatype` of `<enc>`.
    pub(super) media: Option<&'static str>,
    /// `edit` of `<message>`.
    pub(super) edit: Option<&'static str>,
    /// `decrypt-fail="hide"`: a failure is not worth a placeholder.
    pub(super) hide: bool,
}

/// Classifies an unwrapped message for its stanza.
/// Seen: whatsmeow `send.go` `getTypeFromMessage`, `getMediaTypeFromMessage`, `getEditAttribute` @33cfac51.
pub(super) fn stanza_kind(message: &Message) -> StanzaKind {
    let plain = StanzaKind { kind: "text", media: None, edit: None, hide: false };
    let Some(extract) = extract(message) else { return plain };
    match extract.kind {
        "reaction" | "enc_reaction" => StanzaKind { kind: "reaction", hide: true, ..plain },
        "poll" => StanzaKind { kind: "poll", ..plain },
        "poll_vote" => StanzaKind { kind: "poll", hide: true, ..plain },
        "event" | "event_response" => StanzaKind { kind: "event", ..plain },
        "edit" => StanzaKind { edit: Some("1"), hide: true, ..plain },
        "pin" => StanzaKind { edit: Some("2"), hide: true, ..plain },
        "revoke" => StanzaKind { edit: Some(revoke_attribute(message)), hide: true, ..plain },
        "image" => StanzaKind { kind: "media", media: Some("image"), ..plain },
        "video" => StanzaKind { kind: "media", media: Some("video"), ..plain },
        "ptv" => StanzaKind { kind: "media", media: Some("ptv"), ..plain },
        "audio" => StanzaKind { kind: "media", media: Some("audio"), ..plain },
        "ptt" => StanzaKind { kind: "media", media: Some("ptt"), ..plain },
        "document" => StanzaKind { kind: "media", media: Some("document"), ..plain },
        "sticker" => StanzaKind { kind: "media", media: Some("sticker"), ..plain },
        "location" => StanzaKind { kind: "media", media: Some("location"), ..plain },
        "contact" => StanzaKind { kind: "media", media: Some("vcard"), ..plain },
        _ => plain,
    }
}

/// 7 for our own message, 8 for somebody else's as group admin.
fn revoke_attribute(message: &Message) -> &'static str {
    let key = message.protocol_message.as_ref().and_then(|protocol| protocol.key.as_ref());
    if key.is_some_and(|key| key.from_me == Some(false)) { "8" } else { "7" }
}

/// The JIDs named in outgoing content, to be brought into the namespace of the stanza.
pub(super) fn mentions_mut(content: &mut OutgoingContent) -> impl Iterator<Item = &mut Jid> {
    let OutgoingContent::Text { quote, mentions, .. } = content;
    mentions.iter_mut().chain(quote.as_mut().map(|quote| &mut quote.participant))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::whatsapp::proto::{
        DeviceSentMessage, FutureProofMessage, ImageMessage, ProtocolMessage, ReactionMessage,
        SenderKeyDistributionMessage,
    };

    fn wrap(message: Message) -> Option<Box<FutureProofMessage>> {
        Some(Box::new(FutureProofMessage { message: Some(Box::new(message)) }))
    }

    fn image(caption: &str) -> Message {
        let image = ImageMessage { caption: Some(caption.into()), ..Default::default() };
        Message { image_message: Some(Box::new(image)), ..Default::default() }
    }

    #[test]
    fn wrappers_come_off_and_the_outer_secret_stays() {
        let context = MessageContextInfo { message_secret: Some(vec![7; 32]), ..Default::default() };
        let inner = Message { view_once_message_v2: wrap(image("look")), ..Default::default() };
        let outer = Message {
            ephemeral_message: wrap(inner),
            message_context_info: Some(Box::new(context.clone())),
            ..Default::default()
        };
        let message = unwrap(outer);
        assert_eq!(extract(&message), Some(Extract::new("image", Some("look"))));
        assert_eq!(message.message_context_info.as_deref(), Some(&context));
    }

    #[test]
    fn endless_wrapping_ends() {
        let mut message = image("deep");
        for _ in 0..20 {
            message = Message { ephemeral_message: wrap(message), ..Default::default() };
        }
        assert!(unwrap(message).ephemeral_message.is_some());
    }

    #[test]
    fn edits_revokes_and_reactions_name_their_target() {
        let key = MessageKey { id: Some("A1".into()), ..Default::default() };
        let protocol = |kind: protocol_message::Type, edited: Option<Message>| Message {
            protocol_message: Some(Box::new(ProtocolMessage {
                key: Some(key.clone()),
                r#type: Some(kind as i32),
                edited_message: edited.map(Box::new),
                ..Default::default()
            })),
            ..Default::default()
        };
        let edit = protocol(protocol_message::Type::MessageEdit, Some(image("new")));
        let revoke = protocol(protocol_message::Type::Revoke, None);
        let reaction =
            ReactionMessage { key: Some(key.clone()), text: Some("👍".into()), ..Default::default() };
        let reaction = Message { reaction_message: Some(Box::new(reaction)), ..Default::default() };
        for (message, kind, content) in
            [(edit, "edit", "new"), (revoke, "revoke", ""), (reaction, "reaction", "👍")]
        {
            let extract = extract(&message).unwrap();
            assert_eq!((extract.kind, extract.content.as_str()), (kind, content));
            assert_eq!(extract.target_id.as_deref(), Some("A1"));
        }
    }

    #[test]
    fn keys_alone_are_nothing_to_show() {
        let keys = SenderKeyDistributionMessage { group_id: Some("1@g.us".into()), ..Default::default() };
        let message = Message { sender_key_distribution_message: Some(Box::new(keys)), ..Default::default() };
        assert_eq!(extract(&message), None);
        assert_eq!(extract(&Message::default()), None);
        let sent = Message {
            device_sent_message: Some(Box::new(DeviceSentMessage::default())),
            ..Default::default()
        };
        assert_eq!(extract(&sent).map(|extract| extract.kind), Some("unknown"));
    }

    #[test]
    fn plain_text_is_a_conversation_and_anything_more_is_extended() {
        let plain = OutgoingContent::Text { body: "hi".into(), quote: None, mentions: vec![] };
        let message = build(&plain, [1; 32], Ephemeral::default(), None);
        assert_eq!(message.conversation.as_deref(), Some("hi"));
        assert_eq!(message.message_context_info.unwrap().message_secret, Some(vec![1; 32]));

        let timer = Ephemeral { expiration_s: 86_400, set_at_s: 5 };
        let quote = QuotedMessage { id: "Q".into(), participant: Jid::lid("5").with_device(3) };
        let rich = OutgoingContent::Text {
            body: "@7 hi".into(),
            quote: Some(quote),
            mentions: vec![Jid::pn("7").with_device(1)],
        };
        let message = build(&rich, [1; 32], timer, None);
        let message = Message::decode(message.encode_to_vec().as_slice()).unwrap();
        let info = context_info(&message).unwrap();
        assert_eq!(info.stanza_id.as_deref(), Some("Q"));
        assert_eq!(info.participant.as_deref(), Some("5@lid"));
        assert_eq!(info.mentioned_jid, ["7@s.whatsapp.net"]);
        assert_eq!(info.expiration, Some(86_400));
        assert_eq!(extract(&message).unwrap().content, "@7 hi");
    }

    #[test]
    fn a_quote_carries_what_was_said_but_not_what_that_had_quoted() {
        let earlier = OutgoingContent::Text { body: "first".into(), quote: None, mentions: vec![] };
        let earlier = build(&earlier, [1; 32], Ephemeral::default(), None);
        let answer = |body: &str, said: &Message| {
            let quote = QuotedMessage { id: "Q".into(), participant: Jid::lid("5") };
            let content = OutgoingContent::Text { body: body.into(), quote: Some(quote), mentions: vec![] };
            build(&content, [2; 32], Ephemeral::default(), Some(as_quoted(said.clone())))
        };
        let second = answer("second", &earlier);
        let third = answer("third", &second);
        let quoted = |message: &Message| context_info(message).unwrap().quoted_message.clone().unwrap();
        assert_eq!(quoted(&second).conversation.as_deref(), Some("first"));
        assert_eq!(quoted(&second).message_context_info, None, "the secret is not repeated");
        assert_eq!(extract(&quoted(&third)).unwrap().content, "second");
        assert_eq!(context_info(&quoted(&third)), None);
    }

    #[test]
    fn the_stanza_says_what_kind_of_message_it_carries() {
        assert_eq!(stanza_kind(&image("x")).media, Some("image"));
        let key = MessageKey { from_me: Some(false), ..Default::default() };
        let revoke = ProtocolMessage {
            key: Some(key),
            r#type: Some(protocol_message::Type::Revoke as i32),
            ..Default::default()
        };
        let revoke = Message { protocol_message: Some(Box::new(revoke)), ..Default::default() };
        let kind = stanza_kind(&revoke);
        assert_eq!((kind.kind, kind.edit, kind.hide), ("text", Some("8"), true));
    }
}
