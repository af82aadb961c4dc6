//! Group metadata: read from the server's `<group>`, kept in the state table `Group`.
//!
//! Seen: whatsmeow `group.go` `parseGroupNode` @33cfac51; Baileys `Socket/groups.js` @7.0.0-rc14.

use std::sync::Arc;

use prost::Message;

use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::{Jid, Server},
    messages::pair,
    model::{GroupInfo, GroupParticipant},
    state::{StateRead, Table},
};

/// More members than any group may have. Seen: whatsapp-rust's parser bound.
const MAX_PARTICIPANTS: usize = 19_999;

/// Stored form of a group.
#[derive(Clone, PartialEq, Message)]
struct GroupRecord {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(bool, tag = "2")]
    lid_addressed: bool,
    #[prost(message, repeated, tag = "3")]
    participants: Vec<ParticipantRecord>,
}

/// Stored form of a member.
#[derive(Clone, PartialEq, Message)]
struct ParticipantRecord {
    #[prost(string, tag = "1")]
    jid: String,
    #[prost(string, optional, tag = "2")]
    alt: Option<String>,
    #[prost(bool, tag = "3")]
    is_admin: bool,
}

/// Reads a `<group id subject addressing_mode>` with its `<participant>`s; `None` without a usable id.
pub(super) fn parse(node: &Node) -> Option<GroupInfo> {
    let id = node.get("id")?;
    let jid: Jid = if id.contains('@') { id.parse().ok()? } else { Jid::new(id.into_owned(), Server::Group) };
    if !jid.is_group() || jid.user.is_empty() {
        return None;
    }
    let participants = parse_participants(node);
    let lid_addressed = match node.get("addressing_mode").as_deref() {
        Some("lid") => true,
        Some("pn") => false,
        _ => participants.first().is_some_and(|member| member.jid.is_lid()),
    };
    let subject = node.get("subject").unwrap_or_default().into_owned();
    Some(GroupInfo { jid, subject, lid_addressed, participants })
}

/// The `<participant jid [lid] [phone_number] [type]>` children.
pub(super) fn parse_participants(node: &Node) -> Vec<GroupParticipant> {
    node.find_all("participant")
        .take(MAX_PARTICIPANTS)
        .filter_map(|member| {
            let jid = member.jid("jid").filter(Jid::is_user)?.to_user();
            let alt = member.jid(if jid.is_lid() { "phone_number" } else { "lid" });
            let alt = alt.filter(|alt| pair(&jid, alt).is_some()).map(|alt| alt.to_user());
            let is_admin = member.get("type").is_some_and(|kind| kind == "admin" || kind == "superadmin");
            Some(GroupParticipant { jid, alt, is_admin })
        })
        .collect()
}

impl GroupRecord {
    fn from_info(info: &GroupInfo) -> Self {
        let participants = info.participants.iter().map(|member| ParticipantRecord {
            jid: member.jid.to_string(),
            alt: member.alt.as_ref().map(Jid::to_string),
            is_admin: member.is_admin,
        });
        Self {
            subject: info.subject.clone(),
            lid_addressed: info.lid_addressed,
            participants: participants.collect(),
        }
    }

    fn into_info(self, jid: Jid) -> GroupInfo {
        let participants = self.participants.into_iter().filter_map(|member| {
            Some(GroupParticipant {
                jid: member.jid.parse().ok()?,
                alt: member.alt.and_then(|alt| alt.parse().ok()),
                is_admin: member.is_admin,
            })
        });
        GroupInfo {
            jid,
            subject: self.subject,
            lid_addressed: self.lid_addressed,
            participants: participants.collect(),
        }
    }
}

impl Engine {
    /// Metadata from cache or store.
    pub(in crate::whatsapp) fn known_group(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
    ) -> Result<Option<Arc<GroupInfo>>, EngineError> {
        if let Some(info) = self.groups.info.get(group) {
            return Ok(Some(Arc::clone(info)));
        }
        let Some(raw) = self.state.get(store, Table::Group, &group.to_string())? else { return Ok(None) };
        // A record that cannot be read is fetched again.
        let Ok(record) = GroupRecord::decode(raw.as_slice()) else { return Ok(None) };
        let info = Arc::new(record.into_info(group.clone()));
        self.groups.info.insert(group.clone(), Arc::clone(&info));
        Ok(Some(info))
    }

    /// Complete metadata arrived: learns the members' pairs, rotates our key when somebody is gone, stores it.
    pub(super) fn learn_group(
        &mut self,
        ctx: &mut Ctx<'_>,
        info: GroupInfo,
    ) -> Result<Arc<GroupInfo>, EngineError> {
        let pairs: Vec<(Jid, Jid)> =
            info.participants.iter().filter_map(|member| pair(&member.jid, member.alt.as_ref()?)).collect();
        self.learn_lids(ctx, pairs.iter().map(|(pn, lid)| (pn, lid)))?;
        if let Some(before) = self.known_group(ctx.store, &info.jid)? {
            let is_gone = |member: &GroupParticipant| !has_member(&info, &member.jid, member.alt.as_ref());
            if before.participants.iter().any(is_gone) {
                self.rotate_sender_key(ctx.store, &info.jid)?;
            }
        }
        Ok(self.put_group(info))
    }

    pub(super) fn put_group(&mut self, info: GroupInfo) -> Arc<GroupInfo> {
        let raw = GroupRecord::from_info(&info).encode_to_vec();
        self.state.put(Table::Group, info.jid.to_string(), raw);
        let info = Arc::new(info);
        self.groups.info.insert(info.jid.clone(), Arc::clone(&info));
        info
    }

    /// The next send fetches the metadata anew.
    pub(in crate::whatsapp) fn forget_group(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
    ) -> Result<(), EngineError> {
        self.groups.info.remove(group);
        self.groups.refused.remove(group);
        let key = group.to_string();
        if self.state.get(store, Table::Group, &key)?.is_some() {
            self.state.delete(Table::Group, key);
        }
        Ok(())
    }
}

/// Whether a person, known by one or two names, is a member.
pub(super) fn has_member(info: &GroupInfo, jid: &Jid, alt: Option<&Jid>) -> bool {
    info.participants.iter().any(|member| is_same(member, jid, alt))
}

/// Whether a member and a person share a name.
pub(super) fn is_same(member: &GroupParticipant, jid: &Jid, alt: Option<&Jid>) -> bool {
    let names =
        |name: &Jid| member.jid.same_user(name) || member.alt.as_ref().is_some_and(|alt| alt.same_user(name));
    names(jid) || alt.is_some_and(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_and_survives_storage() {
        let member = |jid: &str| Node::new("participant").attr("jid", jid.parse::<Jid>().unwrap());
        let node = Node::new("group")
            .attr("id", "120363000000000001")
            .attr("subject", "Trip")
            .attr("addressing_mode", "lid")
            .child(member("1@lid").attr("phone_number", Jid::pn("6281200000001")).attr("type", "superadmin"))
            .child(member("2:3@lid").attr("phone_number", Jid::lid("9")))
            .child(member("3@g.us"));
        let info = parse(&node).unwrap();
        assert!(info.lid_addressed);
        assert_eq!(info.participants.len(), 2);
        assert_eq!(info.participants[0].alt, Some(Jid::pn("6281200000001")));
        assert!(info.participants[0].is_admin && !info.participants[1].is_admin);
        assert_eq!((info.participants[1].jid.clone(), &info.participants[1].alt), (Jid::lid("2"), &None));
        let raw = GroupRecord::from_info(&info).encode_to_vec();
        let back = GroupRecord::decode(raw.as_slice()).unwrap().into_info(info.jid.clone());
        assert_eq!(back, info);
    }

    #[test]
    fn without_a_group_id_there_is_no_group() {
        assert_eq!(parse(&Node::new("group")), None);
        assert_eq!(parse(&Node::new("group").attr("id", "1@lid")), None);
        assert_eq!(parse(&Node::new("group").attr("id", "")), None);
    }
}
