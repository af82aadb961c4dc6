//! A phone receives messages and receipts.

use prost::Message as _;

use super::{Phone, PhoneCtx};
use crate::{
    sandbox::world::{PhoneMessage, SandboxError},
    whatsapp::{binary::Node, jid::Jid, proto::Message, signal::SignalError},
};

impl Phone {
    /// A `<message>`: decrypts, notes, answers.
    pub(super) fn on_message(&mut self, node: &Node, ctx: &mut PhoneCtx<'_>) {
        let (Some(id), Some(from)) = (node.get("id"), node.jid("from")) else { return };
        let sender = node.jid("participant").unwrap_or_else(|| from.clone());
        match self.open(node, &from, &sender, ctx) {
            Ok(message) => {
                self.take_message(node, &from, &sender, &message, ctx);
                self.send_receipt(node, &sender, ctx);
            }
            Err(SignalError::Duplicate) => self.send_receipt(node, &sender, ctx),
            Err(error) if self.seen.contains(&(sender.to_user(), id.clone().into_owned())) => {
                // Another copy of something known: whatever is wrong with it does not matter.
                let _ = error;
                self.send_receipt(node, &sender, ctx);
            }
            Err(error) => self.ask_again(node, &sender, error, ctx),
        }
    }

    /// Decrypts everything in a stanza; pairwise parts first, they may carry the key for the group part.
    fn open(
        &mut self,
        node: &Node,
        from: &Jid,
        sender: &Jid,
        ctx: &mut PhoneCtx<'_>,
    ) -> Result<Message, SignalError> {
        let mut content = Message::default();
        let mut opened = false;
        for pairwise in [true, false] {
            for enc in node.find_all("enc").filter(|enc| enc.has("type", "skmsg") != pairwise) {
                let bytes = enc.content_bytes().unwrap_or_default();
                let plain = if pairwise {
                    let kind = enc.get("type").unwrap_or_default();
                    self.decrypt(sender, &kind, bytes, ctx)?
                } else {
                    self.decrypt_group(from, sender, bytes, ctx)?
                };
                let message = Message::decode(&*plain).map_err(|_| SignalError::InvalidMessage)?;
                let inner = message.device_sent_message.as_ref().and_then(|sent| sent.message.as_deref());
                for part in [Some(&message), inner].into_iter().flatten() {
                    if let Some(key) = &part.sender_key_distribution_message {
                        let bytes = key.axolotl_sender_key_distribution_message.as_deref();
                        self.take_sender_key(&from.user, sender, bytes.unwrap_or_default(), ctx);
                    }
                }
                content = message;
                opened = true;
            }
        }
        if opened { Ok(content) } else { Err(SignalError::NoSession) }
    }

    fn take_message(
        &mut self,
        node: &Node,
        from: &Jid,
        sender: &Jid,
        message: &Message,
        ctx: &mut PhoneCtx<'_>,
    ) {
        let own = self.is_own(sender);
        let sent = message.device_sent_message.as_deref();
        let content = sent.and_then(|sent| sent.message.as_deref()).unwrap_or(message);
        if let (Some(protocol), true) = (&content.protocol_message, own) {
            return self.on_protocol_message(sender, &id_of(node), protocol, ctx);
        }
        let id = id_of(node);
        let only_key = content.sender_key_distribution_message.is_some() && text_of(content).is_none();
        if only_key || !self.seen.insert((sender.to_user(), id.clone())) {
            return;
        }
        let chat = match (own, node.jid("recipient")) {
            (true, Some(recipient)) if !from.is_group() => recipient,
            _ => from.to_user(),
        };
        self.record(PhoneMessage {
            id,
            chat: chat.to_string(),
            sender: sender.to_string(),
            from_me: own,
            text: text_of(content).unwrap_or_default().to_owned(),
            quoted: quoted_text(content),
            timestamp: node.number("t").unwrap_or_else(|| ctx.now.unix_s()),
            status: if own { "sent" } else { "delivered" },
        });
    }

    /// The receipt that answers a message.
    fn send_receipt(&mut self, node: &Node, sender: &Jid, ctx: &mut PhoneCtx<'_>) {
        let kind = if node.has("category", "peer") {
            Some("peer_msg")
        } else {
            self.is_own(sender).then_some("sender")
        };
        let receipt = Node::new("receipt")
            .attr_opt("id", node.value("id").cloned())
            .attr_opt("to", node.value("from").cloned())
            .attr_opt("type", kind)
            .attr_opt("participant", node.value("participant").cloned())
            .attr_opt("recipient", node.value("recipient").cloned());
        ctx.directory.submit(self.account, receipt, ctx.now);
    }

    /// A `<receipt>`: progress of our messages, or a companion or contact that could not decrypt one.
    pub(super) fn on_receipt(&mut self, node: &Node, ctx: &mut PhoneCtx<'_>) {
        let kind = node.get("type").unwrap_or_default();
        let status = match &*kind {
            "retry" => return self.on_retry(node, ctx),
            "" | "inactive" => "delivered",
            "read" | "played" => "read",
            _ => return,
        };
        // Read by a companion of ours: about somebody else's messages.
        if node.value("recipient").is_some() {
            return;
        }
        let more = node.find("list").map(Node::children).unwrap_or_default();
        for id in std::iter::once(node).chain(more).filter_map(|node| node.get("id")) {
            let known = self.own_messages.get(&*id).and_then(|at| self.messages.get_mut(*at));
            if let Some(message) = known.filter(|message| message.status != "read") {
                message.status = status;
            }
        }
    }

    /// Marks everything received in a chat (number or JID) as read.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when there is no such chat.
    pub fn mark_read(&mut self, chat: &str, ctx: &mut PhoneCtx<'_>) -> Result<(), SandboxError> {
        let chat = &self.recipient(chat, ctx)?;
        let canonical = ctx.directory.to_lid(chat);
        let mut by_author: Vec<(String, Vec<String>)> = Vec::new();
        for message in &mut self.messages {
            let same =
                message.chat.parse::<Jid>().is_ok_and(|known| ctx.directory.to_lid(&known) == canonical);
            if message.from_me || message.status == "read" || !same {
                continue;
            }
            message.status = "read";
            match by_author.iter_mut().find(|(author, _)| *author == message.sender) {
                Some((_, ids)) => ids.push(message.id.clone()),
                None => by_author.push((message.sender.clone(), vec![message.id.clone()])),
            }
        }
        for (author, ids) in by_author {
            let Ok(author) = author.parse::<Jid>() else { continue };
            for ids in ids.chunks(MAX_LIST) {
                let Some((first, more)) = ids.split_first() else { continue };
                let items = more.iter().map(|id| Node::new("item").attr("id", id.clone()));
                let list = (!more.is_empty()).then(|| Node::new("list").nodes(items));
                let to = if chat.is_group() { chat.clone() } else { author.to_user() };
                let receipt = Node::new("receipt")
                    .attr("id", first.clone())
                    .attr("to", to)
                    .attr("type", "read")
                    .attr("t", ctx.now.unix_s().to_string())
                    .attr_opt("participant", chat.is_group().then(|| author.clone()))
                    .child_opt(list);
                ctx.directory.submit(self.account, receipt, ctx.now);
            }
        }
        Ok(())
    }
}

fn id_of(node: &Node) -> String {
    node.get("id").unwrap_or_default().into_owned()
}

fn text_of(message: &Message) -> Option<&str> {
    let extended = || message.extended_text_message.as_ref()?.text.as_deref();
    message.conversation.as_deref().or_else(extended)
}

fn quoted_text(message: &Message) -> Option<String> {
    let context = message.extended_text_message.as_ref()?.context_info.as_ref()?;
    text_of(context.quoted_message.as_ref()?).map(str::to_owned)
}

/// Ids per receipt. Seen: protocol facts of whatsapp-rust.
const MAX_LIST: usize = 256;
