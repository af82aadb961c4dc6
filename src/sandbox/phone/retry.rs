//! Retry receipts of a phone, both ways.

use super::{
    Phone, PhoneCtx,
    sending::{device_sent, distribution},
    sessions::padded,
};
use crate::{
    sandbox::service::{parse_prekey, parse_signed},
    whatsapp::{
        binary::Node,
        jid::Jid,
        keys::PublicKey,
        signal::{PreKeyBundle, SignalError},
    },
};

impl Phone {
    /// A message could not be decrypted: asks its author again.
    pub(super) fn ask_again(
        &mut self,
        node: &Node,
        sender: &Jid,
        error: SignalError,
        ctx: &mut PhoneCtx<'_>,
    ) {
        let id = node.get("id").unwrap_or_default().into_owned();
        let count = self.retries.entry((sender.clone(), id.clone())).or_insert(0);
        *count += 1;
        let count = *count;
        if count > MAX_RETRIES {
            return;
        }
        let retry = Node::new("retry")
            .attr("count", count.to_string())
            .attr("id", id)
            .attr_opt("t", node.value("t").cloned())
            .attr("v", "1")
            .attr("error", error.retry_code().to_string());
        let keys = (count >= 2).then(|| self.retry_keys(ctx));
        let receipt = Node::new("receipt")
            .attr_opt("id", node.value("id").cloned())
            .attr_opt("to", node.value("from").cloned())
            .attr("type", "retry")
            .attr_opt("participant", node.value("participant").cloned())
            .attr_opt("recipient", node.value("recipient").cloned())
            .child(retry)
            .child(Node::new("registration").bytes(self.registration_id.to_be_bytes()))
            .child_opt(keys);
        ctx.directory.submit(self.account, receipt, ctx.now);
    }

    fn retry_keys(&mut self, ctx: &mut PhoneCtx<'_>) -> Node {
        let id_node = |id: u32| {
            let [_, id @ ..] = id.to_be_bytes();
            Node::new("id").bytes(id)
        };
        let (id, public) = self.fresh_prekey(ctx.rng);
        let signed = &self.signed_prekey;
        Node::new("keys")
            .child(Node::new("type").bytes([5]))
            .child(Node::new("identity").bytes(self.identity.public.0))
            .child(Node::new("key").child(id_node(id)).child(Node::new("value").bytes(public.0)))
            .child(
                Node::new("skey")
                    .child(id_node(signed.id))
                    .child(Node::new("value").bytes(signed.pair.public.0))
                    .child(Node::new("signature").bytes(signed.signature)),
            )
    }

    /// Somebody could not decrypt a message of ours: repairs the session and sends it again to that device.
    pub(super) fn on_retry(&mut self, node: &Node, ctx: &mut PhoneCtx<'_>) {
        let (Some(id), Some(from)) = (node.get("id"), node.jid("from")) else { return };
        let asker = node.jid("participant").unwrap_or_else(|| from.clone());
        let count: u8 = node.find("retry").and_then(|retry| retry.number("count")).unwrap_or(1);
        if count > MAX_RETRIES {
            return;
        }
        self.repair_session(node, &asker, count, ctx);
        let Some((to, message)) = self.sent.find(&id).cloned() else { return };
        let own = self.is_own(&asker);
        let mut content =
            if own && !to.is_group() && !self.is_own(&to) { device_sent(&to, &message) } else { message };
        if to.is_group()
            && let Some(key) = self.own_sender_keys.get(&*to.user)
        {
            content.sender_key_distribution_message = Some(Box::new(distribution(&to, &key.record)));
        }
        let bytes = padded(&content, ctx.rng);
        let Some(enc) = self.encrypt(&asker, &bytes, ctx) else { return };
        let peer = to.device != 0;
        let head = Node::new("message").attr("id", id.into_owned()).attr("type", "text");
        let head = if to.is_group() {
            head.attr("to", &to).attr("participant", &asker).attr("addressing_mode", mode(&asker))
        } else if peer {
            head.attr("to", &asker).attr("category", "peer")
        } else if own {
            head.attr("to", &asker).attr("recipient", &to).attr("device_fanout", "false")
        } else {
            head.attr("to", &asker).attr("device_fanout", "false")
        };
        let stanza = head.child(enc.attr("count", count.to_string()));
        ctx.directory.submit(self.account, stanza, ctx.now);
    }

    fn repair_session(&mut self, node: &Node, asker: &Jid, count: u8, ctx: &mut PhoneCtx<'_>) {
        let address = ctx.directory.to_lid(asker);
        let registration = node.find_bytes("registration").and_then(|bytes| bytes.try_into().ok());
        let registration = registration.map(u32::from_be_bytes);
        if let Some(bundle) = registration.and_then(|id| parse_keys(node.find("keys")?, id)) {
            // A bundle that does not verify is as good as none: the fetched one replaces it.
            if self.start_session(&address, &bundle, ctx.rng).is_ok() {
                return;
            }
        }
        let known = self.sessions.get(&address).and_then(|session| session.remote_registration_id());
        if (count >= 2 || known != registration)
            && let Some(bundle) = ctx.directory.bundle(asker, ctx.now)
        {
            let _ = self.start_session(&address, &bundle, ctx.rng);
        }
    }
}

fn mode(jid: &Jid) -> &'static str {
    if jid.is_lid() { "lid" } else { "pn" }
}

fn parse_keys(keys: &Node, registration_id: u32) -> Option<PreKeyBundle> {
    let (id, signed, signature) = keys.find("skey").and_then(parse_signed)?;
    Some(PreKeyBundle {
        registration_id,
        identity: keys.find_bytes("identity").and_then(PublicKey::from_slice)?,
        signed_prekey_id: id,
        signed_prekey: signed,
        signed_prekey_signature: signature,
        prekey: keys.find("key").and_then(parse_prekey),
    })
}

/// Seen: WhatsApp Web's limit.
const MAX_RETRIES: u8 = 5;
