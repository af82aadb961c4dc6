//! The passkey step some accounts demand since mid 2026. Only a browser can do it; here it is recognised and reported,
//! and the connection is kept while the account's owner is at it.
//!
//! Seen: whatsmeow `pair-passkey.go` @33cfac51; whatsapp-rust `wacore/src/shortcake.rs` @1489b7da.

use crate::whatsapp::{
    binary::Node, engine::Engine, limits::MAX_PASSKEY_OPTIONS, model::Event, timers::Timer,
};

impl Engine {
    /// `<notification type=passkey_prologue_request>` with `passkey_request_options`, or `crsc_continuation`.
    pub(in crate::whatsapp) fn on_passkey_notification(&mut self, node: &Node) {
        self.pairing.passkey = true;
        self.timers.clear(Timer::Qr);
        let options = options(node);
        if options.is_none() && !node.has("type", "passkey_prologue_request") {
            log::info!("the passkey step goes on: {node}");
            return;
        }
        log::warn!("the account demands a passkey, which this program cannot give");
        let options = options.filter(|text| text.len() <= MAX_PASSKEY_OPTIONS).unwrap_or_default();
        self.emit(Event::PasskeyRequired { options: options.to_owned() });
    }
}

fn options(node: &Node) -> Option<&str> {
    let direct = node.find("passkey_request_options");
    // Seen one level down as well.
    direct
        .or_else(|| node.children().iter().find_map(|child| child.find("passkey_request_options")))?
        .content_text()
}
