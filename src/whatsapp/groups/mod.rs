//! Groups: metadata fetched once and patched by notifications; who holds our sender key.

use super::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::IqError,
    jid::Jid,
    model::CommandId,
    state::Table,
};

/// IQs asked on behalf of groups.
#[derive(Debug)]
pub(in crate::whatsapp) enum GroupQuery {
    /// Metadata of this group; the command that asked, if one did.
    Info(Jid, Option<CommandId>),
    /// A group is being created.
    Create(CommandId),
}

/// Cached metadata.
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct Groups {}

impl Engine {
    /// `Command::GroupInfo`.
    pub(in crate::whatsapp) fn on_group_info(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _id: CommandId,
        _group: &Jid,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `Command::CreateGroup`.
    pub(in crate::whatsapp) fn on_create_group(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _id: CommandId,
        _subject: &str,
        _participants: &[Jid],
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `<notification type="w:gp2">`. The caller acks it.
    pub(in crate::whatsapp) fn on_group_notification(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _stanza: &Node,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// The server says that group metadata changed while we were away: what is cached is asked for again.
    pub(in crate::whatsapp) fn on_groups_dirty(&mut self) {
        self.groups = Groups::default();
        self.state.clear(Table::Group);
    }

    /// Answer to a [`GroupQuery`].
    pub(in crate::whatsapp) fn on_group_query(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _query: GroupQuery,
        _answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        Ok(())
    }
}
