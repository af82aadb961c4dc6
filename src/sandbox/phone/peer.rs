//! Between a phone and its own companions: messages of category `peer`, and what companions ask for.

use prost::Message as _;

use super::{Phone, PhoneCtx, sessions::padded};
use crate::{
    sandbox::world::PhoneMessage,
    whatsapp::{
        binary::Node,
        jid::Jid,
        proto::{
            AppStateSyncKeyId, AppStateSyncKeyRequest, LidMigrationMapping, LidMigrationMappingSyncMessage,
            LidMigrationMappingSyncPayload, Message, MessageKey, PeerDataOperationRequestMessage,
            PeerDataOperationRequestResponseMessage, ProtocolMessage, WebMessageInfo,
            peer_data_operation_request_response_message::{
                PeerDataOperationResult, peer_data_operation_result::PlaceholderMessageResendResponse,
            },
        },
    },
};

impl Phone {
    /// A companion asks for something.
    pub(super) fn on_protocol_message(
        &mut self,
        sender: &Jid,
        id: &str,
        message: &ProtocolMessage,
        ctx: &mut PhoneCtx<'_>,
    ) {
        if sender.device == 0 {
            return;
        }
        if message.app_state_sync_key_request.is_some() {
            self.share_app_state_key(sender.device, ctx);
        }
        if let Some(share) = &message.app_state_sync_key_share {
            let keys = share.keys.iter().filter_map(|key| {
                let data = key.key_data.as_ref().and_then(|data| data.key_data.clone());
                Some((key.key_id.as_ref()?.key_id.clone()?, data))
            });
            self.shared_keys.extend(keys);
        }
        if let Some(request) = &message.peer_data_operation_request_message {
            self.resend_placeholders(sender.device, id, request, ctx);
        }
    }

    /// Asks a companion for app-state keys, as a phone does that lost them; `None` stands for the phone's own.
    pub fn ask_app_state_keys(&mut self, device: u16, ids: &[Option<Vec<u8>>], ctx: &mut PhoneCtx<'_>) {
        let own = self.app_state_key.0.to_vec();
        let ids = ids
            .iter()
            .map(|id| AppStateSyncKeyId { key_id: Some(id.clone().unwrap_or_else(|| own.clone())) });
        let message = ProtocolMessage {
            r#type: Some(APP_STATE_SYNC_KEY_REQUEST),
            app_state_sync_key_request: Some(AppStateSyncKeyRequest { key_ids: ids.collect() }),
            ..ProtocolMessage::default()
        };
        self.send_peer(device, message, ctx);
    }

    /// 1:1 chats are LID-addressed from now on: the service and the companions are told.
    pub fn migrate(&mut self, ctx: &mut PhoneCtx<'_>) {
        ctx.directory.migrate(self.account);
        let mut chats: Vec<Jid> = vec![self.pn.clone()];
        for message in &self.messages {
            let chat = message.chat.parse::<Jid>().ok().filter(|chat| chat.is_pn() && !chats.contains(chat));
            chats.extend(chat);
        }
        let mappings = chats.iter().filter_map(|chat| {
            let lid = ctx.directory.to_lid(chat).user.parse().ok();
            Some(LidMigrationMapping {
                pn: Some(chat.user.parse().ok()?),
                assigned_lid: lid,
                latest_lid: lid,
            })
        });
        let payload = LidMigrationMappingSyncPayload {
            pn_to_lid_mappings: mappings.collect(),
            chat_db_migration_timestamp: Some(ctx.now.unix_s()),
        };
        let encoded = Some(payload.encode_to_vec());
        let message = ProtocolMessage {
            r#type: Some(LID_MIGRATION_MAPPING_SYNC),
            lid_migration_mapping_sync_message: Some(LidMigrationMappingSyncMessage {
                encoded_mapping_payload: encoded,
            }),
            ..ProtocolMessage::default()
        };
        // Told in the old namespace: that is the one companions still expect.
        for device in self.companions.keys().copied().collect::<Vec<_>>() {
            self.send_peer(device, message.clone(), ctx);
        }
        self.lid_migrated = true;
    }

    /// A companion could not decrypt a message and asks its phone for the content.
    fn resend_placeholders(
        &mut self,
        device: u16,
        id: &str,
        request: &PeerDataOperationRequestMessage,
        ctx: &mut PhoneCtx<'_>,
    ) {
        let wanted = &request.placeholder_message_resend_request;
        let ids = wanted.iter().filter_map(|wanted| wanted.message_key.as_ref()?.id.as_deref());
        let known = |id: &str| self.messages.iter().rev().find(|message| message.id == id);
        let results: Vec<_> = ids.filter_map(known).map(placeholder).collect();
        if results.is_empty() {
            return;
        }
        let response = PeerDataOperationRequestResponseMessage {
            peer_data_operation_request_type: request.peer_data_operation_request_type,
            stanza_id: Some(id.to_owned()),
            peer_data_operation_result: results,
        };
        let message = ProtocolMessage {
            r#type: Some(PEER_DATA_OPERATION_REQUEST_RESPONSE),
            peer_data_operation_request_response_message: Some(response),
            ..ProtocolMessage::default()
        };
        self.send_peer(device, message, ctx);
    }

    /// Sends a protocol message to one companion.
    pub(super) fn send_peer(&mut self, device: u16, message: ProtocolMessage, ctx: &mut PhoneCtx<'_>) {
        let to = self.own_jid().with_device(device);
        let message = Message { protocol_message: Some(Box::new(message)), ..Message::default() };
        let bytes = padded(&message, ctx.rng);
        let Some(enc) = self.encrypt(&to, &bytes, ctx) else { return };
        let id = Self::random_id(ctx.rng);
        let node = Node::new("message")
            .attr("id", id.clone())
            .attr("to", &to)
            .attr("type", "text")
            .attr("category", "peer")
            .child(Node::new("meta").attr("appdata", "default"))
            .child(enc);
        self.sent.insert(id, to, message);
        ctx.directory.submit(self.account, node, ctx.now);
    }
}

fn placeholder(message: &PhoneMessage) -> PeerDataOperationResult {
    let in_group = message.chat.ends_with("@g.us");
    let info = WebMessageInfo {
        key: Some(MessageKey {
            remote_jid: Some(message.chat.clone()),
            from_me: Some(message.from_me),
            id: Some(message.id.clone()),
            participant: in_group.then(|| message.sender.clone()),
        }),
        message: Some(Message { conversation: Some(message.text.clone()), ..Message::default() }),
        message_timestamp: Some(message.timestamp),
        ..WebMessageInfo::default()
    };
    let response = PlaceholderMessageResendResponse { web_message_info_bytes: Some(info.encode_to_vec()) };
    PeerDataOperationResult {
        placeholder_message_resend_response: Some(response),
        ..PeerDataOperationResult::default()
    }
}

const APP_STATE_SYNC_KEY_REQUEST: i32 = 7;
const LID_MIGRATION_MAPPING_SYNC: i32 = 22;
const PEER_DATA_OPERATION_REQUEST_RESPONSE: i32 = 17;
