//! `<success>`: what is learned from it and what is asked in its wake.

use super::{Engine, EngineError, Phase};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    iq::{IqKind, iq},
    model::{Event, Trouble},
    timers::Timer,
};

impl Engine {
    /// `<success t lid …/>`: we are logged in. Nothing that follows holds the session back.
    pub(super) fn on_success(&mut self, ctx: &mut Ctx<'_>, success: &Node) -> Result<(), EngineError> {
        let Some(jid) = self.credentials.as_ref().and_then(|credentials| credentials.jid.clone()) else {
            self.retry_later(Trouble::Handshake, "the server logged in a device that is not linked");
            return Ok(());
        };
        self.timers.clear(Timer::Login);
        self.enter(Phase::LoggedIn);
        self.start_offline(ctx);
        self.learn_own_lid(ctx, success)?;

        let credentials = self.credentials.as_ref();
        self.emit(Event::Connected {
            lid: credentials.and_then(|credentials| credentials.lid.clone()),
            push_name: credentials.and_then(|credentials| credentials.push_name.clone()),
            jid,
        });
        // In this order: the phone's first messages need prekeys, and `active` lets them flow.
        self.check_prekeys(ctx)?;
        self.send_iq(ctx, iq("set", "passive").child(Node::new("active")), IqKind::Ignore);
        self.ask_props(ctx);
        self.send_presence();
        self.on_messages_connected(ctx)
    }

    /// The server knows our LID better than an older pairing did.
    fn learn_own_lid(&mut self, ctx: &mut Ctx<'_>, success: &Node) -> Result<(), EngineError> {
        let (Some(lid), Some(credentials)) = (success.jid("lid"), self.credentials.as_mut()) else {
            return Ok(());
        };
        let Some(pn) = credentials.jid.clone() else {
            return Ok(());
        };
        // The attribute names the account, our JID the device.
        let lid = lid.with_device(pn.device);
        if !lid.is_lid() || credentials.lid.as_ref() == Some(&lid) {
            return Ok(());
        }
        credentials.lid = Some(lid.clone());
        self.save_credentials();
        self.learn_lid(ctx, &pn.to_user(), &lid.to_user())
    }

    /// Stays unavailable, so that the phone keeps ringing, but tells the server our name: peers see it on our
    /// messages.
    fn send_presence(&mut self) {
        let name = self.credentials.as_ref().and_then(|credentials| credentials.push_name.as_deref());
        if let Some(name) = name.map(|name| name.replace('@', ""))
            && !name.is_empty()
        {
            self.send_node(&Node::new("presence").attr("type", "unavailable").attr("name", name));
        }
    }
}
