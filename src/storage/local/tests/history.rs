//! Message history: pages, totals, progress.

use super::*;

fn filter() -> MessageFilter {
    MessageFilter { chat: None, before: None, after: None, limit: 10, offset: 0 }
}

fn ids(page: &MessagePage) -> Vec<&str> {
    page.messages.iter().map(|message| message.record.id.as_str()).collect()
}

fn store_with(messages: Vec<MessageRecord>) -> (tempfile::TempDir, LocalStore, SessionKey) {
    let (dir, store) = open();
    let key = session(&store, "a");
    let writes = messages.into_iter().map(|message| Write::Message(Box::new(message))).collect();
    write(&store, key, writes).unwrap();
    (dir, store, key)
}

#[test]
fn pages_are_newest_first_with_the_total_of_the_filter() {
    let chats = ["6281200000001", "6281200000002"];
    let all =
        (0..25u64).map(|n| message(chats[(n % 2) as usize], &format!("M{n:02}"), 1000 + n / 5)).collect();
    let (_dir, store, key) = store_with(all);
    let page = store.messages(key, &MessageFilter { limit: 3, ..filter() }).unwrap();
    assert_eq!((ids(&page), page.total), (vec!["M24", "M23", "M22"], 25));
    let page = store.messages(key, &MessageFilter { limit: 3, offset: 23, ..filter() }).unwrap();
    assert_eq!((ids(&page), page.total), (vec!["M01", "M00"], 25));
    let chat = Some(Jid::pn(chats[1]));
    let page = store.messages(key, &MessageFilter { chat: chat.clone(), limit: 2, ..filter() }).unwrap();
    assert_eq!((ids(&page), page.total), (vec!["M23", "M21"], 12));
    let page =
        store.messages(key, &MessageFilter { after: Some(1001), before: Some(1003), ..filter() }).unwrap();
    assert_eq!((ids(&page).len(), ids(&page)[0], page.total), (5, "M14", 5));
    let page = store.messages(key, &MessageFilter { chat, before: Some(1001), ..filter() }).unwrap();
    assert_eq!((ids(&page), page.total), (vec!["M03", "M01"], 2));
    let nobody = MessageFilter { chat: Some(Jid::pn("6281200000009")), ..filter() };
    assert_eq!(store.messages(key, &nobody).unwrap(), MessagePage { messages: Vec::new(), total: 0 });
    let never = MessageFilter { before: Some(u64::MAX), after: Some(u64::MAX), ..filter() };
    assert_eq!(store.messages(key, &never).unwrap().total, 0);
    assert_eq!(store.message_count().unwrap(), 25);
}

#[test]
fn a_second_message_of_one_second_stays_behind_the_first_after_a_restart() {
    let (dir, store, key) = store_with(vec![message("6281200000001", "A", 50)]);
    drop(store);
    let store = LocalStore::open(dir.path()).unwrap();
    for (id, at) in [("B", 50), ("C", 49), ("D", 50)] {
        write(&store, key, vec![Write::Message(Box::new(message("6281200000001", id, at)))]).unwrap();
    }
    assert_eq!(ids(&store.messages(key, &filter()).unwrap()), ["D", "B", "A", "C"]);
}

#[test]
fn the_same_message_again_changes_nothing_and_counts_once() {
    let (_dir, store, key) = store_with(vec![message("6281200000001", "A", 50)]);
    let mut again = message("6281200000001", "A", 60);
    again.content = "forged".into();
    write(&store, key, vec![Write::Message(Box::new(again))]).unwrap();
    let page = store.messages(key, &filter()).unwrap();
    assert_eq!((page.messages.len(), page.total), (1, 1));
    assert_eq!(page.messages[0].record.content, "text of A");
}

#[test]
fn the_engine_finds_a_message_by_chat_id_and_sender() {
    let (_dir, store, key) = store_with(vec![message("6281200000001", "A", 50)]);
    let state = SessionStore::new(store, key);
    let (chat, other) = (Jid::pn("6281200000001"), Jid::pn("6281200000002"));
    assert_eq!(state.message(&chat, "A", None).unwrap().unwrap().raw, [1, 2, 3]);
    assert!(state.message(&chat, "A", Some(&chat.with_device(3))).unwrap().is_some());
    assert!(state.message(&chat, "A", Some(&other)).unwrap().is_none());
    assert!(state.message(&other, "A", None).unwrap().is_none());
    assert!(state.message(&chat, "B", None).unwrap().is_none());
}

fn progress(id: &str, status: MessageStatus, timestamp: u64) -> Write {
    Write::Status {
        chat: Jid::pn("6281200000001"),
        id: id.into(),
        status,
        participant: None,
        timestamp,
        error: (status == MessageStatus::Failed).then(|| "no device".into()),
    }
}

#[test]
fn a_status_never_moves_back_and_remembers_when_each_step_came_first() {
    use MessageStatus::{Delivered, Failed, Pending, Read, Sent};
    let mut outgoing = message("6281200000001", "A", 50);
    (outgoing.from_me, outgoing.status) = (true, Pending);
    let (_dir, store, key) = store_with(vec![outgoing, message("6281200000001", "IN", 51)]);
    let status_after = |writes: Vec<Write>| {
        write(&store, key, writes).unwrap();
        let message = store.message(key, "A").unwrap().unwrap();
        (message.record.status, message.error)
    };
    assert_eq!(status_after(vec![progress("A", Failed, 52)]), (Failed, Some("no device".into())));
    assert_eq!(status_after(vec![progress("A", Sent, 53)]), (Sent, None));
    assert_eq!(status_after(vec![progress("A", Read, 55)]), (Read, None));
    assert_eq!(status_after(vec![progress("A", Delivered, 56), progress("A", Read, 57)]), (Read, None));
    assert_eq!(status_after(vec![progress("A", Failed, 58)]), (Read, None));
    let times = store.message(key, "A").unwrap().unwrap().times;
    assert_eq!(
        times,
        StatusTimes {
            sent_s: Some(53),
            delivered_s: Some(56),
            read_s: Some(55),
            failed_s: Some(52),
            played_s: None
        }
    );
    // A peer cannot move the status of what it sent itself.
    write(&store, key, vec![progress("IN", Read, 60), progress("unknown", Read, 60)]).unwrap();
    assert_eq!(store.message(key, "IN").unwrap().unwrap().record.status, Delivered);
}
