//! Trusted-contact tokens: without one the server throttles or refuses 1:1 messages to people who do not know us.
//!
//! A token is opaque bytes a contact granted us; ours goes to the contact once per 7-day bucket. Where no token is
//! held but the account has an NCT salt, a `cstoken` computed from the contact's LID stands in.
//!
//! Seen: whatsmeow `tctoken.go`, `cstoken.go` @33cfac51; whatsapp-rust `wacore/src/iq/tctoken.rs` @1489b7da.

use hmac::{Hmac, Mac};
use prost::Message;
use sha2::Sha256;

use super::ContactQuery;
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::{IqKind, iq},
    jid::Jid,
    state::{StateRead, Table},
};

/// Length of a bucket, seconds.
const BUCKET_S: u64 = 604_800;
/// A token counts in its own bucket and the three after it.
const BUCKETS: u64 = 4;
/// Longer "tokens" are not tokens.
const MAX_TOKEN_BYTES: usize = 1024;

/// What is kept per contact.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TokenRecord {
    /// The contact's token for us; empty when none came.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) token: Vec<u8>,
    /// When the contact issued it, Unix seconds.
    #[prost(uint64, tag = "2")]
    pub(crate) issued_s: u64,
    /// When we issued ours to the contact, Unix seconds; 0 = never.
    #[prost(uint64, tag = "3")]
    pub(crate) sent_s: u64,
}

fn is_valid(issued_s: u64, now_s: u64) -> bool {
    issued_s / BUCKET_S + BUCKETS > now_s / BUCKET_S
}

fn is_due(sent_s: u64, now_s: u64) -> bool {
    now_s / BUCKET_S > sent_s / BUCKET_S
}

impl Engine {
    /// `<tctoken>` or `<cstoken>` for a 1:1 message to this user, when there is one.
    pub(in crate::whatsapp) fn token_node(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        now_s: u64,
    ) -> Result<Option<Node>, EngineError> {
        let user = self.canonical(store, &user.to_user())?;
        let record = self.token_record(store, &user)?;
        if !record.token.is_empty() && is_valid(record.issued_s, now_s) {
            return Ok(Some(Node::new("tctoken").bytes(record.token)));
        }
        let salt = self.credentials.as_ref().and_then(|credentials| credentials.nct_salt.as_ref());
        let (Some(salt), true) = (salt, user.is_lid()) else { return Ok(None) };
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(salt).expect("HMAC takes keys of any length");
        mac.update(user.to_string().as_bytes());
        Ok(Some(Node::new("cstoken").bytes(mac.finalize().into_bytes().to_vec())))
    }

    /// Issues our token to a contact we just wrote to, at most once per bucket.
    pub(in crate::whatsapp) fn issue_token_if_due(
        &mut self,
        ctx: &mut Ctx<'_>,
        user: &Jid,
    ) -> Result<(), EngineError> {
        let user = self.canonical(ctx.store, &user.to_user())?;
        let mut record = self.token_record(ctx.store, &user)?;
        let now_s = ctx.now.unix_s();
        if !is_due(record.sent_s, now_s) {
            return Ok(());
        }
        record.sent_s = now_s;
        self.put_token_record(&user, record);
        self.issue_token(ctx, &user, now_s);
        Ok(())
    }

    /// A contact with a new identity lost our token: issues it again with the old time.
    pub(super) fn reissue_token(&mut self, ctx: &mut Ctx<'_>, user: &Jid) -> Result<(), EngineError> {
        let user = self.canonical(ctx.store, &user.to_user())?;
        let record = self.token_record(ctx.store, &user)?;
        if record.sent_s > 0 && is_valid(record.sent_s, ctx.now.unix_s()) {
            self.issue_token(ctx, &user, record.sent_s);
        }
        Ok(())
    }

    fn issue_token(&mut self, ctx: &mut Ctx<'_>, user: &Jid, at_s: u64) {
        if !self.is_logged_in() {
            return;
        }
        let token =
            Node::new("token").attr("jid", user).attr("t", at_s.to_string()).attr("type", "trusted_contact");
        let tokens = iq("set", "privacy").child(Node::new("tokens").child(token));
        self.send_iq(ctx, tokens, IqKind::Contact(ContactQuery::IssueToken));
    }

    /// A contact's token arrived; an older one than the one held is ignored.
    pub(in crate::whatsapp) fn learn_token(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        token: &[u8],
        issued_s: u64,
        sent_s: Option<u64>,
    ) -> Result<(), EngineError> {
        if !user.is_user() || token.len() > MAX_TOKEN_BYTES {
            return Ok(());
        }
        let user = self.canonical(store, &user.to_user())?;
        let known = self.token_record(store, &user)?;
        let mut record = known.clone();
        if !token.is_empty() && issued_s >= known.issued_s {
            record.token = token.to_vec();
            record.issued_s = issued_s;
        }
        record.sent_s = record.sent_s.max(sent_s.unwrap_or_default());
        if record != known {
            self.put_token_record(&user, record);
        }
        Ok(())
    }

    /// `<notification type="privacy_token">`. The caller acks it.
    pub(in crate::whatsapp) fn on_privacy_token_notification(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
    ) -> Result<(), EngineError> {
        let Some(from) = stanza.jid("from") else { return Ok(()) };
        if let Some(lid) = stanza.jid("sender_lid") {
            self.learn_lid(ctx, &from, &lid)?;
        }
        let tokens = stanza.find("tokens").map(Node::children).unwrap_or_default();
        for token in tokens.iter().filter(|node| node.tag == "token" && node.has("type", "trusted_contact")) {
            let (Some(bytes), Some(issued_s)) = (token.content_bytes(), token.number("t")) else { continue };
            self.learn_token(ctx.store, &from, bytes, issued_s, None)?;
        }
        // A message may have waited for it.
        self.pump(ctx)
    }

    fn token_record(&mut self, store: &dyn StateRead, user: &Jid) -> Result<TokenRecord, EngineError> {
        let key = user.to_string();
        if let Some(record) = self.contacts.tokens.get(&key) {
            return Ok(record.clone());
        }
        let stored = self.state.get(store, Table::TcToken, &key)?;
        // A record that cannot be read is worth no more than none: tokens come again.
        let record = stored.and_then(|raw| TokenRecord::decode(raw.as_slice()).ok()).unwrap_or_default();
        self.contacts.tokens.insert(key, record.clone());
        Ok(record)
    }

    fn put_token_record(&mut self, user: &Jid, record: TokenRecord) {
        let key = user.to_string();
        self.state.put(Table::TcToken, key.as_str(), record.encode_to_vec());
        self.contacts.tokens.insert(key, record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_for_four_buckets_and_ours_is_due_once_per_bucket() {
        let issued = 10 * BUCKET_S + 5;
        assert!(is_valid(issued, issued));
        assert!(is_valid(issued, 14 * BUCKET_S - 1));
        assert!(!is_valid(issued, 14 * BUCKET_S));
        assert!(is_due(0, issued));
        assert!(!is_due(issued, 11 * BUCKET_S - 1));
        assert!(is_due(issued, 11 * BUCKET_S));
    }
}
