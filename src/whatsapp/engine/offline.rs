//! The offline queue: what waited while we were away is pulled in batches until the server says it is empty.
//!
//! `<ib><offline_preview count/></ib>` → `<ib><offline_batch count=200/></ib>`, again 100 ms after the first stanza of
//! each batch, until `<ib><offline count/></ib>`. Without the pull the server never goes live.
//! Seen: whatsapp-rust `src/client/offline_resume.rs` @1489b7da.

use super::{Engine, EngineError};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    limits::{OFFLINE_BATCH, OFFLINE_BATCH_DELAY, OFFLINE_STALL},
    model::Event,
    timers::Timer,
};

/// How far the drain of this connection is. Starts anew with every login.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offline {
    /// Not logged in, or nothing announced yet.
    #[default]
    Idle,
    /// A batch was asked for and none of its stanzas has come.
    Asked,
    /// The batch is coming; [`Timer::Offline`] asks for the next one.
    BatchDue,
    /// Everything that waited has been delivered.
    Done,
}

impl Engine {
    /// Whether the offline queue of this connection is empty.
    pub(in crate::whatsapp) fn is_drained(&self) -> bool {
        self.offline == Offline::Done
    }

    /// Login: the server will say what waited, or at least that nothing did.
    pub(super) fn start_offline(&mut self, ctx: &mut Ctx<'_>) {
        self.offline = Offline::Idle;
        self.arm(Timer::Offline, ctx.now.mono + OFFLINE_STALL);
    }

    /// `<offline_preview count/>`.
    pub(super) fn on_offline_preview(&mut self, ctx: &mut Ctx<'_>, preview: &Node) {
        if self.offline == Offline::Done || preview.number::<u32>("count") == Some(0) {
            return;
        }
        self.ask_batch(ctx);
    }

    /// A stanza that waited for us (attribute `offline`).
    pub(super) fn on_offline_stanza(&mut self, ctx: &mut Ctx<'_>) {
        match self.offline {
            Offline::Asked => {
                self.offline = Offline::BatchDue;
                self.arm(Timer::Offline, ctx.now.mono + OFFLINE_BATCH_DELAY);
            }
            Offline::Idle => self.arm(Timer::Offline, ctx.now.mono + OFFLINE_STALL),
            Offline::BatchDue | Offline::Done => {}
        }
    }

    /// [`Timer::Offline`]: the next batch is due, or the server stopped delivering.
    pub(super) fn on_offline_timer(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        if self.offline == Offline::BatchDue {
            self.ask_batch(ctx);
            return Ok(());
        }
        log::warn!("the offline queue stalled; going live without its end");
        self.on_offline_end(ctx)
    }

    /// `<offline count/>`: only this ends the drain.
    pub(super) fn on_offline_end(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        if self.offline == Offline::Done {
            return Ok(());
        }
        self.offline = Offline::Done;
        self.timers.clear(Timer::Offline);
        self.on_messages_offline_done(ctx)?;
        self.emit(Event::Ready);
        self.on_prekeys_drained(ctx)
    }

    fn ask_batch(&mut self, ctx: &mut Ctx<'_>) {
        self.offline = Offline::Asked;
        self.arm(Timer::Offline, ctx.now.mono + OFFLINE_STALL);
        let batch = Node::new("offline_batch").attr("count", OFFLINE_BATCH.to_string());
        self.send_node(&Node::new("ib").child(batch));
    }
}
