//! `usync`: who is on WhatsApp, and with which devices.

use super::{
    DeviceRef, Service,
    errors::{error, result},
    notify::participant_hash,
};
use crate::{
    sandbox::world::ConnId,
    whatsapp::{
        binary::Node,
        ctx::Now,
        jid::{Jid, Server},
    },
};

impl Service {
    /// IQs of xmlns `usync`.
    pub(super) fn on_usync_iq(&mut self, device: DeviceRef, conn: Option<ConnId>, iq: &Node, now: Now) {
        let parts =
            iq.find("usync").and_then(|usync| Some((usync, usync.find("query")?, usync.find("list")?)));
        let Some((usync, query, list)) = parts else {
            self.violate_opt(conn, now, "usync-shape", "usync needs query and list", iq);
            return self.send_opt(conn, error(iq, 400), now);
        };
        for key in ["sid", "mode", "last", "index", "context"] {
            if usync.value(key).is_none() {
                self.violate_opt(conn, now, "usync-shape", format!("usync needs {key}"), iq);
            }
        }
        let mut users = Vec::new();
        for user in list.find_all("user") {
            users.extend(self.usync_user(device, user, query));
        }
        let answer = Node::new("usync")
            .attr_opt("sid", usync.value("sid").cloned())
            .attr_opt("mode", usync.value("mode").cloned())
            .attr("index", "0")
            .attr("last", "true")
            .child(
                Node::new("result").nodes(query.children().iter().map(|child| Node::new(child.tag.clone()))),
            )
            .child(Node::new("list").nodes(users));
        self.send_opt(conn, result(iq).child(answer), now);
    }

    fn usync_user(&mut self, asker: DeviceRef, user: &Node, query: &Node) -> Option<Node> {
        let number = user.find("contact").and_then(Node::content_text);
        let jid = match (user.jid("jid"), number) {
            (Some(jid), _) => jid.to_user(),
            (None, Some(text)) => {
                let digits = text.trim_start_matches('+');
                Jid::pn(digits.split_once('@').map_or(digits, |(user, _)| user).to_owned())
            }
            (None, None) => return None,
        };
        let account = self.account_of(&jid);
        let by_lid = query.find("contact").is_some_and(|contact| contact.has("addressing_mode", "lid"));
        let named = match account {
            Some(account) if by_lid => self.account(account).jid(true),
            _ if jid.server == Server::LegacyPn => Jid::pn(jid.user.clone()),
            _ => jid.clone(),
        };
        let mut node = Node::new("user").attr("jid", &named);
        if by_lid && let Some(account) = account {
            node = node.attr("pn_jid", self.account(account).jid(false));
        }
        for protocol in query.children() {
            let answer = self.usync_protocol(asker, &protocol.tag, account, &jid, number);
            node = node.child_opt(answer);
        }
        Some(node)
    }

    fn usync_protocol(
        &mut self,
        asker: DeviceRef,
        protocol: &str,
        account: Option<u32>,
        jid: &Jid,
        number: Option<&str>,
    ) -> Option<Node> {
        match (protocol, account) {
            ("contact", known) => {
                let kind = if known.is_some() { "in" } else { "out" };
                let contact = Node::new("contact").attr("type", kind);
                Some(number.iter().fold(contact, |node, text| node.text((*text).to_owned())))
            }
            ("devices", Some(account)) => {
                self.account_mut(account).watchers.insert(asker.account);
                Some(self.usync_devices(account, jid.is_lid()))
            }
            ("devices", None) => Some(Node::new("devices").child(Node::new("device-list"))),
            ("lid", Some(account)) if !jid.is_lid() => {
                Some(Node::new("lid").attr("val", self.account(account).jid(true)))
            }
            ("status", Some(_)) => Some(Node::new("status").attr("t", "1700000000").text("Hey there!")),
            ("disappearing_mode", Some(_)) => {
                Some(Node::new("disappearing_mode").attr("duration", "0").attr("t", "0"))
            }
            ("picture", Some(_)) => Some(Node::new("picture").child(super::errors::error_node(404))),
            _ => None,
        }
    }

    fn usync_devices(&self, account: u32, lid: bool) -> Node {
        let entry = self.account(account);
        let list = entry.devices.iter().map(|(id, device)| {
            let key_index = (*id != 0).then(|| device.key_index.to_string());
            Node::new("device").attr("id", id.to_string()).attr_opt("key-index", key_index)
        });
        let list = Node::new("device-list")
            .attr("hash", participant_hash(&self.device_jids(account, lid)))
            .nodes(list);
        let key_index_list = entry
            .key_index_list
            .as_ref()
            .map(|(ts, bytes)| Node::new("key-index-list").attr("ts", ts.to_string()).bytes(bytes.clone()));
        Node::new("devices").child(list).child_opt(key_index_list)
    }
}
