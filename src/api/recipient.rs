//! Who a message is for: phone numbers and JIDs as people write them.

use super::respond::ApiError;
use crate::whatsapp::jid::{Jid, Server};

/// Reads `to`: a phone number in international form (`+62 812-0000-0001`), the JID of a user
/// (`…@s.whatsapp.net`, `…@c.us`, `…@lid`) or of a group (`…@g.us`).
///
/// # Errors
/// 400 naming `field`.
pub(super) fn parse(field: &str, text: &str) -> Result<Jid, ApiError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ApiError::field(field, "must not be empty"));
    }
    if !text.contains('@') {
        return phone(field, text).map(Jid::pn);
    }
    let jid: Jid = text.parse().map_err(|error| ApiError::field(field, &format!("{error}")))?;
    if jid.device != 0 {
        return Err(ApiError::field(field, "must name a user or a group, not one of its devices"));
    }
    match jid.server {
        Server::Pn | Server::LegacyPn if is_digits(&jid.user, 5, 20) => Ok(Jid::pn(jid.user)),
        Server::Lid if is_digits(&jid.user, 5, 20) => Ok(jid),
        Server::Group if is_group_id(&jid.user) => Ok(jid),
        Server::Pn | Server::LegacyPn | Server::Lid => {
            Err(ApiError::field(field, "the part before the @ must be 5 to 20 digits"))
        }
        Server::Group => Err(ApiError::field(field, "is not a group id")),
        _ => Err(ApiError::field(field, "must be a phone number or end in @s.whatsapp.net, @lid or @g.us")),
    }
}

/// Reads a phone number in international form and gives its digits.
///
/// # Errors
/// 400 naming `field`.
pub(super) fn phone(field: &str, text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    let number = text.strip_prefix('+').unwrap_or(text);
    let digits: String =
        number.chars().filter(|letter| !matches!(letter, ' ' | '-' | '.' | '(' | ')' | '\u{a0}')).collect();
    if digits.starts_with('0') {
        return Err(ApiError::field(
            field,
            "a phone number must be in international form: country code first, no leading zero",
        ));
    }
    if !is_digits(&digits, 7, 15) {
        return Err(ApiError::field(
            field,
            "a phone number must be 7 to 15 digits, with or without a leading +",
        ));
    }
    Ok(digits)
}

/// Reads a chat to filter by; the same forms as [`parse`], and `status@broadcast`.
///
/// # Errors
/// 400 naming `field`.
pub(super) fn chat(field: &str, text: &str) -> Result<Jid, ApiError> {
    if text.trim() == "status@broadcast" {
        return Ok(Jid::status_broadcast());
    }
    parse(field, text)
}

fn is_digits(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `120363…` or, for old groups, `<creator>-<time>`.
fn is_group_id(text: &str) -> bool {
    match text.split_once('-') {
        Some((creator, time)) => is_digits(creator, 5, 20) && is_digits(time, 5, 20),
        None => is_digits(text, 5, 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers_and_jids_are_understood() {
        for (text, jid) in [
            ("6281200000001", "6281200000001@s.whatsapp.net"),
            ("+62 812-0000-0001", "6281200000001@s.whatsapp.net"),
            ("  +49 (151) 000.000.01 ", "4915100000001@s.whatsapp.net"),
            ("6281200000001@s.whatsapp.net", "6281200000001@s.whatsapp.net"),
            ("6281200000001@c.us", "6281200000001@s.whatsapp.net"),
            ("100000000000001@lid", "100000000000001@lid"),
            ("120363000000000001@g.us", "120363000000000001@g.us"),
            ("6281200000001-1600000000@g.us", "6281200000001-1600000000@g.us"),
        ] {
            assert_eq!(parse("to", text).unwrap().to_string(), jid, "{text}");
        }
    }

    #[test]
    fn anything_else_names_the_field() {
        for text in [
            "",
            " ",
            "+",
            "hello",
            "081200000001",
            "0062812000000",
            "123",
            "1234567890123456",
            "62812\u{0}0000001",
            "@s.whatsapp.net",
            "abc@s.whatsapp.net",
            "6281200000001:2@s.whatsapp.net",
            "6281200000001@example.org",
            "status@broadcast",
            "120363@newsletter",
            "x@g.us",
            "6281200000001@",
            "6281200000001@lid@lid",
            "\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}\u{667}\u{668}",
        ] {
            let error = parse("to", text).unwrap_err();
            assert!(error.status == 400 && error.message.starts_with("to: "), "{text:?}: {error:?}");
        }
        assert!(chat("chat", "status@broadcast").is_ok());
    }
}
