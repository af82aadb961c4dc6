//! Trusted-contact tokens: who may write to whom without being taken for spam.

use super::{DeviceRef, Service, errors::result};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{
        binary::{Content, Node},
        ctx::Now,
    },
};

impl Service {
    /// `<iq xmlns=privacy type=set><tokens>`: this account gives tokens to contacts.
    pub(super) fn on_tokens_iq(&mut self, device: DeviceRef, conn: Option<ConnId>, iq: &Node, now: Now) {
        for token in iq.find("tokens").map(Node::children).unwrap_or_default() {
            let contact = token.jid("jid").and_then(|jid| self.account_of(&jid));
            if !token.has("type", "trusted_contact") || token.value("t").is_none() {
                self.violate_opt(conn, now, "token-shape", "a token needs type, t and jid", iq);
            }
            if let Some(contact) = contact.filter(|contact| *contact != device.account) {
                self.issue_token(device.account, contact, now);
            }
        }
        self.send_opt(conn, result(iq), now);
    }

    fn issue_token(&mut self, issuer: u32, contact: u32, now: Now) {
        let token = self.random_bytes::<16>().to_vec();
        self.account_mut(issuer).tokens.insert(contact, token.clone());
        let (pn, lid) = (self.account(issuer).jid(false), self.account(issuer).jid(true));
        let companions: Vec<_> = self.devices_of(contact).filter(|device| device.device != 0).collect();
        for companion in companions {
            let tokens = Node::new("tokens").child(
                Node::new("token")
                    .attr("type", "trusted_contact")
                    .attr("t", now.unix_s().to_string())
                    .attr("jid", self.device_jid(companion, false))
                    .bytes(token.clone()),
            );
            let notification = Node::new("notification")
                .attr("from", &pn)
                .attr("sender_lid", &lid)
                .attr("id", self.fresh_number().to_string())
                .attr("type", "privacy_token")
                .attr("t", now.unix_s().to_string())
                .child(tokens);
            self.deliver(companion, notification, now);
        }
    }

    /// Checks the token of a 1:1 message; gives back the error of the ack.
    pub(super) fn check_token(
        &mut self,
        sender: DeviceRef,
        recipient: u32,
        conn: Option<ConnId>,
        message: &Node,
        now: Now,
    ) -> Option<u16> {
        let token = message.find("tctoken");
        if let Some(token) = token {
            if !matches!(token.content, Content::Bytes(_)) {
                self.violate_opt(conn, now, "tctoken-as-text", "a tctoken is bytes, not text", message);
                return Some(479);
            }
            if recipient == sender.account {
                self.violate_opt(conn, now, "tctoken-to-self", "no tctoken to one's own account", message);
                return Some(479);
            }
        }
        // An older token stays valid for weeks, so any bytes will do; what counts is that one is there.
        let refuse = self.options.require_tokens && conn.is_some() && recipient != sender.account;
        (refuse && token.is_none()).then_some(463)
    }
}
