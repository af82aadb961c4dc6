use std::collections::HashSet;

use super::*;
use crate::whatsapp::signal::{limits::SEND_RESERVATION, testing::rng};

/// A sender's own record and a receiver that has its SKDM.
fn pair(seed: u64) -> (SenderKeyRecord, SenderKeyRecord) {
    let own = SenderKeyRecord::create(&mut rng(seed));
    let mut theirs = SenderKeyRecord::default();
    theirs.process_distribution(&own.distribution().unwrap()).unwrap();
    (own, theirs)
}

fn encrypt(own: &mut SenderKeyRecord, plaintext: &[u8]) -> Vec<u8> {
    own.encrypt(plaintext, &mut rng(99)).unwrap().bytes
}

fn decrypt(theirs: &mut SenderKeyRecord, bytes: &[u8]) -> Result<Vec<u8>, SignalError> {
    theirs.decrypt(bytes).map(|decrypted| decrypted.plaintext)
}

fn snapshot(record: &SenderKeyRecord) -> Vec<u8> {
    record.clone().encode()
}

#[test]
fn messages_are_read_in_any_order_and_once() {
    let (mut own, mut theirs) = pair(1);
    let messages: Vec<_> = (0..6u8).map(|n| encrypt(&mut own, &[n])).collect();
    for n in [3u8, 0, 5, 1, 4, 2] {
        let message = &messages[usize::from(n)];
        assert_eq!(decrypt(&mut theirs, message), Ok(vec![n]));
        assert_eq!(decrypt(&mut theirs, message), Err(SignalError::Duplicate));
    }
    assert_eq!((own.iteration(), theirs.iteration()), (6, 6));
    assert_eq!(own.key_id(), theirs.key_id());
}

#[test]
fn a_late_member_reads_from_its_skdm_on_and_earlier_messages_ask_for_a_resend() {
    let (mut own, _) = pair(1);
    let early = encrypt(&mut own, b"early");
    let mut late = SenderKeyRecord::default();
    late.process_distribution(&own.distribution().unwrap()).unwrap();
    let next = encrypt(&mut own, b"next");
    assert_eq!(decrypt(&mut late, &next), Ok(b"next".to_vec()));
    assert_eq!(decrypt(&mut late, &early), Err(SignalError::NoSenderKey));
    assert_eq!(decrypt(&mut late, &next), Err(SignalError::Duplicate));
}

#[test]
fn the_same_skdm_again_does_not_rewind_the_chain() {
    let (mut own, mut theirs) = pair(1);
    let skdm = own.distribution().unwrap();
    let messages: Vec<_> = (0..3u8).map(|n| encrypt(&mut own, &[n])).collect();
    assert_eq!(decrypt(&mut theirs, &messages[2]), Ok(vec![2]));
    theirs.process_distribution(&skdm).unwrap();
    theirs.process_distribution(&own.distribution().unwrap()).unwrap();
    assert_eq!(decrypt(&mut theirs, &messages[2]), Err(SignalError::Duplicate));
    assert_eq!(decrypt(&mut theirs, &messages[0]), Ok(vec![0]));
}

#[test]
fn an_skdm_out_of_reach_of_the_chain_moves_it_and_keeps_the_skipped_keys() {
    let (mut own, mut theirs) = pair(1);
    let first = encrypt(&mut own, b"first");
    let second = encrypt(&mut own, b"second");
    assert_eq!(decrypt(&mut theirs, &second), Ok(b"second".to_vec()));
    let lost: Vec<_> = (0..=MAX_FORWARD_JUMP).map(|_| encrypt(&mut own, b"lost")).collect();
    let far = encrypt(&mut own, b"far");
    assert_eq!(decrypt(&mut theirs, &far), Err(SignalError::TooFarAhead));
    let mut skdm_source = own.clone();
    theirs.process_distribution(&skdm_source.distribution().unwrap()).unwrap();
    let next = encrypt(&mut skdm_source, b"next");
    assert_eq!(decrypt(&mut theirs, &next), Ok(b"next".to_vec()));
    assert_eq!(decrypt(&mut theirs, &lost[5]), Err(SignalError::NoSenderKey));
    assert_eq!(decrypt(&mut theirs, &first), Ok(b"first".to_vec()));
}

#[test]
fn a_rotated_key_is_added_and_the_five_newest_are_kept() {
    let mut theirs = SenderKeyRecord::default();
    let mut senders: Vec<_> = (0..6).map(|seed| SenderKeyRecord::create(&mut rng(seed))).collect();
    for sender in &senders {
        theirs.process_distribution(&sender.distribution().unwrap()).unwrap();
    }
    for (n, sender) in senders.iter_mut().enumerate() {
        let read = decrypt(&mut theirs, &encrypt(sender, b"x"));
        let expected = if n == 0 { Err(SignalError::NoSenderKey) } else { Ok(b"x".to_vec()) };
        assert_eq!(read, expected, "key {n}");
    }
}

#[test]
fn the_same_key_id_with_another_signing_key_replaces_the_key() {
    let (mut old, mut theirs) = pair(1);
    let mut new = SenderKeyRecord::create(&mut rng(2));
    new.states[0].key_id = old.key_id().unwrap();
    theirs.process_distribution(&new.distribution().unwrap()).unwrap();
    assert_eq!(decrypt(&mut theirs, &encrypt(&mut new, b"new")), Ok(b"new".to_vec()));
    assert_eq!(decrypt(&mut theirs, &encrypt(&mut old, b"old")), Err(SignalError::BadSignature));
    assert_eq!(theirs.states.len(), 1);
}

#[test]
fn only_a_record_of_our_own_encrypts_and_it_takes_in_no_skdm() {
    let (mut own, mut theirs) = pair(1);
    assert_eq!(theirs.encrypt(b"x", &mut rng(1)).unwrap_err(), SignalError::NoSenderKey);
    assert_eq!(theirs.distribution(), Err(SignalError::NoSenderKey));
    let other = SenderKeyRecord::create(&mut rng(2)).distribution().unwrap();
    assert_eq!(own.process_distribution(&other), Err(SignalError::InvalidMessage));
    let message = encrypt(&mut own, b"x");
    assert_eq!(decrypt(&mut own, &message), Err(SignalError::NoSenderKey));
    assert_eq!(decrypt(&mut SenderKeyRecord::default(), &message), Err(SignalError::NoSenderKey));
}

#[test]
fn records_round_trip_with_skipped_keys() {
    let (mut own, mut theirs) = pair(1);
    let messages: Vec<_> = (0..5u8).map(|n| encrypt(&mut own, &[n])).collect();
    decrypt(&mut theirs, &messages[4]).unwrap();
    let stored = theirs.encode();
    let mut theirs = SenderKeyRecord::decode(&stored).unwrap();
    assert_eq!(theirs.encode(), stored);
    let clean = own.encode_clean();
    let mut own = SenderKeyRecord::decode(&clean).unwrap();
    assert_eq!(own.encode_clean(), clean);
    assert_eq!(own.iteration(), 5);
    assert_eq!(decrypt(&mut theirs, &messages[1]), Ok(vec![1]));
    assert_eq!(decrypt(&mut theirs, &encrypt(&mut own, b"on")), Ok(b"on".to_vec()));
}

#[test]
fn no_iteration_is_used_twice_wherever_the_sender_crashes() {
    for before in 0..=2 * SEND_RESERVATION + 1 {
        let (mut own, mut theirs) = pair(1);
        let mut durable = own.encode();
        let mut sent = Vec::new();
        let mut send = |own: &mut SenderKeyRecord, durable: &mut Vec<u8>, count: u32| {
            for _ in 0..count {
                let message = own.encrypt(b"x", &mut rng(1)).unwrap();
                if message.must_persist {
                    *durable = own.encode();
                }
                sent.push(message.bytes);
            }
        };
        send(&mut own, &mut durable, before);
        for after in [1, 0, 3] {
            own = SenderKeyRecord::decode(&durable).unwrap();
            send(&mut own, &mut durable, after);
        }
        let used: HashSet<_> =
            sent.iter().map(|bytes| SenderKeyMessage::parse(bytes).unwrap().iteration).collect();
        assert_eq!(used.len(), sent.len(), "crash after {before} messages");
        for message in &sent {
            assert_eq!(decrypt(&mut theirs, message), Ok(b"x".to_vec()));
        }
    }
}

#[test]
fn a_fresh_key_is_written_before_its_first_message() {
    let mut own = SenderKeyRecord::create(&mut rng(1));
    assert!(own.encrypt(b"x", &mut rng(1)).unwrap().must_persist);
    let _ = own.encode();
    assert!(!own.encrypt(b"x", &mut rng(1)).unwrap().must_persist);
}

#[test]
fn receiving_asks_to_be_written_every_32_messages() {
    let (mut own, mut theirs) = pair(1);
    let _ = theirs.encode();
    for n in 1..=2 * RECEIVES_PER_PERSIST {
        let must_persist = theirs.decrypt(&encrypt(&mut own, b"x")).unwrap().must_persist;
        assert_eq!(must_persist, n % RECEIVES_PER_PERSIST == 0, "message {n}");
        if must_persist {
            let _ = theirs.encode();
        }
    }
}

#[test]
fn every_truncation_and_bit_flip_is_refused_and_changes_nothing() {
    let (mut own, mut theirs) = pair(1);
    encrypt(&mut own, b"skipped");
    let message = encrypt(&mut own, b"a message of more than one block");
    let before = snapshot(&theirs);
    let truncated = (0..message.len()).map(|len| message[..len].to_vec());
    let flipped = (0..message.len() * 8).map(|bit| {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    });
    for (case, changed) in truncated.chain(flipped).enumerate() {
        let error = theirs.decrypt(&changed).expect_err("accepted");
        assert_ne!(error, SignalError::DamagedRecord);
        assert_eq!(snapshot(&theirs), before, "case {case}: {error}");
    }
    assert!(decrypt(&mut theirs, &message).is_ok());
}

#[test]
fn a_malformed_skdm_is_refused_and_changes_nothing() {
    let (_, theirs) = pair(1);
    let skdm = SenderKeyRecord::create(&mut rng(2)).distribution().unwrap();
    for len in 0..skdm.len() {
        let mut reader = theirs.clone();
        assert!(reader.process_distribution(&skdm[..len]).is_err(), "length {len}");
        assert_eq!(snapshot(&reader), snapshot(&theirs));
    }
    for bit in 0..skdm.len() * 8 {
        let mut changed = skdm.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let _ = theirs.clone().process_distribution(&changed);
    }
}

#[test]
fn a_damaged_or_newer_record_is_a_typed_error() {
    let (mut own, _) = pair(1);
    let stored = own.encode();
    for len in 0..stored.len() {
        // A cut right behind the version leaves an empty record.
        if let Err(error) = SenderKeyRecord::decode(&stored[..len]) {
            assert_eq!(error, SignalError::DamagedRecord);
        }
    }
    for bit in 0..stored.len() * 8 {
        let mut changed = stored.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let _ = SenderKeyRecord::decode(&changed);
    }
    let mut newer = stored;
    newer[1] = 2;
    assert!(matches!(SenderKeyRecord::decode(&newer), Err(SignalError::UnknownRecordVersion(2))));
}
