//! `<notification>`: by type to whoever keeps what it changes; always acked, behind what it made us write.

use super::{Engine, EngineError, ack::PARSING_ERROR};
use crate::whatsapp::{binary::Node, ctx::Ctx};

impl Engine {
    /// Handles and acks one notification.
    pub(super) fn on_notification(&mut self, ctx: &mut Ctx<'_>, node: &Node) -> Result<(), EngineError> {
        let Some(kind) = node.get("type") else {
            self.nack(node, PARSING_ERROR);
            return Ok(());
        };
        match (kind.as_ref(), self.is_logged_in()) {
            ("link_code_companion_reg", false) => self.on_link_code_notification(ctx, node),
            ("companion_reg_refresh", false) => self.on_registration_refresh(ctx, node),
            ("passkey_prologue_request" | "crsc_continuation", false) => self.on_passkey_notification(node),
            (_, false) => {}
            ("encrypt", true) => self.on_encrypt_notification(ctx, node)?,
            ("devices", true) => self.on_devices_notification(ctx, node)?,
            ("account_sync", true) if node.find("devices").is_some() => {
                self.on_devices_notification(ctx, node)?;
            }
            ("w:gp2", true) => self.on_group_notification(ctx, node)?,
            ("privacy_token", true) => self.on_privacy_token_notification(ctx, node)?,
            // server_sync, picture, status, business, contacts, mediaretry, newsletter, mex, psa, …: nothing of
            // theirs is kept yet.
            (other, true) => log::debug!("acked only: notification {other}"),
        }
        self.ack(node);
        Ok(())
    }

    /// `<count value/>`, `<digest/>` or `<identity/>`.
    fn on_encrypt_notification(&mut self, ctx: &mut Ctx<'_>, node: &Node) -> Result<(), EngineError> {
        if let Some(count) = node.find("count") {
            self.on_prekeys_low(ctx, count.number("value").unwrap_or_default())?;
        }
        if node.find("digest").is_some() {
            self.ask_prekey_digest(ctx);
        }
        if node.find("identity").is_some() {
            self.on_identity_notification(ctx, node)?;
        }
        Ok(())
    }
}
