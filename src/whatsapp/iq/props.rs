//! AB props: the server's switches for this account. Only the ones this program acts on are kept.
//!
//! `<iq type=get xmlns=abt><props protocol=1 [hash]/></iq>`, answered by
//! `<props hash><prop config_code config_value/>…</props>`; with the hash of the last answer, what has not changed is
//! left out. Seen: whatsapp-rust `wacore/src/iq/props.rs` @1489b7da.

use super::{IqError, IqKind, iq};
use crate::whatsapp::{binary::Node, ctx::Ctx, engine::Engine};

/// 1:1 chats of this account are addressed by LID (`lid_one_on_one_migration_enabled`).
const LID_MIGRATED: &str = "9435";

impl Engine {
    /// Asks for the props that changed since the last time.
    pub(in crate::whatsapp) fn ask_props(&mut self, ctx: &mut Ctx<'_>) {
        let hash = self.credentials.as_ref().and_then(|credentials| credentials.props_hash.clone());
        let props = Node::new("props").attr("protocol", "1").attr_opt("hash", hash);
        self.send_iq(ctx, iq("get", "abt").child(props), IqKind::Props);
    }

    /// The answer. Failure is of no consequence: the next login asks again.
    pub(in crate::whatsapp) fn on_props(&mut self, outcome: Result<&Node, IqError>) {
        let (Ok(answer), Some(credentials)) = (outcome, self.credentials.as_mut()) else {
            return;
        };
        let Some(props) = answer.find("props") else {
            return;
        };
        let mut changed = false;
        if !credentials.lid_migrated && has_prop(props, LID_MIGRATED) {
            credentials.lid_migrated = true;
            changed = true;
        }
        if let Some(hash) = props.get("hash")
            && credentials.props_hash.as_deref() != Some(&hash)
        {
            credentials.props_hash = Some(hash.into_owned());
            changed = true;
        }
        if changed {
            self.save_credentials();
        }
    }
}

/// Whether a boolean prop is there and on. Absent means its default, which is off for those we ask.
fn has_prop(props: &Node, code: &str) -> bool {
    props.find_all("prop").any(|prop| {
        prop.has("config_code", code) && (prop.has("config_value", "1") || prop.has("config_value", "true"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prop_is_on_only_when_present_with_a_true_value() {
        let props = |code: &'static str, value: &'static str| {
            let prop = Node::new("prop").attr("config_code", code).attr("config_value", value);
            Node::new("props").child(Node::new("prop").attr("event_code", "5138")).child(prop)
        };
        assert!(has_prop(&props("9435", "1"), LID_MIGRATED));
        assert!(has_prop(&props("9435", "true"), LID_MIGRATED));
        assert!(!has_prop(&props("9435", "0"), LID_MIGRATED));
        assert!(!has_prop(&props("94350", "1"), LID_MIGRATED));
        assert!(!has_prop(&Node::new("props"), LID_MIGRATED));
    }
}
