//! Every protobuf a peer sends decodes or is refused, and what was decoded is encoded in a stable form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use whatsapp_worker::whatsapp::proto;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    match kind % 10 {
        0 => stable::<proto::HistorySync>(data),
        1 => stable::<proto::WebMessageInfo>(data),
        2 => stable::<proto::ClientPayload>(data),
        3 => stable::<proto::AdvSignedDeviceIdentityHmac>(data),
        4 => stable::<proto::SyncdPatch>(data),
        5 => stable::<proto::SyncActionData>(data),
        6 => stable::<proto::LidMigrationMappingSyncPayload>(data),
        _ => stable::<proto::Message>(data),
    }
});

/// Compares bytes, because a NaN does not equal itself.
fn stable<T: prost::Message + Default>(data: &[u8]) {
    let Ok(message) = T::decode(data) else { return };
    let once = message.encode_to_vec();
    let again = T::decode(once.as_slice()).expect("what we encode can be decoded");
    assert_eq!(again.encode_to_vec(), once);
}
