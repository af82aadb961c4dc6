//! Asking for a resend: the retry receipt for a message that does not open.
//!
//! `<receipt id to type=retry [participant] [recipient] [category]><retry count id t v=1 error/><registration/>` and,
//! from the second on, `<keys>` with a fresh one-time prekey, so that the sender can build a new session. Followed by a
//! plain ack: a nack would make the server hold the offline queue back.
//! Seen: whatsmeow `retry.go` `sendRetryReceipt` @33cfac51; whatsapp-rust `wacore/src/protocol/retry.rs` @1489b7da;
//! Baileys PR 2779.

use super::{placeholder::MISSING_PREFIX, receive::Incoming};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::{prekey_node, signed_prekey_node},
    jid::Jid,
    model::Event,
    state::{StateRead, Table},
    tally::Counted,
};

/// Retry receipts per message. Seen: WhatsApp Web `MAX_RETRY`.
const MAX_RETRIES: u8 = 5;
/// Counters older than this are dropped; senders do not resend what is older.
const COUNTER_LIFE_S: u64 = 14 * 24 * 60 * 60;

/// A stored counter: how often, and when last. Five to thirteen bytes: count, then big-endian Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counter {
    count: u8,
    at_s: u64,
}

impl Counter {
    fn encode(self) -> Vec<u8> {
        let mut raw = vec![self.count];
        raw.extend(self.at_s.to_be_bytes());
        raw
    }

    fn decode(raw: &[u8]) -> Self {
        match raw.split_first() {
            Some((count, at)) => Self { count: *count, at_s: at.try_into().map_or(0, u64::from_be_bytes) },
            None => Self::default(),
        }
    }
}

/// The key of a counter.
pub(super) fn counter_key(sender: &Jid, id: &str) -> String {
    format!("{sender}/{id}")
}

impl Engine {
    /// How often, counting this time.
    pub(super) fn count_retry(&mut self, ctx: &Ctx<'_>, key: &str, at_least: u8) -> Result<u8, EngineError> {
        let raw = self.state.get(ctx.store, Table::RetryCount, key)?;
        let before = raw.map(|raw| Counter::decode(&raw)).unwrap_or_default();
        let count = before.count.max(at_least).saturating_add(1);
        self.state.put(Table::RetryCount, key, Counter { count, at_s: ctx.now.unix_s() }.encode());
        Ok(count)
    }

    /// Drops counters nobody needs any more, and finds the messages an earlier run still misses.
    pub(super) fn prune_counters(&mut self, ctx: &Ctx<'_>) -> Result<(), EngineError> {
        for key in self.state.keys(ctx.store, Table::RetryCount, "")? {
            if key.starts_with(MISSING_PREFIX) {
                self.still_miss(ctx, &key)?;
                continue;
            }
            let raw = self.state.get(ctx.store, Table::RetryCount, &key)?.unwrap_or_default();
            if Counter::decode(&raw).at_s + COUNTER_LIFE_S < ctx.now.unix_s() {
                self.state.delete(Table::RetryCount, key);
            }
        }
        Ok(())
    }

    /// Answers a message that does not open.
    pub(super) fn ask_resend(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        error: u8,
        hide: bool,
    ) -> Result<(), EngineError> {
        let source = &incoming.source;
        let asked = incoming.stanza.find_all("enc").find_map(|enc| enc.number::<u8>("count")).unwrap_or(0);
        let count = self.count_retry(ctx, &counter_key(&source.sender, &incoming.id), asked)?;
        let within_budget = self.messages.asking.take(&source.sender.to_user(), ctx.now.mono);
        if count <= MAX_RETRIES && within_budget {
            if count == 1 {
                self.miss(ctx, incoming);
            }
            if count == 1 && !hide {
                let chat = self.chat_of(ctx.store, incoming, None)?;
                let sender = self.display_name(ctx.store, &source.sender)?;
                self.emit_durable(Event::Undecryptable { chat, id: incoming.id.clone(), sender });
            }
            let receipt = self.retry_receipt(ctx, incoming, count, error)?;
            self.send_node(&receipt);
            self.tally.count(Counted::RetryAsked);
        } else {
            log::debug!("no further retry receipt for this message");
        }
        self.ack(incoming.stanza);
        Ok(())
    }

    fn retry_receipt(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        count: u8,
        error: u8,
    ) -> Result<Node, EngineError> {
        let stanza = incoming.stanza;
        let has_pairwise = stanza.find_all("enc").any(|enc| !enc.has("type", "skmsg"));
        let keys = if count >= 2 || !has_pairwise { self.retry_keys(ctx)? } else { None };
        let registration = self.credentials.as_ref().map_or(0, |own| own.registration_id);
        let retry = Node::new("retry")
            .attr("count", count.to_string())
            .attr("id", incoming.id.clone())
            .attr("t", incoming.timestamp.to_string())
            .attr("v", "1")
            .attr("error", error.to_string());
        Ok(Node::new("receipt")
            .attr("id", incoming.id.clone())
            .attr_opt("to", stanza.value("from").cloned())
            .attr("type", "retry")
            .attr_opt("participant", stanza.value("participant").cloned())
            .attr_opt("recipient", stanza.value("recipient").cloned())
            .attr_opt("category", stanza.value("category").cloned())
            .child(retry)
            .child(Node::new("registration").bytes(registration.to_be_bytes()))
            .child_opt(keys))
    }

    /// `<keys>`: everything a sender needs to build a new session with us.
    fn retry_keys(&mut self, ctx: &mut Ctx<'_>) -> Result<Option<Node>, EngineError> {
        let Some(prekey) = self.fresh_prekey(ctx) else { return Ok(None) };
        let signed = self.signed_prekey(ctx.store)?;
        let Some(credentials) = self.credentials.as_ref() else { return Ok(None) };
        let identity = Node::new("identity").bytes(credentials.identity.public.0);
        Ok(Some(
            Node::new("keys")
                .child(Node::new("type").bytes([crate::whatsapp::keys::DJB_TYPE]))
                .child(identity)
                .child(prekey_node(&prekey))
                .child(signed_prekey_node(&signed))
                .child_opt(self.device_identity_node(true)),
        ))
    }

    /// A message that had failed before has arrived: its counter is done.
    pub(super) fn forget_counter(
        &mut self,
        store: &dyn StateRead,
        sender: &Jid,
        id: &str,
    ) -> Result<(), EngineError> {
        let key = counter_key(sender, id);
        if self.state.get(store, Table::RetryCount, &key)?.is_some() {
            self.state.delete(Table::RetryCount, key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_survives_storage_and_damage_starts_it_anew() {
        let counter = Counter { count: 3, at_s: 1_780_000_000 };
        assert_eq!(Counter::decode(&counter.encode()), counter);
        assert_eq!(Counter::decode(&[]), Counter::default());
        assert_eq!(Counter::decode(&[4, 1]), Counter { count: 4, at_s: 0 });
    }
}
