//! How a session becomes linked to a phone. Start with [`credentials`]: who we are. Then `qr` and `code`, the two ways
//! to be accepted, and `success`, where both end; `passkey` recognises accounts that need a step we cannot do.
//!
//! Knows nothing of the Noise channel and of what a linked session does.

use std::{collections::VecDeque, time::Duration};

use super::{
    ctx::Ctx,
    engine::{Engine, EngineError},
    model::{CommandError, CommandId},
    signal::SignedPreKeyRecord,
    state::{StateRead, StateWriter, Table},
};

mod code;
mod credentials;
mod passkey;
mod qr;
mod success;

pub(crate) use credentials::Credentials;

use code::CodePairing;

/// State of an ongoing pairing. Ends with the connection.
#[derive(Debug, Default)]
pub(in crate::whatsapp) struct Pairing {
    /// The ref in the QR that is shown, and when the next one is due.
    shown: Option<(String, Duration)>,
    /// Refs for further QRs.
    refs: VecDeque<String>,
    /// A code was asked for before the server was ready to pair: command and phone number.
    wanted: Option<(CommandId, String)>,
    /// Linking by code.
    code: Option<CodePairing>,
    /// The account's owner is busy with a passkey: no deadline of ours may end the connection.
    passkey: bool,
}

/// Credentials: read once, written through.
impl Engine {
    /// Whether a phone has accepted the loaded credentials.
    pub(in crate::whatsapp) fn is_linked(&self) -> bool {
        self.credentials.as_ref().is_some_and(Credentials::is_paired)
    }

    /// What the store says of who we are. Damage is an error, never a fresh identity.
    pub(in crate::whatsapp) fn stored_credentials(
        state: &StateWriter,
        store: &dyn StateRead,
    ) -> Result<Option<Credentials>, EngineError> {
        let Some(bytes) = state.get(store, Table::Credentials, Credentials::KEY)? else {
            return Ok(None);
        };
        let credentials = Credentials::decode(&bytes)
            .map_err(|error| EngineError::Damaged { what: "credentials", why: error.to_string() })?;
        Ok(Some(credentials))
    }

    /// Reads the credentials on first use.
    pub(in crate::whatsapp) fn load_credentials(&mut self, store: &dyn StateRead) -> Result<(), EngineError> {
        if self.credentials.is_none() {
            self.credentials = Self::stored_credentials(&self.state, store)?;
        }
        Ok(())
    }

    /// Reads the credentials, or makes a new identity where there is none. Nothing an earlier account left behind
    /// survives that.
    pub(in crate::whatsapp) fn ensure_credentials(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        self.load_credentials(ctx.store)?;
        if self.credentials.is_some() {
            return Ok(());
        }
        for table in Table::ALL {
            self.state.clear(table);
        }
        let credentials = Credentials::generate(ctx.rng);
        let (id, now_s) = (credentials.signed_prekey_id, ctx.now.unix_s());
        let signed = SignedPreKeyRecord::generate(id, &credentials.identity, now_s, ctx.rng);
        self.state.put(Table::SignedPreKey, id.to_string(), signed.encode());
        self.credentials = Some(credentials);
        self.save_credentials();
        Ok(())
    }

    /// Writes the credentials with the current batch. Call after every change of them.
    pub(in crate::whatsapp) fn save_credentials(&mut self) {
        if let Some(credentials) = &self.credentials {
            self.state.put(Table::Credentials, Credentials::KEY, credentials.encode());
        }
    }

    /// The connection is gone, and with it everything the server knew of this pairing.
    pub(in crate::whatsapp) fn close_pairing(&mut self) {
        if let Some((id, _)) = std::mem::take(&mut self.pairing).wanted {
            self.reply_failed(id, CommandError::ConnectionLost);
        }
    }
}
