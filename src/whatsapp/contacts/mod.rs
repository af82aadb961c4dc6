//! What is known of other accounts: LID and PN, devices, tokens, names.

use super::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::IqError,
    jid::Jid,
};

/// IQs asked on behalf of contacts.
#[derive(Debug)]
pub(in crate::whatsapp) enum ContactQuery {
    /// Device lists (and LIDs) of these users.
    Devices(Vec<Jid>),
    /// Our token was issued to this user.
    IssueToken(Jid),
}

/// Caches of device lists, LID pairs and tokens.
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct Contacts {}

impl Engine {
    /// A LID/PN pair was seen: stores it both ways and moves Signal state to the LID address.
    pub(in crate::whatsapp) fn learn_lid(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _pn: &Jid,
        _lid: &Jid,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `<notification type="devices">` or the `devices` part of `account_sync`. The caller acks it.
    pub(in crate::whatsapp) fn on_devices_notification(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _stanza: &Node,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `<notification type="encrypt"><identity/>`: the user has a new phone. The caller acks it.
    pub(in crate::whatsapp) fn on_identity_notification(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _stanza: &Node,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// `<notification type="privacy_token">`. The caller acks it.
    pub(in crate::whatsapp) fn on_privacy_token_notification(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _stanza: &Node,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// Answer to a [`ContactQuery`].
    pub(in crate::whatsapp) fn on_contact_query(
        &mut self,
        _ctx: &mut Ctx<'_>,
        _query: ContactQuery,
        _answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        Ok(())
    }
}
