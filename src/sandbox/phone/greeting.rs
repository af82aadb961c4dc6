//! What a phone tells a new companion after its first login: the app-state key and (almost empty) history.
//!
//! Baileys holds its events back for up to 20 s until a history notification arrives, so even an empty one matters.
//! Seen: Baileys `Socket/chats.js`, `Utils/history.js` @7.0.0-rc14; whatsmeow `message.go` @33cfac51.

use std::io::Write as _;

use flate2::{Compression, write::ZlibEncoder};
use prost::Message as _;

use super::{Phone, PhoneCtx};
use crate::whatsapp::proto::{
    AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId,
    AppStateSyncKeyShare, GlobalSettings, HistorySync, HistorySyncNotification, PhoneNumberToLidMapping,
    ProtocolMessage, Pushname,
};

impl Phone {
    /// Greets a companion that has uploaded its prekeys.
    pub(super) fn greet(&mut self, device: u16, ctx: &mut PhoneCtx<'_>) {
        self.share_app_state_key(device, ctx);
        for kind in [INITIAL_BOOTSTRAP, PUSH_NAME, RECENT] {
            let message = ProtocolMessage {
                r#type: Some(HISTORY_SYNC_NOTIFICATION),
                history_sync_notification: Some(self.history(kind, ctx)),
                ..ProtocolMessage::default()
            };
            self.send_peer(device, message, ctx);
        }
    }

    /// Sends the app-state key, at first login or because the companion asks.
    pub(super) fn share_app_state_key(&mut self, device: u16, ctx: &mut PhoneCtx<'_>) {
        let (id, data) = self.app_state_key;
        let fingerprint = AppStateSyncKeyFingerprint {
            raw_id: Some(self.raw_id),
            current_index: Some(self.next_key_index.saturating_sub(1)),
            device_indexes: self.companions.values().copied().chain([0]).collect(),
        };
        let key = AppStateSyncKey {
            key_id: Some(AppStateSyncKeyId { key_id: Some(id.to_vec()) }),
            key_data: Some(AppStateSyncKeyData {
                key_data: Some(data.to_vec()),
                fingerprint: Some(fingerprint),
                timestamp: i64::try_from(ctx.now.unix_ms).ok(),
            }),
        };
        let message = ProtocolMessage {
            r#type: Some(APP_STATE_SYNC_KEY_SHARE),
            app_state_sync_key_share: Some(AppStateSyncKeyShare { keys: vec![key] }),
            ..ProtocolMessage::default()
        };
        self.send_peer(device, message, ctx);
    }

    fn history(&self, kind: i32, ctx: &mut PhoneCtx<'_>) -> HistorySyncNotification {
        let mut sync = HistorySync {
            sync_type: Some(kind),
            chunk_order: Some(1),
            progress: Some(100),
            ..HistorySync::default()
        };
        match kind {
            PUSH_NAME => {
                sync.pushnames =
                    vec![Pushname { id: Some(self.pn.to_string()), pushname: Some(self.name.clone()) }];
            }
            INITIAL_BOOTSTRAP => {
                let mapping = PhoneNumberToLidMapping {
                    pn_jid: Some(self.pn.to_string()),
                    lid_jid: Some(self.lid.to_string()),
                };
                sync.phone_number_to_lid_mappings = vec![mapping];
                if self.lid_migrated {
                    let at = i64::try_from(ctx.now.unix_s()).ok();
                    sync.global_settings = Some(GlobalSettings { chat_db_lid_migration_timestamp: at });
                }
            }
            _ => {}
        }
        HistorySyncNotification {
            sync_type: Some(kind),
            chunk_order: Some(1),
            progress: Some(100),
            initial_hist_bootstrap_inline_payload: Some(deflate(&sync.encode_to_vec())),
            ..HistorySyncNotification::default()
        }
    }
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

const INITIAL_BOOTSTRAP: i32 = 0;
const RECENT: i32 = 3;
const PUSH_NAME: i32 = 4;

const HISTORY_SYNC_NOTIFICATION: i32 = 5;
const APP_STATE_SYNC_KEY_SHARE: i32 = 6;
