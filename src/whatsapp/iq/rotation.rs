//! The signed prekey is replaced now and then, so that a stolen one does not open first messages for ever.
//!
//! `<iq xmlns=encrypt type=set><rotate><skey>…</skey></rotate></iq>`. The new key is durable before it is offered, and
//! becomes ours when the server took it: by its answer, or, when that got lost, by what the next digest says. Old keys
//! stay for messages that were begun with them. Seen: whatsapp-rust `src/features/rotate_key.rs` @1489b7da and its PR
//! 1237 (what happens when too few are kept); neither whatsmeow nor Baileys rotates.

use std::time::Duration;

use super::{
    IqError, IqKind, iq,
    prekeys::{be_number, next_id, signed_prekey_node},
};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    limits::{SIGNED_PREKEY_LIFE, SIGNED_PREKEY_RETRY, SIGNED_PREKEYS_KEPT},
    signal::SignedPreKeyRecord,
    state::Table,
    timers::Timer,
};

impl Engine {
    /// After login, and when [`Timer::SignedPreKey`] fires: replaces the signed prekey when it is old enough.
    pub(in crate::whatsapp) fn check_signed_prekey(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        if !self.is_logged_in() {
            return Ok(());
        }
        let current = self.signed_prekey(ctx.store)?;
        let now_s = ctx.now.unix_s();
        if current.created_s == 0 {
            // Taken over from a client that does not say when it was made: its life begins now.
            let current = SignedPreKeyRecord { created_s: now_s, ..current };
            self.state.put(Table::SignedPreKey, current.id.to_string(), current.encode());
            self.arm(Timer::SignedPreKey, ctx.now.mono + SIGNED_PREKEY_LIFE);
            return Ok(());
        }
        let age = Duration::from_secs(now_s.saturating_sub(current.created_s));
        match SIGNED_PREKEY_LIFE.saturating_sub(age) {
            Duration::ZERO => self.offer_signed_prekey(ctx, current.id),
            left => {
                self.arm(Timer::SignedPreKey, ctx.now.mono + left);
                Ok(())
            }
        }
    }

    /// Offers the successor of `current`: the one made for an earlier try whose answer got lost, or a new one.
    fn offer_signed_prekey(&mut self, ctx: &mut Ctx<'_>, current: u32) -> Result<(), EngineError> {
        let id = next_id(current);
        let stored = self.state.get(ctx.store, Table::SignedPreKey, &id.to_string())?;
        let offered = match stored.and_then(|raw| SignedPreKeyRecord::decode(&raw).ok()) {
            Some(record) => record,
            None => {
                let Some(credentials) = &self.credentials else { return Ok(()) };
                let (identity, now_s) = (credentials.identity.clone(), ctx.now.unix_s());
                let record = SignedPreKeyRecord::generate(id, &identity, now_s, ctx.rng);
                self.state.put(Table::SignedPreKey, id.to_string(), record.encode());
                record
            }
        };
        let rotate = Node::new("rotate").child(signed_prekey_node(&offered));
        self.send_iq(ctx, iq("set", "encrypt").child(rotate), IqKind::SignedPreKey { id });
        Ok(())
    }

    /// The answer to an offer.
    pub(super) fn on_signed_prekey_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: u32,
        outcome: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        let wait = match outcome {
            Ok(_) => return self.adopt_signed_prekey(ctx, id),
            // The next login asks for the digest and offers it again.
            Err(IqError::ConnectionLost) => return Ok(()),
            Err(IqError::Server { code, .. }) if code < 500 => {
                log::warn!("the server refuses a new signed prekey ({code}); the old one stays");
                self.state.delete(Table::SignedPreKey, id.to_string());
                SIGNED_PREKEY_LIFE
            }
            Err(error) => {
                log::info!("a new signed prekey was not taken ({error}), next try tomorrow");
                SIGNED_PREKEY_RETRY
            }
        };
        self.arm(Timer::SignedPreKey, ctx.now.mono + wait);
        Ok(())
    }

    /// The server speaks of the key we offered last: its answer got lost on the way.
    pub(super) fn note_server_signed_prekey(
        &mut self,
        ctx: &mut Ctx<'_>,
        digest: &Node,
    ) -> Result<(), EngineError> {
        let current = self.credentials.as_ref().map(|credentials| credentials.signed_prekey_id);
        let theirs = digest.find("skey").and_then(|skey| skey.find_bytes("id")).map(be_number);
        match (current, theirs) {
            (Some(current), Some(theirs))
                if theirs == next_id(current)
                    && self.state.get(ctx.store, Table::SignedPreKey, &theirs.to_string())?.is_some() =>
            {
                self.adopt_signed_prekey(ctx, theirs)
            }
            _ => Ok(()),
        }
    }

    fn adopt_signed_prekey(&mut self, ctx: &mut Ctx<'_>, id: u32) -> Result<(), EngineError> {
        if let Some(credentials) = self.credentials.as_mut() {
            credentials.signed_prekey_id = id;
            self.save_credentials();
        }
        self.drop_old_signed_prekeys(ctx, id)?;
        self.check_signed_prekey(ctx)
    }

    fn drop_old_signed_prekeys(&mut self, ctx: &Ctx<'_>, current: u32) -> Result<(), EngineError> {
        let mut by_age = Vec::new();
        for key in self.state.keys(ctx.store, Table::SignedPreKey, "")? {
            let raw = self.state.get(ctx.store, Table::SignedPreKey, &key)?.unwrap_or_default();
            let created_s = SignedPreKeyRecord::decode(&raw).map_or(0, |record| record.created_s);
            by_age.push((created_s, key));
        }
        by_age.sort_unstable_by(|one, other| other.cmp(one));
        for (_, key) in
            by_age.into_iter().skip(SIGNED_PREKEYS_KEPT).filter(|(_, key)| *key != current.to_string())
        {
            self.state.delete(Table::SignedPreKey, key);
        }
        Ok(())
    }
}
