//! Groups: `w:g2` questions and changes, and the `w:gp2` notifications that follow.
//!
//! Seen: whatsmeow `group.go` @33cfac51; Baileys `Socket/groups.js` @7.0.0-rc14.

use std::{collections::BTreeMap, time::Duration};

use super::{
    DeviceRef, Service,
    errors::{error, result},
};
use crate::{
    sandbox::world::{ConnId, SandboxError},
    whatsapp::{
        binary::Node,
        ctx::Now,
        jid::{Jid, Server},
    },
};

/// A group.
pub(super) struct Group {
    pub(super) lid: bool,
    pub(super) participants: BTreeMap<u32, Rank>,
    pub(super) changed_at: Duration,
    /// Participant hash and the directory version it belongs to.
    pub(super) hash: Option<(u64, String)>,
    subject: String,
    creator: u32,
    created_s: u64,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    Member,
    Admin,
    Creator,
}

impl Rank {
    fn attr(self) -> Option<&'static str> {
        match self {
            Self::Member => None,
            Self::Admin => Some("admin"),
            Self::Creator => Some("superadmin"),
        }
    }
}

impl Service {
    /// Makes a group; everybody but `device` is told. Gives back its JID.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a bad subject or a member that does not exist.
    pub fn create_group(
        &mut self,
        device: DeviceRef,
        subject: &str,
        members: &[Jid],
        lid: bool,
        now: Now,
    ) -> Result<Jid, SandboxError> {
        if subject.is_empty() || subject.chars().count() > 100 {
            let reason = "must have 1 to 100 characters".to_owned();
            return Err(SandboxError::Invalid { field: "subject", reason });
        }
        let mut participants = BTreeMap::from([(device.account, Rank::Creator)]);
        for member in members {
            let account = self.account_of(member).ok_or_else(|| SandboxError::Invalid {
                field: "participants",
                reason: format!("{member} is not on WhatsApp"),
            })?;
            participants.entry(account).or_insert(Rank::Member);
        }
        let user = format!("{}", 120_363_000_000_000_000 + self.fresh_number());
        let group = Group {
            lid,
            participants,
            changed_at: now.mono,
            hash: None,
            subject: subject.to_owned(),
            creator: device.account,
            created_s: now.unix_s(),
        };
        self.groups.insert(user.clone(), group);
        self.directory_version += 1;
        let jid = Jid::new(user, Server::Group);
        let change = Node::new("create").attr("type", "new").child_opt(self.group_node(&jid));
        self.tell_group(device, &jid, &change, None, now);
        Ok(jid)
    }

    /// Adds, removes, promotes or demotes a member in the name of `actor`.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when group or member do not exist.
    pub fn change_member(
        &mut self,
        actor: DeviceRef,
        group: &Jid,
        action: MemberChange,
        member: &Jid,
        now: Now,
    ) -> Result<(), SandboxError> {
        let invalid = |field, reason: &str| SandboxError::Invalid { field, reason: reason.to_owned() };
        let account =
            self.account_of(member).ok_or_else(|| invalid("participant", "this user is not on WhatsApp"))?;
        let entry =
            self.groups.get_mut(&*group.user).ok_or_else(|| invalid("group", "there is no such group"))?;
        let known = entry.participants.contains_key(&account);
        match action {
            MemberChange::Add if known => return Err(invalid("participant", "is in the group already")),
            MemberChange::Add => entry.participants.insert(account, Rank::Member),
            _ if !known => return Err(invalid("participant", "is not in the group")),
            MemberChange::Remove => entry.participants.remove(&account),
            MemberChange::Promote => entry.participants.insert(account, Rank::Admin),
            MemberChange::Demote => entry.participants.insert(account, Rank::Member),
        };
        entry.changed_at = now.mono;
        let lid = entry.lid;
        self.directory_version += 1;
        let change = Node::new(action.tag()).child(self.participant_node(account, lid, None));
        self.tell_group(actor, group, &change, Some(account), now);
        Ok(())
    }

    /// IQs of xmlns `w:g2`.
    pub(super) fn on_group_iq(&mut self, device: DeviceRef, conn: Option<ConnId>, iq: &Node, now: Now) {
        let to = iq.jid("to").unwrap_or_else(Jid::service);
        let Some(question) = iq.children().first() else {
            return self.send_opt(conn, error(iq, 400), now);
        };
        let answer = match &*question.tag {
            "create" => self.on_create(device, iq, question, now),
            "participating" => self.on_participating(device, iq),
            "leave" => self.on_leave(device, iq, question, now),
            _ => match self.groups.get(&*to.user).map(|group| group.participants.get(&device.account)) {
                None => error(iq, 404),
                Some(None) => error(iq, 403),
                Some(Some(rank)) => {
                    let admin = *rank != Rank::Member;
                    self.on_member_question(device, conn, iq, &to, question, admin, now)
                }
            },
        };
        self.send_opt(conn, answer, now);
    }

    #[expect(clippy::too_many_arguments, reason = "one IQ, already taken apart by the caller")]
    fn on_member_question(
        &mut self,
        device: DeviceRef,
        conn: Option<ConnId>,
        iq: &Node,
        group: &Jid,
        question: &Node,
        admin: bool,
        now: Now,
    ) -> Node {
        match &*question.tag {
            "query" => {
                if !question.has("request", "interactive") {
                    self.violate_opt(conn, now, "group-query", "query needs request=interactive", iq);
                }
                result(iq).child_opt(self.group_node(group))
            }
            "invite" if iq.has("type", "get") => {
                result(iq).child(Node::new("invite").attr("code", format!("SBX{}", group.user)))
            }
            "membership_approval_requests" => result(iq).child(Node::new("membership_approval_requests")),
            _ if !admin => error(iq, 403),
            "add" | "remove" | "promote" | "demote" => {
                self.on_member_change(device, iq, group, question, now)
            }
            "subject" => {
                let subject = question.content_text().unwrap_or_default().to_owned();
                if subject.is_empty() || subject.chars().count() > 100 {
                    return error(iq, 406);
                }
                if let Some(entry) = self.groups.get_mut(&*group.user) {
                    entry.subject.clone_from(&subject);
                }
                let change = Node::new("subject")
                    .attr("subject", subject)
                    .attr("s_t", now.unix_s().to_string())
                    .attr("s_o", self.account(device.account).jid(true));
                self.tell_group(device, group, &change, None, now);
                result(iq)
            }
            "description"
            | "locked"
            | "unlocked"
            | "announcement"
            | "not_announcement"
            | "ephemeral"
            | "not_ephemeral"
            | "member_add_mode"
            | "membership_approval_mode"
            | "invite" => {
                self.tell_group(device, group, question, None, now);
                result(iq)
            }
            _ => error(iq, 501),
        }
    }

    fn on_create(&mut self, device: DeviceRef, iq: &Node, question: &Node, now: Now) -> Node {
        let members: Vec<Jid> =
            question.find_all("participant").filter_map(|member| member.jid("jid")).collect();
        let subject = question.get("subject").unwrap_or_default();
        let lid = self.account(device.account).lid_migrated;
        match self.create_group(device, &subject, &members, lid, now) {
            Ok(group) => result(iq).child_opt(self.group_node(&group)),
            Err(_) => error(iq, 406),
        }
    }

    fn on_participating(&self, device: DeviceRef, iq: &Node) -> Node {
        let mine = self.groups.iter().filter(|(_, group)| group.participants.contains_key(&device.account));
        let nodes = mine.filter_map(|(user, _)| self.group_node(&Jid::new(user.clone(), Server::Group)));
        result(iq).child(Node::new("groups").nodes(nodes))
    }

    fn on_leave(&mut self, device: DeviceRef, iq: &Node, question: &Node, now: Now) -> Node {
        let own = self.account(device.account).jid(true);
        for group in question.find_all("group") {
            let id = group.get("id").unwrap_or_default();
            let user = id.split_once('@').map_or(&*id, |(user, _)| user).to_owned();
            let group = Jid::new(user, Server::Group);
            if self.change_member(device, &group, MemberChange::Remove, &own, now).is_err() {
                return error(iq, 404);
            }
        }
        result(iq).child(Node::new("leave"))
    }

    fn on_member_change(
        &mut self,
        device: DeviceRef,
        iq: &Node,
        group: &Jid,
        question: &Node,
        now: Now,
    ) -> Node {
        let action = match &*question.tag {
            "add" => MemberChange::Add,
            "remove" => MemberChange::Remove,
            "promote" => MemberChange::Promote,
            _ => MemberChange::Demote,
        };
        let mut answer = Node::new(action.tag());
        for member in question.find_all("participant") {
            let Some(jid) = member.jid("jid") else { return error(iq, 400) };
            let code = match self.change_member(device, group, action, &jid, now) {
                Ok(()) => None,
                Err(_) if self.account_of(&jid).is_none() => Some("404"),
                Err(_) if action == MemberChange::Add => Some("409"),
                Err(_) => Some("404"),
            };
            answer = answer.child(Node::new("participant").attr("jid", jid).attr_opt("error", code));
        }
        result(iq).child(answer)
    }

    /// `<group …><participant …/>…</group>`.
    fn group_node(&self, jid: &Jid) -> Option<Node> {
        let group = self.groups.get(&*jid.user)?;
        let creator = self.account(group.creator);
        let members = group
            .participants
            .iter()
            .map(|(account, rank)| self.participant_node(*account, group.lid, rank.attr()));
        let node = Node::new("group")
            .attr("id", jid.user.clone())
            .attr("subject", group.subject.clone())
            .attr("s_t", group.created_s.to_string())
            .attr("s_o", creator.jid(group.lid))
            .attr("creation", group.created_s.to_string())
            .attr("creator", creator.jid(group.lid))
            .attr("addressing_mode", if group.lid { "lid" } else { "pn" })
            .attr("size", group.participants.len().to_string());
        Some(node.nodes(members))
    }

    fn participant_node(&self, account: u32, lid: bool, rank: Option<&'static str>) -> Node {
        let other = if lid { "phone_number" } else { "lid" };
        Node::new("participant")
            .attr("jid", self.account(account).jid(lid))
            .attr(other, self.account(account).jid(!lid))
            .attr_opt("type", rank)
    }

    /// Tells all companions of all members (and of one who just left), except the acting device.
    fn tell_group(&mut self, actor: DeviceRef, jid: &Jid, change: &Node, left: Option<u32>, now: Now) {
        let Some(group) = self.groups.get(&*jid.user) else { return };
        let lid = group.lid;
        let mut accounts: Vec<u32> = group.participants.keys().copied().collect();
        accounts.extend(left.filter(|left| !group.participants.contains_key(left)));
        let key = if lid { "participant_pn" } else { "participant_lid" };
        let targets: Vec<_> = accounts
            .iter()
            .flat_map(|account| self.devices_of(*account))
            .filter(|device| device.device != 0 && *device != actor)
            .collect();
        for target in targets {
            let notification = Node::new("notification")
                .attr("from", jid)
                .attr("id", self.fresh_number().to_string())
                .attr("type", "w:gp2")
                .attr("participant", self.account(actor.account).jid(lid))
                .attr(key, self.account(actor.account).jid(!lid))
                .attr("addressing_mode", if lid { "lid" } else { "pn" })
                .attr("notify", self.account(actor.account).name.clone())
                .attr("t", now.unix_s().to_string())
                .child(change.clone());
            self.deliver(target, notification, now);
        }
    }
}

/// What happens to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Joins.
    Add,
    /// Leaves or is thrown out.
    Remove,
    /// Becomes an admin.
    Promote,
    /// Is an admin no more.
    Demote,
}

impl MemberChange {
    fn tag(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Promote => "promote",
            Self::Demote => "demote",
        }
    }
}
