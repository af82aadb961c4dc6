//! Protocol messages: what devices tell each other without showing it to anybody.
//!
//! What changes our own state (history, app state keys, LID mappings) is taken from our own account only; the phone
//! itself, where only the phone has it. Everything else that comes from strangers under these names is dropped.
//!
//! Seen: whatsmeow `message.go` `handleProtocolMessage` @33cfac51; whatsapp-rust `wacore/src/history_sync.rs`
//! @1489b7da.

use std::io::Read as _;

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use prost::Message as _;

use super::receive::Incoming;
use crate::whatsapp::{
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    messages::{content::Ephemeral, pair},
    proto::{
        Conversation, HistorySync, HistorySyncNotification, LidMigrationMappingSyncPayload, ProtocolMessage,
        protocol_message::Type,
    },
};

/// An inline history payload may inflate to this. The phone sends small ones inline, large ones as media.
const MAX_INLINE_HISTORY_BYTES: u64 = 16 * 1024 * 1024;
/// A mapping payload may inflate to this: some 50 bytes per contact.
const MAX_MAPPING_BYTES: u64 = 4 * 1024 * 1024;

impl Engine {
    /// Handles a protocol message; false when it belongs into the conversation (revoke, edit, timer).
    pub(super) fn on_protocol_message(
        &mut self,
        ctx: &mut Ctx<'_>,
        incoming: &Incoming<'_>,
        protocol: &ProtocolMessage,
    ) -> Result<bool, EngineError> {
        // Absent must not read as 0, which is REVOKE.
        let Some(kind) = protocol.r#type.and_then(|kind| Type::try_from(kind).ok()) else { return Ok(true) };
        let from_me = incoming.source.from_me;
        match kind {
            Type::Revoke | Type::MessageEdit | Type::EphemeralSetting => return Ok(false),
            Type::SharePhoneNumber => {
                // The pair itself is in the stanza's attributes, learnt already.
            }
            _ if !from_me => log::debug!("dropped a {} of somebody else", kind.as_str_name()),
            Type::HistorySyncNotification => {
                if let Some(notification) = &protocol.history_sync_notification {
                    self.on_history(ctx, notification)?;
                }
            }
            Type::AppStateSyncKeyShare => {
                if let Some(share) = &protocol.app_state_sync_key_share {
                    self.keep_app_state_keys(share);
                }
            }
            Type::AppStateSyncKeyRequest => {
                if let Some(request) = &protocol.app_state_sync_key_request {
                    self.share_app_state_keys(ctx, &incoming.source.sender, request)?;
                }
            }
            Type::LidMigrationMappingSync => {
                let sync = protocol.lid_migration_mapping_sync_message.as_ref();
                if let Some(payload) = sync.and_then(|sync| sync.encoded_mapping_payload.as_deref()) {
                    self.on_lid_mappings(ctx, payload)?;
                }
            }
            Type::PeerDataOperationRequestResponseMessage if incoming.source.sender.device == 0 => {
                if let Some(response) = &protocol.peer_data_operation_request_response_message {
                    self.on_placeholders(ctx, response)?;
                }
            }
            other => log::debug!("passed over protocol message {}", other.as_str_name()),
        }
        Ok(true)
    }

    fn on_lid_mappings(&mut self, ctx: &mut Ctx<'_>, payload: &[u8]) -> Result<(), EngineError> {
        // Phones have sent it both compressed and plain.
        let inflated = inflate(MultiGzDecoder::new(payload), MAX_MAPPING_BYTES);
        let bytes = inflated.as_deref().unwrap_or(payload);
        let Ok(sync) = LidMigrationMappingSyncPayload::decode(bytes) else {
            log::warn!("a LID mapping cannot be read");
            return Ok(());
        };
        let pairs: Vec<(Jid, Jid)> = sync
            .pn_to_lid_mappings
            .iter()
            .filter_map(|mapping| {
                let lid = mapping.latest_lid.filter(|lid| *lid > 0).or(mapping.assigned_lid)?;
                Some((Jid::pn(mapping.pn?.to_string()), Jid::lid(lid.to_string())))
            })
            .collect();
        self.learn_lids(ctx, pairs.iter().map(|(pn, lid)| (pn, lid)))?;
        if sync.chat_db_migration_timestamp.unwrap_or_default() > 0 {
            self.set_lid_migrated();
        }
        Ok(())
    }

    /// The account's 1:1 chats are LID-addressed from now on.
    fn set_lid_migrated(&mut self) {
        if let Some(credentials) = self.credentials.as_mut().filter(|credentials| !credentials.lid_migrated) {
            credentials.lid_migrated = true;
            self.save_credentials();
        }
    }

    /// History: messages are not wanted yet, but names, pairs and tokens are. Larger chunks travel as media and are
    /// left where they are.
    fn on_history(
        &mut self,
        ctx: &mut Ctx<'_>,
        notification: &HistorySyncNotification,
    ) -> Result<(), EngineError> {
        let Some(inline) = notification.initial_hist_bootstrap_inline_payload.as_deref() else {
            log::debug!("history chunk not downloaded");
            return Ok(());
        };
        let history = inflate(ZlibDecoder::new(inline), MAX_INLINE_HISTORY_BYTES)
            .and_then(|bytes| HistorySync::decode(bytes.as_slice()).ok());
        match history {
            Some(history) => self.take_in_history(ctx, history),
            None => {
                log::warn!("an inline history payload cannot be read");
                Ok(())
            }
        }
    }

    fn take_in_history(&mut self, ctx: &mut Ctx<'_>, history: HistorySync) -> Result<(), EngineError> {
        let mapped = history
            .phone_number_to_lid_mappings
            .iter()
            .filter_map(|mapping| pair(&jid(mapping.pn_jid.as_deref())?, &jid(mapping.lid_jid.as_deref())?));
        let chats = history.conversations.iter().filter_map(|chat| {
            let id = jid(chat.id.as_deref());
            let pn = jid(chat.pn_jid.as_deref()).or_else(|| id.clone().filter(Jid::is_pn))?;
            let lid = jid(chat.lid_jid.as_deref()).or_else(|| id.filter(Jid::is_lid))?;
            pair(&pn, &lid)
        });
        let pairs: Vec<(Jid, Jid)> = mapped.chain(chats).collect();
        self.learn_lids(ctx, pairs.iter().map(|(pn, lid)| (pn, lid)))?;
        for chat in &history.conversations {
            self.take_in_conversation(ctx, chat)?;
        }
        for name in &history.pushnames {
            if let (Some(user), Some(name)) = (jid(name.id.as_deref()), name.pushname.as_deref()) {
                let user = self.display_name(ctx.store, &user)?;
                self.learn_push_name(ctx.store, &user, name)?;
            }
        }
        let settings = history.global_settings.and_then(|settings| settings.chat_db_lid_migration_timestamp);
        if settings.unwrap_or_default() > 0 {
            self.set_lid_migrated();
        }
        if let Some(salt) = history.nct_salt.filter(|salt| !salt.is_empty())
            && let Some(credentials) = self.credentials.as_mut()
        {
            credentials.nct_salt = Some(salt);
            self.save_credentials();
        }
        Ok(())
    }

    fn take_in_conversation(&mut self, ctx: &mut Ctx<'_>, chat: &Conversation) -> Result<(), EngineError> {
        let Some(user) = jid(chat.id.as_deref()) else { return Ok(()) };
        let token = chat.tc_token.as_deref().unwrap_or_default();
        if !token.is_empty() || chat.tc_token_sender_timestamp.is_some() {
            let issued_s = chat.tc_token_timestamp.unwrap_or_default();
            self.learn_token(ctx.store, &user, token, issued_s, chat.tc_token_sender_timestamp)?;
        }
        if let Some(expiration_s) = chat.ephemeral_expiration.filter(|seconds| *seconds > 0) {
            let set_at_s = chat.ephemeral_setting_timestamp.unwrap_or_default();
            let name = self.display_name(ctx.store, &user)?;
            self.set_ephemeral(ctx.store, &name, Ephemeral { expiration_s, set_at_s })?;
        }
        Ok(())
    }
}

fn jid(text: Option<&str>) -> Option<Jid> {
    text?.parse().ok()
}

/// Inflates up to a limit; `None` when the input is damaged or larger.
fn inflate(reader: impl std::io::Read, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= limit).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    #[test]
    fn inflating_stops_at_the_limit_and_at_damage() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&[0; 5000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(inflate(ZlibDecoder::new(packed.as_slice()), 5000).unwrap().len(), 5000);
        assert_eq!(inflate(ZlibDecoder::new(packed.as_slice()), 4999), None);
        assert_eq!(inflate(ZlibDecoder::new(&b"nonsense"[..]), 5000), None);
    }
}
