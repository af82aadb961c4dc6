//! The `/api/…` routes: what the public backend calls. Aliases onto the same handlers, in that backend's words.
//!
//! What differs from `/session/…`: statuses are upper-case words of its database, `qrCode` is the raw text, the fields
//! of `data` are repeated beside it (it reads `status` and `qrCode` there), and equal sends within 100 seconds are one
//! message, because it repeats a send up to three times without a key.

mod manage;
mod send;
mod sessions;

use serde_json::Value;

pub(super) use manage::manage;
pub(super) use send::send;
pub(super) use sessions::{delete, disconnect, list, logout, restart, start, status};

use super::http::Response;
use crate::backend::whatsam_word as word;

/// Repeats the fields of `data` beside it. `change` sees `data` before.
fn mirrored(response: Response, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Response {
    let Ok(Value::Object(mut body)) = serde_json::from_slice(&response.body) else { return response };
    let Some(Value::Object(mut data)) = body.remove("data") else { return response };
    change(&mut data);
    for (name, value) in &data {
        // `error` beside `success` would look like a failure.
        if name != "error" {
            body.entry(name).or_insert_with(|| value.clone());
        }
    }
    body.insert("data".to_owned(), Value::Object(data));
    let mut mirrored = Response::json(response.status, &body);
    mirrored.headers = response.headers;
    mirrored
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::respond::ok;

    #[test]
    fn data_is_repeated_beside_itself_and_never_hides_the_envelope() {
        let response = ok(&serde_json::json!({ "status": "x", "success": false, "error": "why" }));
        let response = mirrored(response.with_header("X-A", "1"), |data| {
            data.insert("to".to_owned(), "me".into());
        });
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        let data = serde_json::json!({ "status": "x", "success": false, "error": "why", "to": "me" });
        assert_eq!(body, serde_json::json!({ "success": true, "status": "x", "to": "me", "data": data }));
        assert_eq!(response.headers.len(), 2, "no field twice: {:?}", response.headers);
    }
}
