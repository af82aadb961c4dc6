//! Messages out and in: fan-out, encryption, server acks, receipts, retries.
//!
//! Out: [`send`] accepts and keeps [`job`]s in order, [`fanout`] encrypts and builds the stanza, [`outcome`] reads the
//! server's ack by the table in [`ack`]. In: [`receive`] opens, [`intake`] stores, [`protocol`] keeps what devices tell
//! each other (app-state keys in [`app_state_keys`]), [`receipt`] answers. When something does not open, [`retry`] asks the sender,
//! [`placeholder`] our phone, and [`resend`] answers others who ask. [`records`] is
//! the cache of Signal records under all of it. The small ones ([`padding`], [`mod@phash`], [`namespace`], [`content`],
//! [`source`], [`limiter`]) are pure.

mod ack;
mod app_state_keys;
mod bundle;
mod cache;
mod chat;
mod content;
mod fanout;
pub(in crate::whatsapp) mod id;
mod intake;
mod job;
mod limiter;
mod namespace;
mod outcome;
mod padding;
mod phash;
mod placeholder;
mod protocol;
mod receipt;
mod receive;
mod records;
mod resend;
mod retry;
mod send;
mod source;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

pub(in crate::whatsapp) use cache::Cache;
pub(in crate::whatsapp) use phash::phash;
pub(in crate::whatsapp) use records::sender_key_name;
pub(in crate::whatsapp) use source::{Own, pair};

use super::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::IqError,
    jid::Jid,
    keys::PublicKey,
    model::MessageStatus,
    signal::Address,
    timers::Timer,
};

/// IQs asked on behalf of messages.
#[derive(Debug)]
pub(in crate::whatsapp) enum MessageQuery {
    /// Prekey bundles of these devices.
    Bundles(Vec<Jid>),
}

/// Chats whose settings are kept decoded.
const CACHED_CHATS: usize = 128;
/// Own messages whose progress is remembered, to tell each step once.
const CACHED_PROGRESS: usize = 512;
/// Devices watched for retries that go round in circles.
const CACHED_RETRIES: usize = 64;

/// Sends under way, caches of decoded records, retry budgets.
#[derive(Debug)]
pub(in crate::whatsapp) struct Messages {
    records: records::Records,
    jobs: job::Jobs,
    /// Pending messages of an earlier run were looked for.
    found_pending: bool,
    /// Nothing is sent before this.
    paused_until: Option<Duration>,
    pause_step: u32,
    /// Devices whose bundles are being fetched.
    fetching: HashSet<Address>,
    /// Devices without a usable bundle, and until when they are left out.
    left_out: HashMap<Address, Duration>,
    /// Groups with a message on the wire that carries our sender key.
    distributing: HashSet<Jid>,
    chats: Cache<Jid, chat::ChatRecord>,
    phash_checked: Cache<Jid, Duration>,
    progress: Cache<String, MessageStatus>,
    admitted: intake::Admitted,
    receipts: receipt::HeldReceipts,
    /// Resends that wait for a bundle.
    resends: Vec<resend::Resend>,
    /// Messages our phone is going to be asked for.
    missing: Vec<placeholder::Missing>,
    /// Retry receipts answered on this connection.
    answered: Cache<String, ()>,
    /// Budget of retry receipts we send, per sender.
    asking: limiter::Limiter,
    /// Budget of resends, per chat.
    answering: limiter::Limiter,
    base_keys: Cache<String, PublicKey>,
    recreated: Cache<Address, Duration>,
}

impl Default for Messages {
    fn default() -> Self {
        Self {
            records: records::Records::default(),
            jobs: job::Jobs::default(),
            found_pending: false,
            paused_until: None,
            pause_step: 0,
            fetching: HashSet::new(),
            left_out: HashMap::new(),
            distributing: HashSet::new(),
            chats: Cache::new(CACHED_CHATS),
            phash_checked: Cache::new(CACHED_CHATS),
            progress: Cache::new(CACHED_PROGRESS),
            admitted: intake::Admitted::default(),
            receipts: receipt::HeldReceipts::default(),
            resends: Vec::new(),
            missing: Vec::new(),
            answered: Cache::new(CACHED_RETRIES),
            asking: limiter::Limiter::default(),
            answering: limiter::Limiter::default(),
            base_keys: Cache::new(CACHED_RETRIES),
            recreated: Cache::new(CACHED_RETRIES),
        }
    }
}

impl Messages {
    /// Messages that are accepted and not answered by the server.
    pub(in crate::whatsapp) fn pending(&self) -> usize {
        self.jobs.count()
    }
}

/// Called by the engine. Each handler answers (receipt, ack) what it was given.
impl Engine {
    /// Answer to a [`MessageQuery`].
    pub(in crate::whatsapp) fn on_message_query(
        &mut self,
        ctx: &mut Ctx<'_>,
        query: MessageQuery,
        answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        match query {
            MessageQuery::Bundles(devices) => self.on_bundles(ctx, &devices, answer),
        }
    }

    /// The offline queue is drained.
    pub(in crate::whatsapp) fn on_messages_offline_done(
        &mut self,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), EngineError> {
        self.flush_receipts();
        self.prune_counters(ctx)
    }

    /// One of the timers `MessageAck`, `Receipts`, `Placeholder`, `CacheTrim` fired.
    pub(in crate::whatsapp) fn on_message_timer(
        &mut self,
        ctx: &mut Ctx<'_>,
        timer: Timer,
    ) -> Result<(), EngineError> {
        match timer {
            Timer::MessageAck => self.on_ack_timer(ctx),
            Timer::Receipts => {
                self.flush_receipts();
                Ok(())
            }
            Timer::Placeholder => self.on_placeholder_timer(ctx),
            Timer::CacheTrim => {
                self.trim_caches();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Clean stop: writes exact counters of every cached record.
    pub(in crate::whatsapp) fn on_messages_shutdown(
        &mut self,
        _ctx: &mut Ctx<'_>,
    ) -> Result<(), EngineError> {
        self.messages.records.write_back(&mut self.state);
        Ok(())
    }

    /// Nothing was said for a while: decoded records are written exactly and their memory is given back.
    fn trim_caches(&mut self) {
        self.messages.records.write_back(&mut self.state);
        self.messages.chats.drain().for_each(drop);
        self.messages.phash_checked.drain().for_each(drop);
        self.messages.progress.drain().for_each(drop);
        self.messages.left_out = HashMap::new();
        self.contacts.trim();
        self.groups.trim();
    }
}

#[cfg(test)]
mod tests;
