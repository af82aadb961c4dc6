//! The same request twice is one message.
//!
//! A key comes from the header `Idempotency-Key`, or, within `SEND_DEDUPE_WINDOW`, from the body itself. The claim
//! of a key and the message id under it are durable before anything is sent, the answer before it is given, so a
//! repeated request gets the same answer for 24 hours, across restarts, and while the first is still under way.
//! An answer that was not the last word (202) is not repeated: the request learns what has become of its message.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use super::{
    Api,
    http::{Request, Response},
    respond::{Answer, ApiError},
    send::new_message_id,
    time,
};
use crate::{
    session::SessionHandle,
    storage::local::{Answer as StoredAnswer, Claim, IdempotencyRecord, SessionKey},
};

/// What makes two requests the same.
pub(super) struct Key {
    text: String,
    /// Claims older than this do not count; `None`: as long as the store keeps them.
    window: Option<Duration>,
}

/// Requests under way in this process, by session and key.
#[derive(Default)]
pub(super) struct InFlight {
    by_key: Mutex<HashMap<(SessionKey, String), Arc<UnderWay>>>,
}

/// Whether a request is over, for those who ask again meanwhile; its answer is in the store.
#[derive(Default)]
struct UnderWay {
    is_over: Mutex<bool>,
    changed: Condvar,
}

/// What came of claiming a key.
pub(super) enum Claimed<'a> {
    /// Somebody was first; this is what they got.
    Answered(Response),
    /// The key is ours: do it, then settle.
    Ours(OwnClaim<'a>),
}

/// A claimed key. Dropped without being settled (a panic), it stays claimed in the store, and whoever comes next
/// with the key finds the message id there.
pub(super) struct OwnClaim<'a> {
    api: &'a Api,
    session: SessionKey,
    key: String,
    message_id: String,
    is_retry: bool,
    under_way: Arc<UnderWay>,
}

/// The key of a request, if it has one.
///
/// # Errors
/// 400 for a header that is empty, too long or not visible ASCII.
pub(super) fn key_of(request: &Request, window: Duration) -> Result<Option<Key>, ApiError> {
    if let Some(text) = request.header("idempotency-key") {
        let is_valid =
            (1..=MAX_KEY_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        return if is_valid {
            Ok(Some(Key { text: format!("header:{text}"), window: None }))
        } else {
            Err(ApiError::field("Idempotency-Key", "must be 1 to 255 visible ASCII characters"))
        };
    }
    if window.is_zero() {
        return Ok(None);
    }
    let digest = request_hash(request);
    let hex = digest.iter().fold(String::from("body:"), |text, byte| text + &format!("{byte:02x}"));
    Ok(Some(Key { text: hex, window: Some(window) }))
}

/// Claims a key, or finds (waiting for it if need be) the answer of the request that had it first.
///
/// # Errors
/// 422 when the key was used for another request, 409 when the first is still under way after our patience,
/// store errors.
pub(super) fn claim<'a>(
    api: &'a Api,
    session: &SessionHandle,
    key: Key,
    request: &Request,
) -> Result<Claimed<'a>, ApiError> {
    let session = session.key();
    let hash = request_hash(request);
    loop {
        match api.in_flight.enter(session, &key.text) {
            // Once it is over, the next turn finds its answer in the store.
            Entered::Second(first) => {
                if !first.wait(api.settings.send_wait + PATIENCE) {
                    let message = "the first request with this key is still under way";
                    return Err(ApiError::new(409, "REQUEST_UNDER_WAY", message));
                }
            }
            Entered::First(under_way) => {
                let (key_text, message_id) = (key.text.clone(), new_message_id());
                let mut own =
                    OwnClaim { api, session, key: key_text, message_id, is_retry: false, under_way };
                return match own.look_up(&key, hash)? {
                    Some(answer) => Ok(Claimed::Answered(replay(&answer))),
                    None => Ok(Claimed::Ours(own)),
                };
            }
        }
    }
}

impl OwnClaim<'_> {
    /// The id the message must have.
    pub(super) fn message_id(&self) -> &str {
        &self.message_id
    }

    /// An earlier request had this key and message id, and its outcome is not known here.
    pub(super) fn is_retry(&self) -> bool {
        self.is_retry
    }

    /// Claims the key in the store; an answer given earlier, if there is one.
    fn look_up(&mut self, key: &Key, hash: [u8; 32]) -> Result<Option<StoredAnswer>, ApiError> {
        let store = self.api.store();
        loop {
            let record = match store.claim_idempotency(self.session, &key.text, hash, &self.message_id)? {
                Claim::New => return Ok(None),
                Claim::Existing(record) => record,
            };
            if key.window.is_some_and(|window| is_older(&record, window)) {
                store.release_idempotency(self.session, &key.text)?;
                continue;
            }
            if record.request_hash != hash {
                let message = "this Idempotency-Key was used for another request";
                return Err(ApiError::new(422, "IDEMPOTENCY_KEY_REUSED", message)
                    .with_detail("field", "Idempotency-Key"));
            }
            // Without an answer the worker died in the first try: the same message id is tried again.
            self.message_id = record.message_id;
            self.is_retry = true;
            return Ok(record.answer.filter(|answer| answer.status != UNDER_WAY));
        }
    }

    /// Makes the outcome durable and gives it. What failed before anything left gives the key back.
    pub(super) fn settle(self, outcome: Answer) -> Answer {
        let store = self.api.store();
        let (kept, response) = match outcome {
            Ok(response) => (true, response),
            Err(error) => (error.is_verdict(), error.into_response()),
        };
        if kept {
            let answer = StoredAnswer { status: response.status, body: response.body.clone() };
            if let Err(error) = store.answer_idempotency(self.session, &self.key, answer) {
                // The message left, so this is no error for the caller. A repetition finds the message by its id.
                log::error!("an answer could not be stored under its idempotency key: {error}");
            }
        } else if !self.is_retry {
            store.release_idempotency(self.session, &self.key)?;
        }
        // Otherwise the first request may have left something: its message id stays with the key.
        Ok(response)
    }
}

impl Drop for OwnClaim<'_> {
    fn drop(&mut self) {
        self.api.in_flight.leave(self.session, &self.key);
        self.under_way.finish();
    }
}

enum Entered {
    First(Arc<UnderWay>),
    Second(Arc<UnderWay>),
}

impl InFlight {
    fn enter(&self, session: SessionKey, key: &str) -> Entered {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        match by_key.entry((session, key.to_owned())) {
            std::collections::hash_map::Entry::Occupied(entry) => Entered::Second(entry.get().clone()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                Entered::First(entry.insert(Arc::new(UnderWay::default())).clone())
            }
        }
    }

    fn leave(&self, session: SessionKey, key: &str) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.remove(&(session, key.to_owned()));
    }
}

impl UnderWay {
    fn finish(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether it is over before the time is.
    fn wait(&self, timeout: Duration) -> bool {
        let guard = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(guard, timeout, |is_over| !*is_over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn replay(answer: &StoredAnswer) -> Response {
    Response::bytes(answer.status, "application/json", answer.body.clone())
        .with_header("Idempotency-Replayed", "true")
}

fn is_older(record: &IdempotencyRecord, window: Duration) -> bool {
    u128::from(time::now_millis().saturating_sub(record.created_ms)) > window.as_millis()
}

fn request_hash(request: &Request) -> [u8; 32] {
    Sha256::digest(&request.body).into()
}

/// Status of an answer that was not the last word.
const UNDER_WAY: u16 = 202;

/// Longest `Idempotency-Key`.
const MAX_KEY_BYTES: usize = 255;

/// What a second request waits beyond the longest send.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: Option<&str>, body: &str) -> Request {
        let headers = key.map(|key| ("Idempotency-Key".to_owned(), key.to_owned())).into_iter().collect();
        Request { headers, body: body.as_bytes().to_vec(), ..Request::default() }
    }

    #[test]
    fn a_key_comes_from_the_header_or_within_a_window_from_the_body() {
        let off = Duration::ZERO;
        let on = Duration::from_secs(100);
        assert_eq!(key_of(&request(Some("k-1"), "a"), off).unwrap().unwrap().text, "header:k-1");
        assert!(key_of(&request(None, "a"), off).unwrap().is_none());
        let (a, b) = (key_of(&request(None, "a"), on).unwrap(), key_of(&request(None, "b"), on).unwrap());
        assert_ne!(a.unwrap().text, b.unwrap().text);
        for bad in ["", "a b", &"k".repeat(256), "\u{e9}"] {
            assert_eq!(key_of(&request(Some(bad), "a"), off).err().unwrap().status, 400, "{bad}");
        }
    }

    #[test]
    fn the_second_waits_until_the_first_is_over() {
        let in_flight = InFlight::default();
        let Entered::First(first) = in_flight.enter(SessionKey(1), "k") else { panic!("nobody was here") };
        let Entered::Second(second) = in_flight.enter(SessionKey(1), "k") else {
            panic!("the first is here")
        };
        assert!(matches!(in_flight.enter(SessionKey(2), "k"), Entered::First(_)));
        assert!(!second.wait(Duration::from_millis(1)));
        let waiter = std::thread::spawn(move || second.wait(Duration::from_secs(10)));
        in_flight.leave(SessionKey(1), "k");
        first.finish();
        assert!(waiter.join().unwrap());
        assert!(matches!(in_flight.enter(SessionKey(1), "k"), Entered::First(_)));
    }
}
