//! What a client says about itself at the end of the handshake: to register a new device, or to log in.
//!
//! We look like WhatsApp Web on a desktop, as whatsmeow does.
//! Seen: whatsmeow `store/clientpayload.go` @33cfac51; Baileys 7 `Utils/validate-connection.js`.

use md5::{Digest, Md5};
use prost::Message as _;

use crate::whatsapp::{
    jid::Jid,
    keys::{DJB_TYPE, PublicKey},
    proto::{
        ClientPayload, DeviceProps,
        client_payload::{
            ConnectReason, ConnectType, DevicePairingRegistrationData, UserAgent, WebInfo,
            user_agent::{self, Platform, ReleaseChannel},
            web_info::WebSubPlatform,
        },
        device_props::{self, HistorySyncConfig, PlatformType},
    },
};

/// A device that is to be linked. The server hands all of it to the phone, which signs it.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// Signal registration id.
    pub registration_id: u32,
    /// Signal identity key.
    pub identity: &'a PublicKey,
    /// Id of the signed prekey; 24 bits on the wire.
    pub signed_prekey_id: u32,
    /// The signed prekey.
    pub signed_prekey: &'a PublicKey,
    /// Its signature by the identity key.
    pub signed_prekey_signature: &'a [u8; 64],
    /// Name shown on the phone under "Linked devices".
    pub device_name: &'a str,
    /// Icon shown there.
    pub platform: PlatformType,
}

/// The payload of a client without an account. `version` is the client version, e.g. `[2, 3000, 1045649367]`.
#[must_use]
pub fn registration(version: [u32; 3], device: &Registration<'_>) -> Vec<u8> {
    let [_, skey_id @ ..] = device.signed_prekey_id.to_be_bytes();
    let pairing = DevicePairingRegistrationData {
        e_regid: Some(device.registration_id.to_be_bytes().to_vec()),
        e_keytype: Some(vec![DJB_TYPE]),
        e_ident: Some(device.identity.0.to_vec()),
        e_skey_id: Some(skey_id.to_vec()),
        e_skey_val: Some(device.signed_prekey.0.to_vec()),
        e_skey_sig: Some(device.signed_prekey_signature.to_vec()),
        build_hash: Some(build_hash(version)),
        device_props: Some(device_props(device).encode_to_vec()),
    };
    ClientPayload {
        passive: Some(false),
        pull: Some(false),
        device_pairing_data: Some(pairing),
        ..web_client(version)
    }
    .encode_to_vec()
}

/// The payload of a linked device; `None` when `jid` does not begin with a phone number.
///
/// The connection starts passive: nothing is delivered until the `active` IQ. `lid_migrated` repeats what the phone
/// said at pairing (`ClientPairingProps.isChatDbLidMigrated`).
#[must_use]
pub fn login(version: [u32; 3], jid: &Jid, lid_migrated: bool) -> Option<Vec<u8>> {
    let payload = ClientPayload {
        username: Some(jid.user.parse().ok()?),
        device: Some(u32::from(jid.device)),
        passive: Some(true),
        pull: Some(true),
        lid_db_migrated: Some(lid_migrated),
        lc: Some(1),
        ..web_client(version)
    };
    Some(payload.encode_to_vec())
}

/// What both payloads say.
fn web_client([primary, secondary, tertiary]: [u32; 3]) -> ClientPayload {
    let text = |text: &str| Some(text.to_owned());
    let user_agent = UserAgent {
        platform: Some(Platform::Web.into()),
        app_version: Some(user_agent::AppVersion {
            primary: Some(primary),
            secondary: Some(secondary),
            tertiary: Some(tertiary),
            ..Default::default()
        }),
        mcc: text("000"),
        mnc: text("000"),
        os_version: text("0.1"),
        manufacturer: text(""),
        device: text("Desktop"),
        os_build_number: text("0.1"),
        release_channel: Some(ReleaseChannel::Release.into()),
        locale_language_iso6391: text("en"),
        locale_country_iso31661_alpha2: text("US"),
        ..Default::default()
    };
    ClientPayload {
        connect_type: Some(ConnectType::WifiUnknown.into()),
        connect_reason: Some(ConnectReason::UserActivated.into()),
        web_info: Some(WebInfo {
            web_sub_platform: Some(WebSubPlatform::WebBrowser.into()),
            ..Default::default()
        }),
        user_agent: Some(user_agent),
        ..Default::default()
    }
}

/// Read by the server at registration only. History is kept short: a gateway needs the names and the LID mappings
/// that come with it, not years of chats.
fn device_props(device: &Registration<'_>) -> DeviceProps {
    DeviceProps {
        os: Some(device.device_name.to_owned()),
        version: Some(device_props::AppVersion {
            primary: Some(0),
            secondary: Some(1),
            tertiary: Some(0),
            ..Default::default()
        }),
        platform_type: Some(device.platform.into()),
        require_full_sync: Some(false),
        history_sync_config: Some(HistorySyncConfig {
            storage_quota_mb: Some(10_240),
            inline_initial_payload_in_e2_ee_msg: Some(true),
            recent_sync_days_limit: Some(RECENT_HISTORY_DAYS),
            support_call_log_history: Some(false),
            support_bot_user_agent_chat_history: Some(true),
            support_cag_reactions_and_polls: Some(true),
            support_biz_hosted_msg: Some(true),
            support_recent_sync_chunk_message_count_tuning: Some(true),
            support_hosted_group_msg: Some(true),
            support_fbid_bot_chat_history: Some(true),
            support_message_association: Some(true),
            support_group_history: Some(false),
            thumbnail_sync_days_limit: Some(RECENT_HISTORY_DAYS),
            ..Default::default()
        }),
    }
}

/// MD5 of the version as text; must belong to the version in the user agent.
fn build_hash([primary, secondary, tertiary]: [u32; 3]) -> Vec<u8> {
    Md5::digest(format!("{primary}.{secondary}.{tertiary}")).to_vec()
}

/// How much history the phone is asked for. Guess: the server honours it loosely.
const RECENT_HISTORY_DAYS: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: [u32; 3] = [2, 3000, 1_045_649_367];

    #[test]
    fn registration_carries_the_keys_in_wire_form() {
        let identity = PublicKey([1; 32]);
        let signed_prekey = PublicKey([2; 32]);
        let device = Registration {
            registration_id: 0x0102_0304,
            identity: &identity,
            signed_prekey_id: 0x05_0607,
            signed_prekey: &signed_prekey,
            signed_prekey_signature: &[3; 64],
            device_name: "Support desk",
            platform: PlatformType::Chrome,
        };
        let payload = ClientPayload::decode(registration(VERSION, &device).as_slice()).unwrap();
        let data = payload.device_pairing_data.unwrap();
        assert_eq!(data.e_regid(), [1, 2, 3, 4]);
        assert_eq!(data.e_skey_id(), [5, 6, 7]);
        assert_eq!(data.e_keytype(), [5]);
        assert_eq!(data.e_ident(), [1; 32]);
        assert_eq!(data.e_skey_val(), [2; 32]);
        assert_eq!(data.e_skey_sig(), [3; 64]);
        assert_eq!(data.build_hash(), Md5::digest("2.3000.1045649367").as_slice());
        let props = DeviceProps::decode(data.device_props()).unwrap();
        assert_eq!((props.os(), props.platform_type()), ("Support desk", PlatformType::Chrome));
        assert_eq!((payload.passive, payload.pull, payload.username), (Some(false), Some(false), None));
    }

    #[test]
    fn login_names_the_account_and_the_device() {
        let jid = Jid::pn("6281200000001").with_device(12);
        let payload = ClientPayload::decode(login(VERSION, &jid, true).unwrap().as_slice()).unwrap();
        assert_eq!((payload.username(), payload.device()), (6_281_200_000_001, 12));
        assert_eq!((payload.passive(), payload.pull(), payload.lid_db_migrated()), (true, true, true));
        assert!(payload.device_pairing_data.is_none());
    }

    #[test]
    fn login_needs_a_phone_number() {
        assert_eq!(login(VERSION, &Jid::status_broadcast(), false), None);
    }
}
