use std::collections::HashSet;

use super::*;
use crate::whatsapp::signal::{
    limits::{MAX_FORWARD_JUMP, SEND_RESERVATION},
    testing::{Party, established, rng},
};

fn inner(message: &Encrypted) -> ([u8; 32], u32) {
    let read = |message: &SignalMessage<'_>| (message.ratchet_key.0, message.counter);
    match message.kind {
        CiphertextKind::Msg => read(&SignalMessage::parse(&message.bytes).unwrap()),
        CiphertextKind::PkMsg => read(&PreKeySignalMessage::parse(&message.bytes).unwrap().message),
    }
}

#[test]
fn the_first_message_sets_up_the_session_and_names_the_used_prekey() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(Some(7))).unwrap();
    assert!(alice.record.has_session());
    assert_eq!(alice.record.remote_identity(), Some(bob.identity.public));
    assert_eq!(alice.record.remote_registration_id(), Some(bob.registration_id));

    let message = alice.encrypt(b"hello").unwrap();
    assert_eq!(message.kind, CiphertextKind::PkMsg);
    assert!(message.must_persist);
    let read = bob.decrypt(&message).unwrap();
    assert_eq!(read.plaintext, b"hello");
    assert_eq!(read.used_prekey, Some(7));
    assert_eq!(read.identity, alice.identity.public);
    assert!(read.new_session && read.must_persist);
    assert_eq!(bob.record.base_key(), alice.record.base_key());
    assert_eq!(bob.record.remote_registration_id(), Some(alice.registration_id));
}

#[test]
fn a_bundle_without_a_one_time_prekey_works_too() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(None)).unwrap();
    let message = alice.encrypt(b"hello").unwrap();
    let read = bob.decrypt(&message).unwrap();
    assert_eq!((read.plaintext.as_slice(), read.used_prekey), (&b"hello"[..], None));
}

#[test]
fn the_set_up_is_repeated_until_the_first_answer_was_read() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(Some(1))).unwrap();
    let messages: Vec<_> = (0..3u8).map(|n| alice.encrypt(&[n]).unwrap()).collect();
    assert!(messages.iter().all(|message| message.kind == CiphertextKind::PkMsg));
    // In any order, and with the one-time prekey gone after the first.
    for n in [2u8, 0, 1] {
        let read = bob.decrypt(&messages[usize::from(n)]).unwrap();
        assert_eq!(read.plaintext, [n]);
        assert_eq!(read.new_session, n == 2);
    }
    let answer = bob.encrypt(b"answer").unwrap();
    assert_eq!(answer.kind, CiphertextKind::Msg);
    assert!(alice.decrypt(&answer).unwrap().must_persist);
    assert_eq!(alice.encrypt(b"on").unwrap().kind, CiphertextKind::Msg);
}

#[test]
fn a_repeated_set_up_message_is_a_duplicate_and_changes_nothing() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(Some(1))).unwrap();
    let message = alice.encrypt(b"once").unwrap();
    bob.decrypt(&message).unwrap();
    let before = bob.snapshot();
    assert_eq!(bob.decrypt(&message).unwrap_err(), SignalError::Duplicate);
    assert_eq!(bob.snapshot(), before);
}

#[test]
fn unknown_prekeys_are_named() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(Some(1))).unwrap();
    let message = alice.encrypt(b"x").unwrap();
    bob.prekeys.remove(&1);
    assert_eq!(bob.decrypt(&message).unwrap_err(), SignalError::InvalidPreKeyId);
    bob.signed.id = 9;
    assert_eq!(bob.decrypt(&message).unwrap_err(), SignalError::InvalidSignedPreKeyId);
    assert!(!bob.record.has_session());
}

#[test]
fn a_bundle_with_a_wrong_signature_or_a_low_order_key_is_refused() {
    let (mut alice, bob) = (Party::new(1), Party::new(2));
    let mut bundle = bob.bundle(Some(1));
    bundle.signed_prekey_signature[3] ^= 1;
    assert_eq!(alice.start(&bundle), Err(SignalError::BadSignature));
    let mut bundle = bob.bundle(Some(1));
    bundle.identity = alice.identity.public;
    assert_eq!(alice.start(&bundle), Err(SignalError::BadSignature));
    let mut bundle = bob.bundle(Some(1));
    bundle.prekey = Some((1, PublicKey([0; 32])));
    assert_eq!(alice.start(&bundle), Err(SignalError::InvalidKey));
    assert!(!alice.record.has_session());
}

#[test]
fn messages_may_be_skipped_and_arrive_late_over_several_ratchet_turns() {
    let (mut alice, mut bob) = established();
    let mut late = Vec::new();
    for turn in 0..4u8 {
        let messages: Vec<_> = (0..4u8).map(|n| alice.encrypt(&[turn, n]).unwrap()).collect();
        assert_eq!(bob.decrypt(&messages[3]).unwrap().plaintext, [turn, 3]);
        assert_eq!(bob.decrypt(&messages[1]).unwrap().plaintext, [turn, 1]);
        late.push(([turn, 0], messages[0].clone()));
        late.push(([turn, 2], messages[2].clone()));
        let answer = bob.encrypt(&[turn]).unwrap();
        assert_eq!(alice.decrypt(&answer).unwrap().plaintext, [turn]);
    }
    for (plaintext, message) in late.iter().rev() {
        assert_eq!(bob.decrypt(message).unwrap().plaintext, plaintext);
        assert_eq!(bob.decrypt(message).unwrap_err(), SignalError::Duplicate);
    }
}

#[test]
fn the_oldest_receiving_chain_is_given_up_after_five_turns() {
    let (mut alice, mut bob) = established();
    let early = alice.encrypt(b"early").unwrap();
    for turn in 0..6u8 {
        let message = alice.encrypt(&[turn]).unwrap();
        bob.decrypt(&message).unwrap();
        let answer = bob.encrypt(&[turn]).unwrap();
        alice.decrypt(&answer).unwrap();
    }
    assert_eq!(bob.decrypt(&early).unwrap_err(), SignalError::BadMac);
}

#[test]
fn a_jump_of_the_limit_is_followed_and_one_more_is_refused() {
    let (mut alice, mut bob) = established();
    for n in 0..=1 {
        let mut alice = alice.clone();
        let mut bob = bob.clone();
        for _ in 0..MAX_FORWARD_JUMP + n {
            alice.encrypt(b"lost").unwrap();
        }
        let message = alice.encrypt(b"far").unwrap();
        let read = bob.decrypt(&message).map(|read| read.plaintext);
        let expected = if n == 0 { Ok(b"far".to_vec()) } else { Err(SignalError::TooFarAhead) };
        assert_eq!(read, expected);
    }
    let next = alice.encrypt(b"next").unwrap();
    assert_eq!(bob.decrypt(&next).unwrap().plaintext, b"next");
}

#[test]
fn a_new_session_archives_the_old_one_which_still_decrypts_and_becomes_current_again() {
    let (mut alice, mut bob) = established();
    let old_base = alice.record.base_key();
    let late = alice.encrypt(b"late").unwrap();
    alice.start(&bob.bundle(Some(2))).unwrap();
    let message = alice.encrypt(b"new session").unwrap();
    assert_eq!(message.kind, CiphertextKind::PkMsg);
    assert!(bob.decrypt(&message).unwrap().new_session);
    assert_ne!(bob.record.base_key(), old_base);

    let read = bob.decrypt(&late).unwrap();
    assert_eq!(read.plaintext, b"late");
    assert!(read.must_persist && !read.new_session);
    assert_eq!(bob.record.base_key(), old_base);
    // What Bob now sends in the old session, Alice reads in the old session.
    let answer = bob.encrypt(b"answer").unwrap();
    assert_eq!(alice.decrypt(&answer).unwrap().plaintext, b"answer");
    assert_eq!(alice.record.base_key(), old_base);
}

#[test]
fn both_may_start_at_the_same_time() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(Some(1))).unwrap();
    bob.start(&alice.bundle(Some(1))).unwrap();
    let from_alice = alice.encrypt(b"a1").unwrap();
    let from_bob = bob.encrypt(b"b1").unwrap();
    assert_eq!(bob.decrypt(&from_alice).unwrap().plaintext, b"a1");
    assert_eq!(alice.decrypt(&from_bob).unwrap().plaintext, b"b1");
    for n in 0..5u8 {
        let (from_alice, from_bob) = (alice.encrypt(&[n]).unwrap(), bob.encrypt(&[n]).unwrap());
        assert_eq!(bob.decrypt(&from_alice).unwrap().plaintext, [n]);
        assert_eq!(alice.decrypt(&from_bob).unwrap().plaintext, [n]);
    }
    let last = alice.encrypt(b"settled").unwrap();
    assert_eq!(last.kind, CiphertextKind::Msg);
    assert_eq!(bob.decrypt(&last).unwrap().plaintext, b"settled");
}

#[test]
fn a_peer_with_a_new_identity_is_reported_and_answered_in_the_new_session() {
    let (alice, mut bob) = established();
    let mut reinstalled = Party::new(3);
    reinstalled.start(&bob.bundle(Some(2))).unwrap();
    let message = reinstalled.encrypt(b"new phone").unwrap();
    let read = bob.decrypt(&message).unwrap();
    assert_ne!(read.identity, alice.identity.public);
    assert_eq!(bob.record.remote_identity(), Some(reinstalled.identity.public));
    let answer = bob.encrypt(b"hi").unwrap();
    assert_eq!(reinstalled.decrypt(&answer).unwrap().plaintext, b"hi");
}

#[test]
fn a_known_set_up_with_another_identity_is_refused() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(Some(1))).unwrap();
    let first = alice.encrypt(b"1").unwrap();
    bob.decrypt(&first).unwrap();
    let mut second = alice.encrypt(b"2").unwrap();
    let at = second.bytes.windows(32).position(|part| part == alice.identity.public.0).unwrap();
    second.bytes[at..at + 32].copy_from_slice(&Party::new(3).identity.public.0);
    assert_eq!(bob.decrypt(&second).unwrap_err(), SignalError::InvalidMessage);
}

#[test]
fn at_most_forty_sessions_are_archived() {
    let (mut alice, bob) = established();
    for _ in 0..45 {
        alice.start(&bob.bundle(Some(2))).unwrap();
    }
    assert_eq!(alice.record.archived.len(), MAX_ARCHIVED_STATES);
    let decoded = SessionRecord::decode(&alice.record.encode()).unwrap();
    assert_eq!(decoded.archived.len(), MAX_ARCHIVED_STATES);
}

#[test]
fn an_archived_session_is_not_encrypted_with() {
    let (mut alice, mut bob) = established();
    let late = bob.encrypt(b"late").unwrap();
    alice.record.archive();
    assert!(!alice.record.has_session());
    assert_eq!(alice.encrypt(b"x").unwrap_err(), SignalError::NoSession);
    assert_eq!(alice.decrypt(&late).unwrap().plaintext, b"late");
    assert!(alice.record.has_session());
}

#[test]
fn an_empty_record_has_no_session_and_round_trips() {
    let mut empty = SessionRecord::default();
    let mut decoded = SessionRecord::decode(&empty.encode()).unwrap();
    let party = Party::new(1);
    let local = LocalIdentity { registration_id: 1, pair: &party.identity };
    assert_eq!(decoded.encrypt(&local, b"x").unwrap_err(), SignalError::NoSession);
    let (mut alice, _) = established();
    let message = alice.encrypt(b"x").unwrap();
    let error = decoded.decrypt_msg(&local, &message.bytes, &mut rng(5)).unwrap_err();
    assert_eq!(error, SignalError::NoSession);
}

#[test]
fn a_record_round_trips_with_skipped_keys_archived_sessions_and_a_pending_prekey() {
    let (mut alice, mut bob) = established();
    let messages: Vec<_> = (0..10u8).map(|n| alice.encrypt(&[n]).unwrap()).collect();
    bob.decrypt(&messages[9]).unwrap();
    bob.start(&alice.bundle(Some(3))).unwrap();
    let clean = bob.record.encode_clean();
    bob.record = SessionRecord::decode(&clean).unwrap();
    assert_eq!(bob.record.encode_clean(), clean);
    let pending = bob.encrypt(b"p").unwrap();
    assert_eq!((pending.kind, inner(&pending).1), (CiphertextKind::PkMsg, 0));
    for (n, message) in messages.iter().enumerate().take(9) {
        assert_eq!(bob.decrypt(message).unwrap().plaintext, [n as u8]);
    }
}

#[test]
fn an_ordinary_chat_is_written_once_per_reservation() {
    let (mut alice, mut bob) = established();
    let _ = (alice.record.encode(), bob.record.encode());
    let mut writes = 0;
    for n in 0..SEND_RESERVATION * 3 {
        let message = alice.encrypt(b"x").unwrap();
        if message.must_persist {
            writes += 1;
            let _ = alice.record.encode();
        }
        // The message at the bound itself is followed by 64 covered ones.
        let at_bound = n % (SEND_RESERVATION + 1) == SEND_RESERVATION;
        assert_eq!(message.must_persist, at_bound, "message {n}");
    }
    assert_eq!(writes, 2);
}

#[test]
fn receiving_asks_to_be_written_every_32_messages() {
    let (mut alice, mut bob) = established();
    let _ = bob.record.encode();
    let first = alice.encrypt(b"turn").unwrap();
    assert!(bob.decrypt(&first).unwrap().must_persist, "a ratchet turn is written at once");
    let _ = bob.record.encode();
    for n in 1..=3 * RECEIVES_PER_PERSIST {
        let message = alice.encrypt(b"x").unwrap();
        let must_persist = bob.decrypt(&message).unwrap().must_persist;
        assert_eq!(must_persist, n % RECEIVES_PER_PERSIST == 0, "message {n}");
        if must_persist {
            let _ = bob.record.encode();
        }
    }
}

#[test]
fn a_message_after_an_unwritten_change_is_written_first_even_when_its_counter_is_reserved() {
    let (mut alice, mut bob) = established();
    // On the chain Bob knows already, so that his sending chain stays the same.
    let first = alice.encrypt(b"turn").unwrap();
    bob.decrypt(&first).unwrap();
    let _ = bob.record.encode();
    assert!(!bob.encrypt(b"reserved").unwrap().must_persist);
    let late = alice.encrypt(b"late").unwrap();
    alice.start(&bob.bundle(Some(2))).unwrap();
    let set_up = alice.encrypt(b"new").unwrap();
    bob.decrypt(&set_up).unwrap();
    bob.decrypt(&late).unwrap();
    assert!(bob.encrypt(b"reserved, but the record changed").unwrap().must_persist);
}

/// Sends `count` messages as the engine does: what must be durable is, before the message leaves.
fn send(alice: &mut Party, durable: &mut Vec<u8>, count: u32) -> Vec<Encrypted> {
    (0..count)
        .map(|_| {
            let message = alice.encrypt(b"x").unwrap();
            if message.must_persist {
                *durable = alice.record.encode();
            }
            message
        })
        .collect()
}

#[test]
fn no_counter_is_used_twice_wherever_the_sender_crashes() {
    for before in 0..=2 * SEND_RESERVATION + 1 {
        let (mut alice, mut bob) = established();
        let mut durable = alice.record.encode();
        let mut sent = send(&mut alice, &mut durable, before);
        for after in [1, 0, 3] {
            alice.record = SessionRecord::decode(&durable).unwrap();
            sent.extend(send(&mut alice, &mut durable, after));
        }
        let used: HashSet<_> = sent.iter().map(inner).collect();
        assert_eq!(used.len(), sent.len(), "crash after {before} messages");
        for message in &sent {
            assert_eq!(bob.decrypt(message).unwrap().plaintext, b"x");
        }
    }
}

#[test]
fn a_crash_around_the_first_message_of_a_session_reuses_nothing() {
    let (mut alice, bob) = (Party::new(1), Party::new(2));
    let mut durable = alice.record.encode();
    alice.start(&bob.bundle(Some(1))).unwrap();
    let first = alice.encrypt(b"never left").unwrap();
    assert!(first.must_persist);
    // Crash before the write: the session never was.
    alice.record = SessionRecord::decode(&durable).unwrap();
    assert!(!alice.record.has_session());
    alice.start(&bob.bundle(Some(1))).unwrap();
    let mut sent = send(&mut alice, &mut durable, 2);
    alice.record = SessionRecord::decode(&durable).unwrap();
    sent.extend(send(&mut alice, &mut durable, 2));
    sent.push(first);
    assert_eq!(sent.iter().map(inner).collect::<HashSet<_>>().len(), 5);
}

#[test]
fn a_session_that_becomes_current_again_is_written_before_it_is_sent_on() {
    let (mut alice, mut bob) = established();
    let mut durable = bob.record.encode();
    let mut sent = send(&mut bob, &mut durable, 10);
    let late = alice.encrypt(b"late").unwrap();
    alice.start(&bob.bundle(Some(2))).unwrap();
    let set_up = alice.encrypt(b"new").unwrap();
    bob.decrypt(&set_up).unwrap();
    durable = bob.record.encode();
    let read = bob.decrypt(&late).unwrap();
    assert!(read.must_persist);
    // The write of the promotion is lost together with everything after it, or kept: both are safe.
    let mut kept = bob.clone();
    let mut kept_durable = kept.record.encode();
    let mut kept_sent = sent.clone();
    kept_sent.extend(send(&mut kept, &mut kept_durable, 5));
    kept.record = SessionRecord::decode(&kept_durable).unwrap();
    kept_sent.extend(send(&mut kept, &mut kept_durable, 5));
    assert_eq!(kept_sent.iter().map(inner).collect::<HashSet<_>>().len(), 20);

    bob.record = SessionRecord::decode(&durable).unwrap();
    bob.decrypt(&late).unwrap();
    sent.extend(send(&mut bob, &mut durable, 5));
    assert_eq!(sent.iter().map(inner).collect::<HashSet<_>>().len(), 15);
}

#[test]
fn a_clean_stop_skips_nothing_and_the_next_message_is_written_first() {
    let (mut alice, _) = established();
    let _ = alice.record.encode();
    let last = inner(&alice.encrypt(b"x").unwrap());
    alice.record = SessionRecord::decode(&alice.record.encode_clean()).unwrap();
    let next = alice.encrypt(b"x").unwrap();
    assert_eq!(inner(&next), (last.0, last.1 + 1));
    assert!(next.must_persist);
}

#[test]
fn a_damaged_or_newer_record_is_a_typed_error() {
    let (mut alice, bob) = established();
    alice.start(&bob.bundle(Some(2))).unwrap();
    let stored = alice.record.encode();
    for len in 0..stored.len() {
        // A cut between two fields leaves a shorter record; everything else is noticed.
        if let Err(error) = SessionRecord::decode(&stored[..len]) {
            assert_eq!(error, SignalError::DamagedRecord);
        }
    }
    for bit in 0..stored.len() * 8 {
        let mut changed = stored.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let _ = SessionRecord::decode(&changed);
    }
    let mut newer = stored;
    newer[1] = 2;
    assert!(matches!(SessionRecord::decode(&newer), Err(SignalError::UnknownRecordVersion(2))));
    assert!(matches!(SessionRecord::decode(&[]), Err(SignalError::DamagedRecord)));
}

#[test]
fn every_truncation_and_bit_flip_is_refused_and_changes_nothing() {
    let (mut alice, mut bob) = established();
    alice.encrypt(b"skipped").unwrap();
    let message = alice.encrypt(b"a message of more than one block").unwrap();
    assert_refused(&mut bob, &message, |_| false);

    // A turn of the ratchet, too.
    let read = bob.decrypt(&message).unwrap();
    assert_eq!(read.plaintext, b"a message of more than one block");
    let answer = bob.encrypt(b"answer").unwrap();
    assert_refused(&mut alice, &answer, |_| false);
    assert_eq!(alice.decrypt(&answer).unwrap().plaintext, b"answer");
}

#[test]
fn every_truncation_and_bit_flip_of_a_set_up_is_refused_or_harmless() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.start(&bob.bundle(Some(1))).unwrap();
    let message = alice.encrypt(b"hello").unwrap();
    // The set-up has no MAC of its own. What can be changed unseen is only the sender's registration id.
    let registration_id = u64::from(alice.registration_id);
    assert_refused(&mut bob, &message, |read| {
        read.record.remote_registration_id().map(u64::from) != Some(registration_id)
            && read.record.remote_identity() == Some(alice.identity.public)
    });
    assert_eq!(bob.decrypt(&message).unwrap().plaintext, b"hello");
}

fn assert_refused(party: &mut Party, message: &Encrypted, harmless: impl Fn(&Party) -> bool) {
    let before = party.snapshot();
    let bytes = &message.bytes;
    let truncated = (0..bytes.len()).map(|len| bytes[..len].to_vec());
    let flipped = (0..bytes.len() * 8).map(|bit| {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    });
    for (index, changed) in truncated.chain(flipped).enumerate() {
        let mut reader = party.clone();
        match reader.decrypt_bytes(message.kind, &changed) {
            Err(error) => {
                assert_ne!(error, SignalError::DamagedRecord);
                assert_eq!(reader.snapshot(), before, "case {index}: {error}");
            }
            // The low half of the version byte of a `pkmsg` means nothing.
            Ok(_) if message.kind == CiphertextKind::PkMsg && changed[1..] == bytes[1..] => {}
            Ok(_) => assert!(harmless(&reader), "case {index} was accepted"),
        }
    }
}

#[test]
fn the_debug_form_shows_neither_plaintext_nor_keys() {
    let (mut alice, mut bob) = established();
    let message = alice.encrypt(b"AAAAAAAA").unwrap();
    let read = bob.decrypt(&message).unwrap();
    assert_eq!(read.plaintext, b"AAAAAAAA");
    let shown = format!("{read:?} {:?} {:?}", alice.identity, alice.signed);
    assert!(!shown.contains("65, 65"), "{shown}");
    assert!(shown.contains("PrivateKey(..)") && shown.contains("PublicKey(..)"), "{shown}");
}
