//! How the server ends things: `<failure>` instead of a login, `<stream:error>` at any time. Two tables say what comes
//! next; deleting credentials is reserved to the few codes that mean an unlinked device.
//!
//! Seen: whatsmeow `connectionevents.go`, `types/events/events.go` @33cfac51; whatsapp-rust
//! `wacore/src/stanza/connect_failure.rs` @1489b7da.

use std::time::Duration;

use super::Engine;
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    iq::IqKind,
    limits::{DEFAULT_BAN, RATE_LIMIT_EXTRA_STEPS},
    model::{
        DisconnectReason, Event, Reply,
        Trouble::{self, Protocol, RateLimited, Server, Silence, StreamEnd},
    },
    state::Table,
};

/// What follows from a failure or a stream error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// Credentials are deleted.
    LogOut(&'static str),
    /// Wait out a ban.
    Ban,
    /// Announce a newer version.
    Outdated,
    /// A person must look.
    Stop(&'static str),
    /// Connect again, with so many steps of back-off on top.
    Retry(Trouble, &'static str, u32),
    /// Connect again at once.
    Restart,
    /// Another connection uses our credentials.
    Replaced,
    /// The socket stays; the server ends it itself if it wants to.
    Stay,
}

/// Reactions to `<failure reason=…>`. Anything else stops the session: guessing could lose an account.
const FAILURES: [(u16, Reaction); 15] = [
    (400, Reaction::Stop("WhatsApp refused the connection (400)")),
    (401, Reaction::LogOut("the device was removed")),
    (402, Reaction::Ban),
    (403, Reaction::LogOut("the account is locked or its phone is gone")),
    (405, Reaction::Outdated),
    (406, Reaction::LogOut("the account is banned")),
    (409, Reaction::Stop("WhatsApp does not accept this client (409)")),
    (413, Reaction::Stop("the connection token has expired (413)")),
    (414, Reaction::Stop("the connection token is invalid (414)")),
    (415, Reaction::Stop("WhatsApp does not know this endpoint (415)")),
    (418, Reaction::Stop("WhatsApp does not know this client (418)")),
    (429, Reaction::Retry(RateLimited, "WhatsApp asks to slow down (429)", RATE_LIMIT_EXTRA_STEPS)),
    (500, Reaction::Retry(Server, "WhatsApp has an internal error (500)", 0)),
    (501, Reaction::Stop("WhatsApp refused the connection (501)")),
    (503, Reaction::Retry(Server, "WhatsApp is unavailable (503)", 0)),
];

/// Reactions to `<stream:error code=…>`. The words `device_removed` and `replaced` of a `<conflict>` come before it.
const STREAM_ERRORS: [(u16, Reaction); 7] = [
    // Without `device_removed` a 401 is not the last word on our credentials; the next login will be.
    (401, Reaction::Retry(StreamEnd, "WhatsApp ended the stream (401)", 0)),
    (409, Reaction::Replaced),
    (429, Reaction::Retry(RateLimited, "WhatsApp asks to slow down (429)", RATE_LIMIT_EXTRA_STEPS)),
    (500, Reaction::Retry(Server, "WhatsApp has an internal error (500)", 0)),
    (503, Reaction::Retry(Server, "WhatsApp restarts (503)", 0)),
    (515, Reaction::Restart),
    (516, Reaction::LogOut("the device was removed")),
];

impl Engine {
    /// `<failure reason=N …>`: no login.
    pub(super) fn on_failure(&mut self, ctx: &mut Ctx<'_>, failure: &Node) {
        let reason: u16 = failure.number("reason").unwrap_or_default();
        log::debug!("login failed with {reason}: {failure}");
        match lookup(&FAILURES, reason) {
            Some(reaction) => self.react(ctx, reaction, failure),
            None => {
                self.disconnect(DisconnectReason::Stop {
                    reason: format!("WhatsApp refused the connection ({reason})"),
                });
            }
        }
    }

    /// `<stream:error …>`: the stream is over, or is said to be.
    pub(super) fn on_stream_error(&mut self, ctx: &mut Ctx<'_>, error: &Node) {
        let reaction = classify(error);
        if let Some(id) = error.find("ack").and_then(|ack| ack.get("id")) {
            self.owe_ack(&id);
        }
        log::debug!("stream error: {error}");
        self.react(ctx, reaction, error);
    }

    fn react(&mut self, ctx: &mut Ctx<'_>, reaction: Reaction, node: &Node) {
        let reason = match reaction {
            Reaction::LogOut(reason) => return self.log_out(ctx, reason),
            Reaction::Stay => return,
            Reaction::Ban => DisconnectReason::Banned {
                code: node.number("code").unwrap_or_default(),
                expires_in: node.number("expire").map_or(DEFAULT_BAN, Duration::from_secs),
            },
            Reaction::Outdated => DisconnectReason::ClientOutdated,
            Reaction::Stop(reason) => DisconnectReason::Stop { reason: reason.to_owned() },
            Reaction::Retry(trouble, reason, extra_steps) => {
                DisconnectReason::Retry { trouble, reason: reason.to_owned(), extra_steps }
            }
            Reaction::Restart => DisconnectReason::RestartRequired,
            Reaction::Replaced => DisconnectReason::Replaced,
        };
        self.disconnect(reason);
    }

    /// The device is unlinked: everything that belongs to the link is deleted durably, the message history stays.
    pub(in crate::whatsapp) fn log_out(&mut self, ctx: &mut Ctx<'_>, reason: &'static str) {
        log::debug!("logged out: {reason}");
        self.clear_link(ctx);
        self.emit_durable(Event::LoggedOut { reason: reason.to_owned() });
        // A logout that was asked for has happened, whoever was faster.
        self.finish_pending_logouts();
        self.disconnect(DisconnectReason::LoggedOut { reason: reason.to_owned() });
    }

    /// Deletes credentials, keys and everything learned as this device.
    pub(super) fn clear_link(&mut self, ctx: &mut Ctx<'_>) {
        self.credentials = None;
        self.on_messages_logged_out(ctx);
        self.forget();
        for table in Table::ALL {
            self.state.clear(table);
        }
    }

    fn finish_pending_logouts(&mut self) {
        while let Some(IqKind::Logout(id)) = self.iqs.take_kind(|kind| matches!(kind, IqKind::Logout(_))) {
            self.reply(id, Reply::Done);
        }
    }
}

fn classify(error: &Node) -> Reaction {
    let conflict = error.find("conflict").and_then(|conflict| conflict.get("type"));
    match conflict.as_deref() {
        Some("device_removed") => return Reaction::LogOut("the device was removed"),
        Some("replaced") => return Reaction::Replaced,
        _ => {}
    }
    if let Some(reaction) = error.number("code").and_then(|code| lookup(&STREAM_ERRORS, code)) {
        return reaction;
    }
    if error.find("ping").is_some() {
        return Reaction::Retry(Silence, "WhatsApp missed an answer to a ping", 0);
    }
    if error.find("xml-not-well-formed").is_some() {
        return Reaction::Retry(Protocol, "WhatsApp could not read a stanza of ours", 0);
    }
    Reaction::Stay
}

fn lookup(table: &[(u16, Reaction)], code: u16) -> Option<Reaction> {
    table.iter().find(|(known, _)| *known == code).map(|(_, reaction)| *reaction)
}
