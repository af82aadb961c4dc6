//! `<ib>`: what the service itself has to say about the connection. Never acked; it has no id.

use super::{Engine, EngineError};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    iq::{IqKind, iq},
};

impl Engine {
    /// Handles each child; those we have no use for (`thread_metadata`, notices) are passed over.
    pub(super) fn on_ib(&mut self, ctx: &mut Ctx<'_>, ib: &Node) -> Result<(), EngineError> {
        for child in ib.children() {
            match child.tag.as_ref() {
                "offline_preview" if self.is_logged_in() => self.on_offline_preview(ctx, child),
                "offline" if self.is_logged_in() => self.on_offline_end(ctx)?,
                "edge_routing" => self.on_edge_routing(child),
                "dirty" if self.is_logged_in() => self.on_dirty(ctx, child)?,
                "downgrade_webclient" => self.log_out(ctx, "this account cannot use linked devices"),
                "client_expiration" => {
                    let at: u64 = child.number("t").unwrap_or_default();
                    log::warn!("WhatsApp stops accepting this client version at Unix time {at}");
                }
                other => log::debug!("passed over <ib><{other}>"),
            }
        }
        Ok(())
    }

    /// `<edge_routing><routing_info>bytes</routing_info></edge_routing>`: sent back in front of the next connection.
    fn on_edge_routing(&mut self, edge_routing: &Node) {
        let (Some(info), Some(credentials)) =
            (edge_routing.find_bytes("routing_info"), self.credentials.as_mut())
        else {
            return;
        };
        // The intro has a 3-byte length, and real ones are a few dozen bytes.
        if info.is_empty() || info.len() > 1024 || credentials.routing_info.as_deref() == Some(info) {
            return;
        }
        credentials.routing_info = Some(info.to_vec());
        self.save_credentials();
    }

    /// `<dirty type timestamp/>`: something of ours is out of date. Groups are asked for again when next needed; the
    /// other kinds belong to features that do not exist yet.
    fn on_dirty(&mut self, ctx: &mut Ctx<'_>, dirty: &Node) -> Result<(), EngineError> {
        let Some(kind) = dirty.get("type") else {
            return Ok(());
        };
        let timestamp = dirty.value("timestamp").cloned();
        let clean =
            Node::new("clean").attr("type", kind.clone().into_owned()).attr_opt("timestamp", timestamp);
        if kind == "groups" {
            self.on_groups_dirty(ctx)?;
        }
        self.send_iq(ctx, iq("set", "urn:xmpp:whatsapp:dirty").child(clean), IqKind::Ignore);
        Ok(())
    }
}
