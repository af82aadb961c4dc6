//! `<notification type="w:gp2">`: what changed in a group, applied to the kept metadata.
//!
//! Seen: whatsmeow `group.go` `parseGroupChange` @33cfac51; Baileys `Socket/messages-recv.js` @7.0.0-rc14.

use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    groups::metadata::{self, has_member, is_same, parse_participants},
    jid::Jid,
    messages::pair,
    model::{Event, GroupInfo, GroupParticipant},
    state::StateRead,
};

impl Engine {
    /// `<notification type="w:gp2">`. The caller acks it.
    pub(in crate::whatsapp) fn on_group_notification(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
    ) -> Result<(), EngineError> {
        let Some(group) = stanza.jid("from").filter(Jid::is_group) else { return Ok(()) };
        if let Some(actor) = stanza.jid("participant") {
            for key in ["participant_pn", "participant_lid"] {
                if let Some((pn, lid)) = stanza.jid(key).and_then(|other| pair(&actor, &other)) {
                    self.learn_lid(ctx, &pn, &lid)?;
                }
            }
        }
        for change in stanza.children() {
            self.apply_group_change(ctx, &group, change)?;
        }
        self.emit_durable(Event::GroupChanged { group });
        Ok(())
    }

    fn apply_group_change(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: &Jid,
        change: &Node,
    ) -> Result<(), EngineError> {
        match change.tag.as_ref() {
            "create" => {
                let info = change.find("group").and_then(metadata::parse);
                if let Some(info) = info.filter(|info| info.jid == *group) {
                    self.learn_group(ctx, info)?;
                }
                Ok(())
            }
            "add" => self.add_members(ctx, group, parse_participants(change)),
            "remove" | "leave" => self.remove_members(ctx.store, group, &parse_participants(change)),
            "promote" => self.set_admins(ctx.store, group, &parse_participants(change), true),
            "demote" => self.set_admins(ctx.store, group, &parse_participants(change), false),
            "subject" => {
                let subject = change.get("subject").unwrap_or_default().into_owned();
                self.patch_group(ctx.store, group, |info| info.subject = subject)
            }
            // A member's number changed, or the group is gone: everybody may have another name now.
            "modify" | "delete" | "unlink" | "suspended" => {
                self.rotate_sender_key(ctx.store, group)?;
                self.forget_group(ctx.store, group)
            }
            // Settings that no send depends on: description, announcement, locked, ephemeral, invite, link, …
            _ => Ok(()),
        }
    }

    fn add_members(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: &Jid,
        added: Vec<GroupParticipant>,
    ) -> Result<(), EngineError> {
        for member in &added {
            if let Some((pn, lid)) = member.alt.as_ref().and_then(|alt| pair(&member.jid, alt)) {
                self.learn_lid(ctx, &pn, &lid)?;
            }
        }
        // A member in the other namespace means the group's addressing changed under us.
        let known = self.known_group(ctx.store, group)?;
        if known.is_some_and(|info| added.iter().any(|member| member.jid.is_lid() != info.lid_addressed)) {
            return self.forget_group(ctx.store, group);
        }
        self.patch_group(ctx.store, group, |info| {
            for member in added {
                if !has_member(info, &member.jid, member.alt.as_ref()) {
                    info.participants.push(member);
                }
            }
        })
    }

    /// Who left must not read on: our sender key is replaced before the next message.
    fn remove_members(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
        removed: &[GroupParticipant],
    ) -> Result<(), EngineError> {
        self.rotate_sender_key(store, group)?;
        let own = self.own();
        if removed.iter().any(|member| own.as_ref().is_some_and(|own| own.is(&member.jid))) {
            return self.forget_group(store, group);
        }
        self.patch_group(store, group, |info| {
            info.participants
                .retain(|member| !removed.iter().any(|gone| is_same(member, &gone.jid, gone.alt.as_ref())));
        })
    }

    fn set_admins(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
        changed: &[GroupParticipant],
        is_admin: bool,
    ) -> Result<(), EngineError> {
        self.patch_group(store, group, |info| {
            for member in &mut info.participants {
                if changed.iter().any(|other| is_same(member, &other.jid, other.alt.as_ref())) {
                    member.is_admin = is_admin;
                }
            }
        })
    }

    /// Changes kept metadata; a group that is not kept is fetched when it is needed.
    fn patch_group(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
        change: impl FnOnce(&mut GroupInfo),
    ) -> Result<(), EngineError> {
        let Some(info) = self.known_group(store, group)? else { return Ok(()) };
        let mut info = (*info).clone();
        change(&mut info);
        self.put_group(info);
        Ok(())
    }
}
