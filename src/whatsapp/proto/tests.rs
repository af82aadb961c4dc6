use std::{env, fs, path::Path};

use prost::Message as _;
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};

use super::*;
use crate::whatsapp::vectors;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/whatsapp/proto")
}

/// Generates the Rust of one schema file. `package` is also the file name.
fn generate(package: &str) -> String {
    let descriptors = protox::Compiler::new([folder()])
        .expect("the folder exists")
        .include_source_info(true)
        .open_file(format!("{package}.proto"))
        .expect("the schema parses")
        .file_descriptor_set();
    let out = tempfile::tempdir().expect("a temporary folder");
    let mut config = prost_build::Config::new();
    config.out_dir(out.path());
    // `Message` names every kind there is; boxed, an absent kind costs one word.
    for message in descriptors.file.iter().flat_map(|file| &file.message_type) {
        for field in &message.field {
            let single_message = field.r#type() == Type::Message && field.label() != Label::Repeated;
            if single_message && (message.name() == "Message" || field.name() == "contextInfo") {
                config.boxed(format!(".{package}.{}.{}", message.name(), field.name()));
            }
        }
    }
    config.compile_fds(descriptors).expect("prost generates");
    let body = fs::read_to_string(out.path().join(format!("{package}.rs"))).expect("generated");
    format!(
        "// Generated from {package}.proto by prost-build and protox (see proto/tests.rs). Do not edit. To regenerate:\n\
         // REGENERATE=1 cargo test --lib proto\n\n{body}"
    )
}

#[test]
fn the_generated_code_matches_the_schema() {
    for package in ["whatsapp", "signal"] {
        let path = folder().join(format!("{package}.rs"));
        let generated = generate(package);
        if env::var_os("REGENERATE").is_some() {
            fs::write(&path, &generated).expect("the source folder is writable");
        }
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        assert!(checked_in == generated, "{package}.rs is stale: REGENERATE=1 cargo test --lib proto");
    }
}

#[test]
fn an_empty_message_is_small() {
    let size = size_of::<Message>();
    assert!(size <= 1536, "Message takes {size} bytes: box its sub messages");
}

#[test]
fn unknown_enum_values_survive() {
    let sent = ProtocolMessage { r#type: Some(4711), ..Default::default() };
    assert_eq!(ProtocolMessage::decode(sent.encode_to_vec().as_slice()), Ok(sent));
}

#[test]
fn a_message_nested_too_deeply_is_refused() {
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        // ephemeralMessage 40 { message 1 { … } }
        let mut inner = Vec::new();
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut inner);
        prost::encoding::encode_varint(bytes.len() as u64, &mut inner);
        inner.append(&mut bytes);
        prost::encoding::encode_key(40, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
        bytes.append(&mut inner);
    }
    assert!(Message::decode(bytes.as_slice()).is_err());
}

/// Decodes and encodes again; `None` for a type that is not in the table.
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn reencode(name: &str, wire: &[u8]) -> Option<Result<Vec<u8>, prost::DecodeError>> {
    macro_rules! table {
        ($($known:literal => $type:ty,)*) => {
            match name {
                $($known => Some(<$type>::decode(wire).map(|message| message.encode_to_vec())),)*
                _ => None,
            }
        };
    }
    table! {
        "HandshakeMessage" => HandshakeMessage,
        "HandshakeMessage.ClientHello" => handshake_message::ClientHello,
        "HandshakeMessage.ServerHello" => handshake_message::ServerHello,
        "HandshakeMessage.ClientFinish" => handshake_message::ClientFinish,
        "CertChain" => CertChain,
        "CertChain.NoiseCertificate" => cert_chain::NoiseCertificate,
        "CertChain.NoiseCertificate.Details" => cert_chain::noise_certificate::Details,
        "ClientPayload" => ClientPayload,
        "ClientPayload.WebInfo" => client_payload::WebInfo,
        "ClientPayload.UserAgent" => client_payload::UserAgent,
        "ClientPayload.UserAgent.AppVersion" => client_payload::user_agent::AppVersion,
        "ClientPayload.DevicePairingRegistrationData" => client_payload::DevicePairingRegistrationData,
        "DeviceProps" => DeviceProps,
        "DeviceProps.HistorySyncConfig" => device_props::HistorySyncConfig,
        "DeviceProps.AppVersion" => device_props::AppVersion,
        "ADVSignedDeviceIdentityHMAC" => AdvSignedDeviceIdentityHmac,
        "ADVSignedDeviceIdentity" => AdvSignedDeviceIdentity,
        "ADVDeviceIdentity" => AdvDeviceIdentity,
        "ADVSignedKeyIndexList" => AdvSignedKeyIndexList,
        "ADVKeyIndexList" => AdvKeyIndexList,
        "ClientPairingProps" => ClientPairingProps,
        "VerifiedNameCertificate" => VerifiedNameCertificate,
        "VerifiedNameCertificate.Details" => verified_name_certificate::Details,
        "MessageKey" => MessageKey,
        "Message" => Message,
        "FutureProofMessage" => FutureProofMessage,
        "SenderKeyDistributionMessage" => SenderKeyDistributionMessage,
        "DeviceSentMessage" => DeviceSentMessage,
        "DeviceListMetadata" => DeviceListMetadata,
        "MessageContextInfo" => MessageContextInfo,
        "MessageAssociation" => MessageAssociation,
        "LimitSharing" => LimitSharing,
        "GroupMention" => GroupMention,
        "DisappearingMode" => DisappearingMode,
        "ContextInfo" => ContextInfo,
        "ContextInfo.ExternalAdReplyInfo" => context_info::ExternalAdReplyInfo,
        "ContextInfo.ForwardedNewsletterMessageInfo" => context_info::ForwardedNewsletterMessageInfo,
        "ExtendedTextMessage" => ExtendedTextMessage,
        "ImageMessage" => ImageMessage,
        "VideoMessage" => VideoMessage,
        "AudioMessage" => AudioMessage,
        "DocumentMessage" => DocumentMessage,
        "StickerMessage" => StickerMessage,
        "LocationMessage" => LocationMessage,
        "LiveLocationMessage" => LiveLocationMessage,
        "ContactMessage" => ContactMessage,
        "ContactsArrayMessage" => ContactsArrayMessage,
        "Call" => Call,
        "CallLogMessage" => CallLogMessage,
        "CallLogMessage.CallParticipant" => call_log_message::CallParticipant,
        "GroupInviteMessage" => GroupInviteMessage,
        "TemplateButtonReplyMessage" => TemplateButtonReplyMessage,
        "ButtonsResponseMessage" => ButtonsResponseMessage,
        "ListResponseMessage" => ListResponseMessage,
        "ListResponseMessage.SingleSelectReply" => list_response_message::SingleSelectReply,
        "InteractiveResponseMessage" => InteractiveResponseMessage,
        "InteractiveResponseMessage.Body" => interactive_response_message::Body,
        "InteractiveResponseMessage.NativeFlowResponseMessage" => interactive_response_message::NativeFlowResponseMessage,
        "ReactionMessage" => ReactionMessage,
        "EncReactionMessage" => EncReactionMessage,
        "EncCommentMessage" => EncCommentMessage,
        "CommentMessage" => CommentMessage,
        "PollCreationMessage" => PollCreationMessage,
        "PollCreationMessage.Option" => poll_creation_message::Option,
        "PollEncValue" => PollEncValue,
        "PollUpdateMessage" => PollUpdateMessage,
        "PollVoteMessage" => PollVoteMessage,
        "PollResultSnapshotMessage" => PollResultSnapshotMessage,
        "PollResultSnapshotMessage.PollVote" => poll_result_snapshot_message::PollVote,
        "EventMessage" => EventMessage,
        "EncEventResponseMessage" => EncEventResponseMessage,
        "EventResponseMessage" => EventResponseMessage,
        "SecretEncryptedMessage" => SecretEncryptedMessage,
        "AlbumMessage" => AlbumMessage,
        "PinInChatMessage" => PinInChatMessage,
        "KeepInChatMessage" => KeepInChatMessage,
        "RequestPhoneNumberMessage" => RequestPhoneNumberMessage,
        "PlaceholderMessage" => PlaceholderMessage,
        "ProtocolMessage" => ProtocolMessage,
        "MemberLabel" => MemberLabel,
        "InitialSecurityNotificationSettingSync" => InitialSecurityNotificationSettingSync,
        "HistorySyncNotification" => HistorySyncNotification,
        "FullHistorySyncOnDemandRequestMetadata" => FullHistorySyncOnDemandRequestMetadata,
        "AppStateSyncKeyId" => AppStateSyncKeyId,
        "AppStateSyncKeyFingerprint" => AppStateSyncKeyFingerprint,
        "AppStateSyncKeyData" => AppStateSyncKeyData,
        "AppStateSyncKey" => AppStateSyncKey,
        "AppStateSyncKeyShare" => AppStateSyncKeyShare,
        "AppStateSyncKeyRequest" => AppStateSyncKeyRequest,
        "AppStateFatalExceptionNotification" => AppStateFatalExceptionNotification,
        "LIDMigrationMapping" => LidMigrationMapping,
        "LIDMigrationMappingSyncPayload" => LidMigrationMappingSyncPayload,
        "LIDMigrationMappingSyncMessage" => LidMigrationMappingSyncMessage,
        "PeerDataOperationRequestMessage" => PeerDataOperationRequestMessage,
        "PeerDataOperationRequestMessage.RequestStickerReupload" => peer_data_operation_request_message::RequestStickerReupload,
        "PeerDataOperationRequestMessage.RequestUrlPreview" => peer_data_operation_request_message::RequestUrlPreview,
        "PeerDataOperationRequestMessage.HistorySyncOnDemandRequest" => peer_data_operation_request_message::HistorySyncOnDemandRequest,
        "PeerDataOperationRequestMessage.PlaceholderMessageResendRequest" => peer_data_operation_request_message::PlaceholderMessageResendRequest,
        "PeerDataOperationRequestMessage.FullHistorySyncOnDemandRequest" => peer_data_operation_request_message::FullHistorySyncOnDemandRequest,
        "PeerDataOperationRequestMessage.SyncDCollectionFatalRecoveryRequest" => peer_data_operation_request_message::SyncDCollectionFatalRecoveryRequest,
        "PeerDataOperationRequestMessage.HistorySyncChunkRetryRequest" => peer_data_operation_request_message::HistorySyncChunkRetryRequest,
        "PeerDataOperationRequestResponseMessage" => PeerDataOperationRequestResponseMessage,
        "PeerDataOperationRequestResponseMessage.PeerDataOperationResult" => peer_data_operation_request_response_message::PeerDataOperationResult,
        "PeerDataOperationRequestResponseMessage.PeerDataOperationResult.LinkPreviewResponse" => peer_data_operation_request_response_message::peer_data_operation_result::LinkPreviewResponse,
        "PeerDataOperationRequestResponseMessage.PeerDataOperationResult.PlaceholderMessageResendResponse" => peer_data_operation_request_response_message::peer_data_operation_result::PlaceholderMessageResendResponse,
        "PeerDataOperationRequestResponseMessage.PeerDataOperationResult.FullHistorySyncOnDemandRequestResponse" => peer_data_operation_request_response_message::peer_data_operation_result::FullHistorySyncOnDemandRequestResponse,
        "PeerDataOperationRequestResponseMessage.PeerDataOperationResult.CompanionMetaNonceFetchResponse" => peer_data_operation_request_response_message::peer_data_operation_result::CompanionMetaNonceFetchResponse,
        "PeerDataOperationRequestResponseMessage.PeerDataOperationResult.SyncDSnapshotFatalRecoveryResponse" => peer_data_operation_request_response_message::peer_data_operation_result::SyncDSnapshotFatalRecoveryResponse,
        "PeerDataOperationRequestResponseMessage.PeerDataOperationResult.HistorySyncChunkRetryResponse" => peer_data_operation_request_response_message::peer_data_operation_result::HistorySyncChunkRetryResponse,
        "WebMessageInfo" => WebMessageInfo,
        "UserReceipt" => UserReceipt,
        "Reaction" => Reaction,
        "HistorySyncMsg" => HistorySyncMsg,
        "GroupParticipant" => GroupParticipant,
        "Conversation" => Conversation,
        "Pushname" => Pushname,
        "GlobalSettings" => GlobalSettings,
        "PhoneNumberToLIDMapping" => PhoneNumberToLidMapping,
        "HistorySync" => HistorySync,
        "SyncdVersion" => SyncdVersion,
        "SyncdIndex" => SyncdIndex,
        "SyncdValue" => SyncdValue,
        "KeyId" => KeyId,
        "ExitCode" => ExitCode,
        "SyncdRecord" => SyncdRecord,
        "SyncdMutation" => SyncdMutation,
        "SyncdMutations" => SyncdMutations,
        "ExternalBlobReference" => ExternalBlobReference,
        "SyncdPatch" => SyncdPatch,
        "SyncdSnapshot" => SyncdSnapshot,
        "SyncActionData" => SyncActionData,
        "SyncActionValue" => SyncActionValue,
        "SyncActionValue.StarAction" => sync_action_value::StarAction,
        "SyncActionValue.ContactAction" => sync_action_value::ContactAction,
        "SyncActionValue.MuteAction" => sync_action_value::MuteAction,
        "SyncActionValue.PinAction" => sync_action_value::PinAction,
        "SyncActionValue.PushNameSetting" => sync_action_value::PushNameSetting,
        "SyncActionValue.QuickReplyAction" => sync_action_value::QuickReplyAction,
        "SyncActionValue.LabelEditAction" => sync_action_value::LabelEditAction,
        "SyncActionValue.LabelAssociationAction" => sync_action_value::LabelAssociationAction,
        "SyncActionValue.LocaleSetting" => sync_action_value::LocaleSetting,
        "SyncActionValue.SyncActionMessage" => sync_action_value::SyncActionMessage,
        "SyncActionValue.SyncActionMessageRange" => sync_action_value::SyncActionMessageRange,
        "SyncActionValue.ArchiveChatAction" => sync_action_value::ArchiveChatAction,
        "SyncActionValue.DeleteMessageForMeAction" => sync_action_value::DeleteMessageForMeAction,
        "SyncActionValue.KeyExpiration" => sync_action_value::KeyExpiration,
        "SyncActionValue.MarkChatAsReadAction" => sync_action_value::MarkChatAsReadAction,
        "SyncActionValue.ClearChatAction" => sync_action_value::ClearChatAction,
        "SyncActionValue.DeleteChatAction" => sync_action_value::DeleteChatAction,
        "SyncActionValue.UnarchiveChatsSetting" => sync_action_value::UnarchiveChatsSetting,
        "SyncActionValue.PnForLidChatAction" => sync_action_value::PnForLidChatAction,
        "SyncActionValue.LidContactAction" => sync_action_value::LidContactAction,
    }
}

#[test]
fn what_baileys_encodes_is_read_without_loss() {
    for vector in vectors::read("proto/messages.json") {
        let name = vector["type"].as_str().unwrap();
        let wire = vectors::bytes(&vector, "wire");
        let again = reencode(name, &wire).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert_eq!(again.as_deref(), Ok(wire.as_slice()), "{name} {}", vector["kind"]);
    }
}

#[test]
fn truncated_messages_are_refused_or_read_in_part_but_never_panic() {
    for vector in vectors::read("proto/messages.json").iter().filter(|vector| vector["kind"].is_string()) {
        let wire = vectors::bytes(vector, "wire");
        for len in 0..wire.len().min(2000) {
            let _ = Message::decode(&wire[..len]);
        }
    }
}
