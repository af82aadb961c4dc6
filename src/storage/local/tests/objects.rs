//! What the object store needs to know: marks of changes, parts of days, take-over, expiry.

use super::*;

const DAY_S: u64 = 86_400;
const MONDAY: u64 = 20_000 * DAY_S;

fn messages(range: std::ops::Range<u64>, second: u64) -> Vec<Write> {
    let message = |number| Write::Message(Box::new(message("62811", &format!("M{number}"), second)));
    range.map(message).collect()
}

fn part(day: i64, part: i64) -> DayPart {
    DayPart { day, part }
}

/// Marks of a session as text, sorted.
fn marks(store: &LocalStore, session: SessionKey) -> Vec<String> {
    let snapshot = store.begin_upload(session).unwrap();
    let mut marks: Vec<String> =
        snapshot.marks().iter().map(|mark| format!("{:?}", mark.changed().unwrap())).collect();
    marks.sort();
    marks
}

/// As if everything had been uploaded.
fn upload(store: &LocalStore, session: SessionKey) {
    let marks = store.begin_upload(session).unwrap().marks().to_vec();
    store.uploaded(session, marks, 0).unwrap();
}

fn sizes(store: &LocalStore, session: SessionKey, day: i64) -> Vec<usize> {
    let snapshot = store.begin_upload(session).unwrap();
    (1..).map(|number| snapshot.part(part(day, number)).unwrap().len()).take_while(|size| *size > 0).collect()
}

fn total(store: &LocalStore, session: SessionKey) -> u64 {
    let filter = MessageFilter { chat: None, before: None, after: None, limit: 1, offset: 0 };
    store.messages(session, &filter).unwrap().total
}

#[test]
fn changes_are_marked_once_until_they_are_uploaded() {
    let (_dir, store) = open();
    let a = session(&store, "a");
    assert_eq!(marks(&store, a), ["Session"], "a new session is a change");
    upload(&store, a);
    for value in [b"1", b"2"] {
        write(&store, a, vec![put("62811.0", value), Write::Delete(Table::Identity, "62811.0".into())])
            .unwrap();
    }
    write(&store, a, messages(0..1, MONDAY)).unwrap();
    let wanted = [
        "Part(DayPart { day: 20000, part: 1 })",
        "State(Identity, \"62811.0\")",
        "State(Session, \"62811.0\")",
    ];
    assert_eq!(marks(&store, a), wanted);
    assert_eq!(store.dirty_count().unwrap(), 3);
    assert_eq!(store.dirty_sessions().unwrap().iter().map(|(key, _)| *key).collect::<Vec<_>>(), [a]);
    upload(&store, a);
    readable(&store);
    assert!(store.dirty_sessions().unwrap().is_empty());
}

#[test]
fn a_change_during_an_upload_keeps_its_mark() {
    let (_dir, store) = open();
    let a = session(&store, "a");
    upload(&store, a);
    write(&store, a, vec![put("1.0", b"old"), put("2.0", b"x")]).unwrap();
    let read = store.begin_upload(a).unwrap().marks().to_vec();
    write(&store, a, vec![put("1.0", b"new")]).unwrap();
    store.uploaded(a, read, 0).unwrap();
    assert_eq!(marks(&store, a), ["State(Session, \"1.0\")"]);
    upload(&store, a);
    assert!(marks(&store, a).is_empty());
}

#[test]
fn a_change_between_the_marks_and_what_is_read_does_not_hide_the_next_one() {
    let (_dir, store) = open();
    let a = session(&store, "a");
    upload(&store, a);
    write(&store, a, messages(0..1, MONDAY)).unwrap();
    let begun = store.collect_marks(a).unwrap();
    write(&store, a, messages(1..2, MONDAY)).unwrap();
    let snapshot = store.snapshot(a, begun).unwrap();
    assert_eq!(snapshot.part(part(20_000, 1)).unwrap().len(), 2, "what is read may be newer than the mark");
    let read = snapshot.marks().to_vec();
    drop(snapshot);
    write(&store, a, messages(2..3, MONDAY)).unwrap();
    store.uploaded(a, read, 0).unwrap();
    assert_eq!(
        marks(&store, a),
        ["Part(DayPart { day: 20000, part: 1 })"],
        "the third message is not uploaded"
    );
}

#[test]
fn another_object_store_lacks_everything_and_the_same_one_nothing() {
    let (_dir, store) = open();
    assert!(!store.set_home("/here").unwrap(), "there is nothing yet");
    let (a, b) = (session(&store, "a"), session(&store, "b"));
    write(&store, a, vec![put("1.0", b"x"), put("2.0", b"y")]).unwrap();
    write(&store, b, messages(0..250, MONDAY)).unwrap();
    for session in [a, b] {
        upload(&store, session);
    }
    assert!(!store.set_home("/here").unwrap());
    assert_eq!([marks(&store, a), marks(&store, b)], [vec![], Vec::<String>::new()]);
    assert!(store.set_home("http://there/bucket").unwrap());
    assert_eq!(marks(&store, a), ["Session", "State(Session, \"1.0\")", "State(Session, \"2.0\")"]);
    let parts = [1, 2].map(|number| format!("Part({:?})", part(20_000, number)));
    assert_eq!(marks(&store, b), [parts[0].as_str(), parts[1].as_str(), "Session"]);
}

#[test]
fn an_upload_sees_what_was_durable_before_it_although_sqlite_commits_later() {
    let (_dir, store) = open();
    let a = session(&store, "a");
    let (acks, listener) = Acks::new();
    for number in 0..200 {
        let value = u64::to_be_bytes(number);
        store.submit(a, Batch { number, writes: vec![put("n", &value)] }, &listener).unwrap();
        acks.wait_for(usize::try_from(number).unwrap() + 1);
        let snapshot = store.begin_upload(a).unwrap();
        assert_eq!(snapshot.get(Table::Session, "n").unwrap().unwrap(), value);
    }
}

#[test]
fn a_day_is_cut_into_parts_that_stay_bounded_whatever_order_messages_come_in() {
    let (dir, store) = open();
    let a = session(&store, "a");
    for hour in 0..9u64 {
        // Later messages first, as a history sync brings them.
        write(&store, a, messages(hour * 50..hour * 50 + 50, MONDAY + (9 - hour) * 3600)).unwrap();
    }
    assert_eq!(sizes(&store, a, 20_000), [200, 200, 50]);
    upload(&store, a);
    write(&store, a, messages(450..451, MONDAY)).unwrap();
    assert_eq!(
        marks(&store, a),
        ["Part(DayPart { day: 20000, part: 3 })"],
        "only the open part is written anew"
    );
    let status = Write::Status {
        chat: Jid::pn("62811"),
        id: "M3".into(),
        status: MessageStatus::Read,
        participant: None,
        timestamp: MONDAY,
        error: None,
    };
    write(&store, a, vec![status.clone()]).unwrap();
    assert_eq!(marks(&store, a).len(), 1, "a message of somebody else has no status");
    let mut ours = message("62811", "OURS", MONDAY);
    (ours.from_me, ours.status) = (true, MessageStatus::Sent);
    write(&store, a, vec![Write::Message(Box::new(ours))]).unwrap();
    upload(&store, a);
    let Write::Status { chat, participant, timestamp, error, .. } = status else { panic!("a status") };
    let delivered = MessageStatus::Delivered;
    let status = Write::Status { chat, id: "OURS".into(), status: delivered, participant, timestamp, error };
    write(&store, a, vec![status]).unwrap();
    assert_eq!(marks(&store, a), ["Part(DayPart { day: 20000, part: 3 })"]);
    drop(store);
    let store = LocalStore::open(dir.path()).unwrap();
    write(&store, a, messages(500..501, MONDAY)).unwrap();
    assert_eq!(sizes(&store, a, 20_000), [200, 200, 53], "a restart goes on in the open part");
}

#[test]
fn parts_are_counted_the_same_when_the_journal_is_replayed() {
    let (dir, store) = open();
    let a = session(&store, "a");
    write(&store, a, messages(0..150, MONDAY)).unwrap();
    let (acks, listener) = Acks::new();
    let mut copied = None;
    // A copy of the files between a group and SQLite's commit is what a crash leaves.
    for number in 0..40 {
        let first = 150 + number * 10;
        let batch = Batch { number, writes: messages(first..first + 10, MONDAY) };
        store.submit(a, batch, &listener).unwrap();
        acks.wait_for(usize::try_from(number).unwrap() + 1);
        let copy = tempfile::tempdir().unwrap();
        for file in ["worker.db", "worker.db-wal", "worker.journal"] {
            std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
        }
        copied = Some((copy, 160 + number * 10));
    }
    let (copy, count) = copied.unwrap();
    let store = LocalStore::open(copy.path()).unwrap();
    assert_eq!(total(&store, a), count);
    assert_eq!(sizes(&store, a, 20_000), [200, 200, 150]);
    write(&store, a, messages(900..960, MONDAY)).unwrap();
    assert_eq!(sizes(&store, a, 20_000), [200, 200, 200, 10]);
}

#[test]
fn a_take_over_files_the_buckets_parts_and_adds_what_only_we_had() {
    let (dir, store) = open();
    let a = session(&store, "a");
    write(&store, a, messages(0..5, MONDAY)).unwrap();
    upload(&store, a);
    store.unfile_messages(a).unwrap();
    store.reserve_parts(a, vec![part(19_999, 1), part(20_000, 1)]).unwrap();
    assert_eq!(store.reserved_parts(a).unwrap(), [part(19_999, 1), part(20_000, 1)]);
    // Comes before the bucket's parts are here.
    write(&store, a, messages(100..101, MONDAY + 7)).unwrap();
    assert_eq!(
        marks(&store, a),
        ["Part(DayPart { day: 20000, part: 2 })"],
        "reserved names are not written to"
    );
    let stored = |number: u64, second| StoredMessage {
        record: message("62811", &format!("M{number}"), second),
        times: StatusTimes::default(),
        error: None,
    };
    let monday = (3..8).map(|number| stored(number, MONDAY)).collect();
    store.file_part(a, part(20_000, 1), monday).unwrap();
    store.file_part(a, part(19_999, 1), vec![stored(50, MONDAY - 1)]).unwrap();
    assert!(store.reserved_parts(a).unwrap().is_empty());
    store.refile_messages(a).unwrap();
    assert_eq!(total(&store, a), 10, "M0 to M7, M50 and M100");
    assert_eq!(sizes(&store, a, 19_999), [1]);
    assert_eq!(sizes(&store, a, 20_000), [5, 4], "what the bucket lacked is in a part that will be written");
    assert_eq!(marks(&store, a), ["Part(DayPart { day: 20000, part: 2 })"]);
    drop(store);
    let store = LocalStore::open(dir.path()).unwrap();
    assert_eq!((sizes(&store, a, 20_000), total(&store, a)), (vec![5, 4], 10));
}

#[test]
fn messages_of_old_days_expire_with_their_counts_and_parts() {
    let (_dir, store) = open();
    let (a, b) = (session(&store, "a"), session(&store, "b"));
    for key in [a, b] {
        write(&store, key, messages(0..2_500, MONDAY)).unwrap();
        write(&store, key, messages(3_000..3_010, MONDAY + DAY_S)).unwrap();
        upload(&store, key);
    }
    store.expire_messages(a, MONDAY + DAY_S + 5).unwrap();
    assert_eq!((total(&store, a), total(&store, b)), (10, 2_510));
    let chat = MessageFilter { chat: Some(Jid::pn("62811")), before: None, after: None, limit: 1, offset: 0 };
    assert_eq!(store.messages(a, &chat).unwrap().total, 10);
    assert!(sizes(&store, a, 20_000).is_empty());
    assert_eq!(sizes(&store, a, 20_001), [10]);
    assert_eq!(marks(&store, a).len(), 13, "each part that is gone is to be removed");
    assert!(marks(&store, b).is_empty());
}

#[test]
fn a_deleted_sessions_id_is_taken_until_its_objects_are_gone() {
    let (dir, store) = open();
    let a = session(&store, "a");
    store.delete_session_and_objects(a).unwrap();
    assert_eq!(store.create_session("a", "user-1", None).unwrap(), None);
    drop(store);
    let store = LocalStore::open(dir.path()).unwrap();
    assert_eq!(store.removals().unwrap(), ["a"]);
    store.removed("a").unwrap();
    assert!(store.create_session("a", "user-1", None).unwrap().is_some());
}
