//! IQs: who answers what. Questions that need more than a line are answered in files of their own.

use super::{
    DeviceRef, Service,
    errors::{error, result},
};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{binary::Node, ctx::Now},
};

impl Service {
    /// An `<iq>` of a client or a phone.
    pub(super) fn handle_iq(&mut self, device: DeviceRef, conn: Option<ConnId>, iq: &Node, now: Now) {
        if matches!(iq.get("type").as_deref(), Some("result" | "error")) {
            if let Some(conn) = conn {
                self.handle_iq_answer(conn, iq, now);
            }
            return;
        }
        for key in ["id", "xmlns", "to"] {
            if iq.value(key).is_none() {
                self.violate_opt(conn, now, "iq-incomplete", format!("an iq needs {key}"), iq);
            }
        }
        if iq.value("id").is_none() {
            return self.send_opt(conn, error(iq, 400), now);
        }
        let xmlns = iq.get("xmlns").unwrap_or_default().into_owned();
        match xmlns.as_str() {
            "encrypt" => self.on_encrypt_iq(device, conn, iq, now),
            "usync" => self.on_usync_iq(device, conn, iq, now),
            "w:g2" => self.on_group_iq(device, conn, iq, now),
            "privacy" if iq.find("tokens").is_some() => self.on_tokens_iq(device, conn, iq, now),
            "md" => self.on_remove_companion(device, conn, iq, now),
            "passive" => self.on_passive(device, conn, iq, now),
            "w:sync:app:state" => {
                let answer = self.app_state(device, iq);
                self.send_opt(conn, answer, now);
            }
            "abt" => {
                let answer = self.props(device, iq);
                self.send_opt(conn, answer, now);
            }
            xmlns => {
                let answer = simple_answer(xmlns, iq, now);
                self.send_opt(conn, answer, now);
            }
        }
    }

    fn on_passive(&mut self, device: DeviceRef, conn: Option<ConnId>, iq: &Node, now: Now) {
        let active = iq.find("active").is_some();
        if !active && iq.find("passive").is_none() {
            return self.send_opt(conn, error(iq, 400), now);
        }
        self.send_opt(conn, result(iq), now);
        if let Some(conn) = conn {
            self.set_active(device, conn, active, now);
        }
    }

    /// AB props: what this account's clients may and must do.
    fn props(&self, device: DeviceRef, iq: &Node) -> Node {
        let migrated = self.account(device.account).lid_migrated;
        let values = [(LID_MIGRATED, migrated), (TOKENS_ON_1_TO_1, self.options.require_tokens)];
        let props = values.map(|(code, on)| {
            Node::new("prop").attr("config_code", code).attr("config_value", if on { "1" } else { "0" })
        });
        let node = Node::new("props")
            .attr("hash", format!("{}{}", u8::from(migrated), u8::from(self.options.require_tokens)))
            .attr("refresh", "86400")
            .attr("refresh_id", "1")
            .nodes(props);
        result(iq).child(node)
    }

    /// App-state collections are empty; patches are counted, and not kept.
    fn app_state(&mut self, device: DeviceRef, iq: &Node) -> Node {
        let mut answers = Vec::new();
        for collection in iq.find("sync").map(Node::children).unwrap_or_default() {
            let name = collection.get("name").unwrap_or_default().into_owned();
            let versions = &mut self.account_mut(device.account).collections;
            let version = versions.entry(name.clone()).or_insert(0);
            let node = Node::new("collection").attr("name", name);
            if collection.find("patch").is_some() {
                *version += 1;
            }
            answers.push(node.attr("version", version.to_string()));
        }
        result(iq).child(Node::new("sync").nodes(answers))
    }
}

/// `lid_one_on_one_migration_enabled`. Seen: whatsapp-rust `wacore/src/iq/abprops.rs` @1489b7da.
const LID_MIGRATED: &str = "9435";

/// `privacy_token_sending_on_all_1_on_1_messages`.
const TOKENS_ON_1_TO_1: &str = "10518";

/// Answers that depend on nothing.
fn simple_answer(xmlns: &str, iq: &Node, now: Now) -> Node {
    let set = iq.has("type", "set");
    match xmlns {
        "w:p" => result(iq).attr("t", now.unix_s().to_string()),
        "blocklist" if !set => result(iq).child(Node::new("list")),
        "privacy" if !set => result(iq).child(privacy()),
        "w:m" => result(iq).child(media_conn()),
        "w:profile:picture" if !set => error(iq, 404),
        "status" if !set => result(iq).child(
            Node::new("privacy").child(Node::new("list").attr("type", "contacts").attr("default", "true")),
        ),
        "bot" => result(iq).child(Node::new("bot").attr("v", "2")),
        "w:biz" => result(iq).child(Node::new("business_profile")),
        "w:mex" => {
            let empty = r#"{"data":{"xwa2_fetch_account_reachout_timelock":{"is_active":false}}}"#;
            result(iq).child(Node::new("result").bytes(empty.as_bytes()))
        }
        "urn:xmpp:whatsapp:dirty"
        | "w:stats"
        | "disappearing_mode"
        | "blocklist"
        | "privacy"
        | "status"
        | "w:profile:picture"
        | "urn:xmpp:whatsapp:push"
        | "w"
        | "tos" => result(iq),
        _ => error(iq, 501),
    }
}

fn privacy() -> Node {
    let categories =
        ["groupadd", "last", "status", "profile", "readreceipts", "online", "calladd", "messages"];
    let nodes = categories.map(|name| {
        let value = if name == "calladd" { "known" } else { "all" };
        Node::new("category").attr("name", name).attr("value", value)
    });
    Node::new("privacy").nodes(nodes)
}

/// Media is not served yet: the host name points at nothing outside this machine.
fn media_conn() -> Node {
    let host = Node::new("host").attr("hostname", "localhost").attr("type", "primary");
    Node::new("media_conn")
        .attr("auth", "sandbox")
        .attr("ttl", "300")
        .attr("auth_ttl", "21600")
        .attr("max_buckets", "12")
        .child(host)
}
