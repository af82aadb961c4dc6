//! What is known of other accounts: LID and PN ([`lid`]), devices ([`devices`]), tokens ([`tokens`]), names
//! ([`names`]), and what happens when somebody's identity changes ([`identity`]).
//!
//! Everything durable is in state tables; what is used often is cached here, bounded. Knows nothing of messages and
//! groups beyond the state that has to follow an account when its name or identity changes.

mod devices;
mod identity;
mod lid;
mod names;
mod tokens;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

pub(crate) use devices::DeviceRecord;
pub(in crate::whatsapp) use devices::{Device, DeviceSet};
pub(crate) use tokens::TokenRecord;

use super::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    iq::IqError,
    jid::Jid,
    messages::{Cache, Own},
    model::CommandError,
};

/// IQs asked on behalf of contacts.
#[derive(Debug)]
pub(in crate::whatsapp) enum ContactQuery {
    /// Device lists (and LIDs) of these users.
    Devices(Vec<Jid>),
    /// Our token was issued to somebody.
    IssueToken,
}

/// Caches of device lists, LID pairs and tokens.
#[derive(Debug)]
pub(in crate::whatsapp) struct Contacts {
    /// PN user to LID user; `None` when the store has no pair either.
    lid_of: Cache<String, Option<String>>,
    /// LID user to PN user.
    pn_of: Cache<String, Option<String>>,
    /// Canonical user JID to its devices.
    devices: Cache<String, Vec<Device>>,
    /// Users of usync queries under way.
    asking: HashSet<Jid>,
    /// What the last usync said of a user for whom there is no device list, and until when that counts.
    answers: HashMap<Jid, (Duration, Option<CommandError>)>,
    /// Canonical user JID to its token record.
    tokens: Cache<String, tokens::TokenRecord>,
    /// User JID to push name.
    names: Cache<String, String>,
}

/// Entries of each cache: a few kilobytes per session when full.
const CACHED: usize = 128;

impl Default for Contacts {
    fn default() -> Self {
        Self {
            lid_of: Cache::new(CACHED),
            pn_of: Cache::new(CACHED),
            devices: Cache::new(CACHED),
            asking: HashSet::new(),
            answers: HashMap::new(),
            tokens: Cache::new(CACHED),
            names: Cache::new(CACHED),
        }
    }
}

impl Contacts {
    /// Gives the memory of the caches back; everything in them is durable.
    pub(in crate::whatsapp) fn trim(&mut self) {
        self.lid_of.drain().for_each(drop);
        self.pn_of.drain().for_each(drop);
        self.devices.drain().for_each(drop);
        self.tokens.drain().for_each(drop);
        self.names.drain().for_each(drop);
        self.answers = HashMap::new();
    }

    /// Queries of the old connection will not be answered.
    pub(in crate::whatsapp) fn disconnected(&mut self) {
        self.asking.clear();
        self.answers.clear();
    }
}

impl Engine {
    /// Our own names; `None` before pairing.
    pub(in crate::whatsapp) fn own(&self) -> Option<Own> {
        let credentials = self.credentials.as_ref()?;
        Some(Own { pn: credentials.jid.clone()?, lid: credentials.lid.clone() })
    }

    /// Answer to a [`ContactQuery`].
    pub(in crate::whatsapp) fn on_contact_query(
        &mut self,
        ctx: &mut Ctx<'_>,
        query: ContactQuery,
        answer: Result<&Node, IqError>,
    ) -> Result<(), EngineError> {
        match query {
            ContactQuery::Devices(users) => self.on_devices_answer(ctx, users, answer),
            // Fire and forget: without an answer the next bucket brings the next try.
            ContactQuery::IssueToken => Ok(()),
        }
    }
}

#[cfg(test)]
pub(in crate::whatsapp) mod tests;
