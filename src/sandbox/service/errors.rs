//! Error answers as the real server words them.

use crate::whatsapp::{binary::Node, jid::Jid};

/// An IQ result with the id of the question.
pub(super) fn result(iq: &Node) -> Node {
    Node::new("iq")
        .attr("from", iq.jid("to").unwrap_or_else(Jid::service))
        .attr("type", "result")
        .attr_opt("id", iq.value("id").cloned())
}

/// An IQ error with the id of the question.
pub(super) fn error(iq: &Node, code: u16) -> Node {
    Node::new("iq")
        .attr("from", iq.jid("to").unwrap_or_else(Jid::service))
        .attr("type", "error")
        .attr_opt("id", iq.value("id").cloned())
        .child(error_node(code))
}

/// `<error code text/>`.
pub(super) fn error_node(code: u16) -> Node {
    Node::new("error").attr("code", code.to_string()).attr("text", word(code))
}

fn word(code: u16) -> &'static str {
    match code {
        400 => "bad-request",
        401 => "not-authorized",
        403 => "forbidden",
        404 => "item-not-found",
        405 => "not-allowed",
        406 => "not-acceptable",
        409 => "conflict",
        410 => "gone",
        419 => "resource-limit",
        423 => "locked",
        429 => "rate-overlimit",
        501 => "feature-not-implemented",
        503 => "service-unavailable",
        _ => "internal-server-error",
    }
}
