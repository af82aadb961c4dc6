//! App-state sync keys between our own devices: kept when they are shared, shared when they are asked for.
//!
//! Nothing here is used to open app state; but a key that is lost can only come back from a device that has it.
//! Seen: whatsapp-rust `src/client/app_state.rs` @1489b7da; whatsmeow `appstate.go` @33cfac51 (asks, never answers).

use prost::Message as _;

use crate::whatsapp::{
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::Jid,
    proto::{
        AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyId, AppStateSyncKeyRequest,
        AppStateSyncKeyShare, ProtocolMessage, protocol_message::Type,
    },
    state::Table,
};

/// Longest key id. Real ones have 6 bytes.
const MAX_ID_BYTES: usize = 64;
/// Keys answered for at once. An account has a handful.
const MAX_KEYS: usize = 64;

impl Engine {
    /// App state keys cannot be fetched again without another device.
    pub(super) fn keep_app_state_keys(&mut self, share: &AppStateSyncKeyShare) {
        for key in &share.keys {
            let id = key.key_id.as_ref().and_then(|id| id.key_id.as_deref()).unwrap_or_default();
            let Some(data) = key.key_data.as_ref().filter(|_| (1..=MAX_ID_BYTES).contains(&id.len())) else {
                continue;
            };
            self.state.put(Table::AppStateKey, row_of(id), data.encode_to_vec());
        }
    }

    /// Another device of ours asks for keys: it gets those we have, and the ids of the others without data.
    pub(super) fn share_app_state_keys(
        &mut self,
        ctx: &mut Ctx<'_>,
        device: &Jid,
        request: &AppStateSyncKeyRequest,
    ) -> Result<(), EngineError> {
        let mut keys = Vec::new();
        let ids = request.key_ids.iter().filter_map(|id| id.key_id.as_deref());
        for id in ids.filter(|id| (1..=MAX_ID_BYTES).contains(&id.len())).take(MAX_KEYS) {
            let stored = self.state.get(ctx.store, Table::AppStateKey, &row_of(id))?;
            keys.push(AppStateSyncKey {
                key_id: Some(AppStateSyncKeyId { key_id: Some(id.to_vec()) }),
                key_data: stored.and_then(|raw| AppStateSyncKeyData::decode(raw.as_slice()).ok()),
            });
        }
        if keys.is_empty() {
            return Ok(());
        }
        let protocol = ProtocolMessage {
            r#type: Some(Type::AppStateSyncKeyShare as i32),
            app_state_sync_key_share: Some(AppStateSyncKeyShare { keys }),
            ..Default::default()
        };
        let address = self.signal_address(ctx.store, device)?;
        self.send_peer(ctx, device.clone(), &address, protocol)
    }
}

fn row_of(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
