//! Linking by QR: refs from the server, one QR after the other, until one is scanned or all are used up.
//!
//! `<iq type=set><pair-device><ref>…</ref>×6</pair-device></iq>`. A QR is the text
//! `https://wa.me/settings/linked_devices#ref,noise,identity,advSecret,clientType`, keys in Base64.
//! Seen: whatsmeow `pair.go`, `qrchan.go` @33cfac51; whatsapp-rust `wacore/src/pair.rs` @1489b7da.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{CodePairing, Credentials};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError, iq_result},
    limits::{FIRST_QR, MAX_QR_REF_LEN, MAX_QR_REFS, NEXT_QR},
    model::{DisconnectReason, Event},
    timers::Timer,
};

/// What phones open when the QR is scanned by the camera.
const QR_PREFIX: &str = "https://wa.me/settings/linked_devices#";

/// Client type of the QR and of the pairing code: Chrome.
pub(super) const CLIENT_TYPE: &str = "1";

impl Engine {
    /// `<pair-device>`, possibly not the first one of this connection: shows a QR, or goes on with a code that was
    /// asked for earlier.
    pub(in crate::whatsapp) fn on_pair_device(
        &mut self,
        ctx: &mut Ctx<'_>,
        iq: &Node,
    ) -> Result<(), EngineError> {
        self.send_node(&iq_result(iq));
        if self.is_linked() {
            log::warn!("the server offers to pair a linked device");
            return Ok(());
        }
        self.enter_pairing();
        self.pairing.refs = iq.find("pair-device").map(refs).unwrap_or_default();
        if let Some((id, phone)) = self.pairing.wanted.take() {
            self.request_code(ctx, id, phone);
        }
        if !self.is_pairing_otherwise() {
            self.show_next_qr(ctx, FIRST_QR);
        }
        Ok(())
    }

    /// [`Timer::Qr`]: the QR, or the pairing code, has expired.
    pub(in crate::whatsapp) fn on_qr_timer(&mut self, ctx: &mut Ctx<'_>) {
        if self.pairing.passkey {
            return;
        }
        if self.pairing.code.as_ref().is_some_and(|code| code.is_shown()) {
            self.disconnect(DisconnectReason::QrTimeout);
            return;
        }
        self.show_next_qr(ctx, NEXT_QR);
    }

    /// `<notification type=companion_reg_refresh>`: the server retires what the QR advertises. The secret is made
    /// anew and the QR drawn again. Not while a code is being finished: its pair-success rests on the current secret.
    pub(in crate::whatsapp) fn on_registration_refresh(&mut self, ctx: &mut Ctx<'_>, node: &Node) {
        let wanted = ["companion_reg_refresh", "pair-device-rotate-qr"];
        if !wanted.into_iter().any(|tag| node.find(tag).is_some()) {
            log::warn!("companion_reg_refresh asks for nothing: {node}");
            return;
        }
        let finishing = self.pairing.code.as_ref().is_some_and(CodePairing::is_finishing);
        let (false, Some(credentials)) = (finishing || self.is_linked(), self.credentials.as_mut()) else {
            return;
        };
        ctx.rng.fill_bytes(&mut credentials.adv_secret);
        self.save_credentials();
        if let Some((reference, until)) = self.pairing.shown.clone()
            && !self.is_pairing_otherwise()
        {
            self.draw_qr(&reference, until.saturating_sub(ctx.now.mono));
        }
    }

    /// Whether a shown code or a passkey has taken the place of the QR.
    fn is_pairing_otherwise(&self) -> bool {
        self.pairing.passkey || self.pairing.code.as_ref().is_some_and(CodePairing::is_shown)
    }

    fn show_next_qr(&mut self, ctx: &mut Ctx<'_>, life: Duration) {
        let Some(reference) = self.pairing.refs.pop_front() else {
            self.disconnect(DisconnectReason::QrTimeout);
            return;
        };
        let until = ctx.now.mono + life;
        self.arm(Timer::Qr, until);
        self.draw_qr(&reference, life);
        self.pairing.shown = Some((reference, until));
    }

    fn draw_qr(&mut self, reference: &str, expires_in: Duration) {
        if let Some(credentials) = &self.credentials {
            let code = qr_text(reference, credentials);
            self.emit(Event::Qr { code, expires_in });
        }
    }
}

fn refs(pair_device: &Node) -> std::collections::VecDeque<String> {
    pair_device
        .find_all("ref")
        .filter_map(Node::content_text)
        .filter(|text| !text.is_empty() && text.len() <= MAX_QR_REF_LEN)
        .take(MAX_QR_REFS)
        .map(str::to_owned)
        .collect()
}

fn qr_text(reference: &str, credentials: &Credentials) -> String {
    let noise = BASE64_STANDARD.encode(credentials.noise.public.0);
    let identity = BASE64_STANDARD.encode(credentials.identity.public.0);
    let secret = BASE64_STANDARD.encode(credentials.adv_secret);
    format!("{QR_PREFIX}{reference},{noise},{identity},{secret},{CLIENT_TYPE}")
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_qr_has_the_five_parts_a_phone_expects() {
        let credentials = Credentials::generate(&mut ChaCha20Rng::seed_from_u64(1));
        let text = qr_text("2@ref", &credentials);
        let parts: Vec<&str> = text.strip_prefix(QR_PREFIX).unwrap().split(',').collect();
        assert_eq!(parts.len(), 5);
        assert_eq!((parts[0], parts[4]), ("2@ref", "1"));
        assert_eq!(BASE64_STANDARD.decode(parts[1]).unwrap(), credentials.noise.public.0);
        assert_eq!(BASE64_STANDARD.decode(parts[2]).unwrap(), credentials.identity.public.0);
        assert_eq!(BASE64_STANDARD.decode(parts[3]).unwrap(), credentials.adv_secret);
    }

    #[test]
    fn refs_are_bounded_in_number_and_length() {
        let reference = |text: String| Node::new("ref").bytes(text);
        let many = Node::new("pair-device").nodes((0..40).map(|n| reference(format!("2@{n}"))));
        assert_eq!(refs(&many).len(), MAX_QR_REFS);
        let odd = Node::new("pair-device")
            .child(reference("x".repeat(MAX_QR_REF_LEN + 1)))
            .child(reference(String::new()))
            .child(Node::new("ref").bytes([0xff]))
            .child(reference("2@good".into()));
        assert_eq!(refs(&odd), ["2@good"]);
    }
}
