//! Groups: metadata fetched once and patched by notifications ([`metadata`], [`notification`]); who holds our sender
//! key ([`marks`]). Knows nothing of how a group message is encrypted; that is in `messages`.

mod marks;
mod metadata;
mod notification;

pub(crate) use marks::MarksRecord;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::{IqError, IqKind},
    jid::{Jid, Server},
    messages::{Cache, id},
    model::{CommandError, CommandId, GroupInfo, Reply},
    state::{StateRead, Table},
};

/// Groups kept decoded; the rest is read from the store when needed.
const CACHED_GROUPS: usize = 16;
/// How long a refused question for metadata counts before the next send asks again.
const ANSWER_COUNTS: Duration = Duration::from_secs(10);
/// Longest title, characters. Seen: WhatsApp's own limit.
const MAX_SUBJECT_CHARS: usize = 100;

/// IQs asked on behalf of groups.
#[derive(Debug)]
pub(in crate::whatsapp) enum GroupQuery {
    /// Metadata of this group. The commands that wait for it are in [`Groups`].
    Info(Jid),
    /// A group is being created.
    Create(CommandId),
}

/// Cached metadata and marks, questions under way.
#[derive(Debug)]
pub(in crate::whatsapp) struct Groups {
    info: Cache<Jid, Arc<GroupInfo>>,
    marks: Cache<Jid, marks::Marks>,
    asking: HashSet<Jid>,
    waiting: HashMap<Jid, Vec<CommandId>>,
    refused: HashMap<Jid, (Duration, CommandError)>,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            info: Cache::new(CACHED_GROUPS),
            marks: Cache::new(CACHED_GROUPS),
            asking: HashSet::new(),
            waiting: HashMap::new(),
            refused: HashMap::new(),
        }
    }
}

impl Groups {
    /// Queries of the old connection will not be answered.
    pub(in crate::whatsapp) fn disconnected(&mut self) {
        self.asking.clear();
        self.refused.clear();
    }

    /// Gives the memory of the caches back; everything in them is durable.
    pub(in crate::whatsapp) fn trim(&mut self) {
        self.info.drain().for_each(drop);
        self.marks.drain().for_each(drop);
        self.refused = HashMap::new();
    }
}

/// What is known of a group right now.
#[derive(Debug, Clone)]
pub(in crate::whatsapp) enum GroupState {
    /// Its metadata.
    Known(Arc<GroupInfo>),
    /// The server has been asked; the answer wakes the senders.
    Asked,
    /// The server refused.
    Failed(CommandError),
}

impl Engine {
    /// Metadata from cache or store; else asks the server, once.
    pub(in crate::whatsapp) fn group_state(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: &Jid,
    ) -> Result<GroupState, EngineError> {
        if let Some(info) = self.known_group(ctx.store, group)? {
            return Ok(GroupState::Known(info));
        }
        if let Some((until, error)) = self.groups.refused.get(group)
            && *until > ctx.now.mono
        {
            return Ok(GroupState::Failed(error.clone()));
        }
        self.ask_group(ctx, group);
        Ok(GroupState::Asked)
    }

    fn ask_group(&mut self, ctx: &mut Ctx<'_>, group: &Jid) {
        if !self.is_logged_in() || !self.groups.asking.insert(group.clone()) {
            return;
        }
        let query = Node::new("query").attr("request", "interactive");
        let ask = Node::new("iq").attr("to", group).attr("type", "get").attr("xmlns", "w:g2").child(query);
        self.send_iq(ctx, ask, IqKind::Group(GroupQuery::Info(group.clone())));
    }

    /// `Command::GroupInfo`.
    pub(in crate::whatsapp) fn on_group_info(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: CommandId,
        group: &Jid,
    ) -> Result<(), EngineError> {
        if !group.is_group() {
            self.reply_failed(id, CommandError::Invalid("not a group".to_owned()));
            return Ok(());
        }
        if let Some(info) = self.known_group(ctx.store, group)? {
            self.reply(id, Reply::Group(Box::new((*info).clone())));
            return Ok(());
        }
        if !self.is_logged_in() {
            self.reply_failed(id, CommandError::NotConnected);
            return Ok(());
        }
        self.groups.waiting.entry(group.clone()).or_default().push(id);
        self.ask_group(ctx, group);
        Ok(())
    }

    /// `Command::CreateGroup`.
    pub(in crate::whatsapp) fn on_create_group(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: CommandId,
        subject: &str,
        participants: &[Jid],
    ) -> Result<(), EngineError> {
        if subject.is_empty() || subject.chars().count() > MAX_SUBJECT_CHARS {
            let why = format!("a group title has 1 to {MAX_SUBJECT_CHARS} characters");
            self.reply_failed(id, CommandError::Invalid(why));
            return Ok(());
        }
        if participants.iter().any(|jid| !jid.is_user()) {
            self.reply_failed(id, CommandError::Invalid("a group member must be a person".to_owned()));
            return Ok(());
        }
        let (true, Some(own)) = (self.is_logged_in(), self.own()) else {
            self.reply_failed(id, CommandError::NotConnected);
            return Ok(());
        };
        let members = participants.iter().map(|jid| Node::new("participant").attr("jid", jid.to_user()));
        let create = Node::new("create")
            .attr("subject", subject.to_owned())
            .attr("key", id::generate(&own.pn.user, ctx.now.unix_s(), ctx.rng))
            .nodes(members);
        let to = Jid::new("", Server::Group);
        let ask = Node::new("iq").attr("to", to).attr("type", "set").attr("xmlns", "w:g2").child(create);
        self.send_iq(ctx, ask, IqKind::Group(GroupQuery::Create(id)));
        Ok(())
    }

    /// The server says that groups changed while we were away: what is kept is asked for again. Who left cannot be
    /// known, so our keys are replaced everywhere.
    pub(in crate::whatsapp) fn on_groups_dirty(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        for key in self.state.keys(ctx.store, Table::SenderKeyDevices, "")? {
            if let Ok(group) = key.parse::<Jid>() {
                self.rotate_sender_key(ctx.store, &group)?;
            }
        }
        self.groups.trim();
        self.state.clear(Table::Group);
        Ok(())
    }

    /// Answer to a [`GroupQuery`].
    pub(in crate::whatsapp) fn on_group_query(
        &mut self,
        ctx: &mut Ctx<'_>,
        query: GroupQuery,
        answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        match query {
            GroupQuery::Info(group) => self.on_info_answer(ctx, &group, answer),
            GroupQuery::Create(id) => self.on_create_answer(ctx, id, answer),
        }
    }

    fn on_info_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: &Jid,
        answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        self.groups.asking.remove(group);
        let now = ctx.now.mono;
        self.groups.refused.retain(|_, (until, _)| *until > now);
        let outcome = match answer {
            Ok(node) => {
                match node.find("group").and_then(metadata::parse).filter(|info| info.jid == *group) {
                    Some(info) => Ok(self.learn_group(ctx, info)?),
                    None => {
                        Err(CommandError::Refused { code: 0, reason: "the server sent no group metadata" })
                    }
                }
            }
            Err(error) => Err(error.to_command_error()),
        };
        for id in self.groups.waiting.remove(group).unwrap_or_default() {
            match &outcome {
                Ok(info) => self.reply(id, Reply::Group(Box::new((**info).clone()))),
                Err(error) => self.reply_failed(id, error.clone()),
            }
        }
        if let Err(error) = outcome
            && error != CommandError::ConnectionLost
        {
            self.groups.refused.insert(group.clone(), (now + ANSWER_COUNTS, error));
        }
        self.pump(ctx)
    }

    fn on_create_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: CommandId,
        answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        match answer.map(|node| node.find("group").and_then(metadata::parse)) {
            Ok(Some(info)) => {
                let info = self.learn_group(ctx, info)?;
                self.reply(id, Reply::Group(Box::new((*info).clone())));
            }
            Ok(None) => {
                let reason = "the server sent no group metadata";
                self.reply_failed(id, CommandError::Refused { code: 0, reason });
            }
            Err(error) => self.reply_failed(id, error.to_command_error()),
        }
        Ok(())
    }

    /// Whether a person is in a group, as far as is known.
    pub(in crate::whatsapp) fn is_group_admin(
        &mut self,
        store: &dyn StateRead,
        group: &Jid,
        user: &Jid,
    ) -> Result<bool, EngineError> {
        let Some(info) = self.known_group(store, group)? else { return Ok(false) };
        Ok(info.participants.iter().any(|member| {
            member.is_admin
                && (member.jid.same_user(user) || member.alt.as_ref().is_some_and(|alt| alt.same_user(user)))
        }))
    }
}
