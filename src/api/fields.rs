//! Request bodies read field by field: each problem names its field, unknown fields are remembered.

use serde_json::{Map, Value};

use super::{http::Request, respond::ApiError};

/// A JSON object whose fields are taken one at a time. What is left in the end was not known.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The body of a request as a JSON object. No body is an empty object.
    ///
    /// # Errors
    /// 415 for a body of another media type, 400 for what is not a JSON object.
    pub(super) fn of(request: &Request) -> Result<Self, ApiError> {
        if request.body.is_empty() {
            return Ok(Self(Map::new()));
        }
        if request.header("content-type").is_some_and(|kind| !is_json(kind)) {
            let message = "the body must be JSON: send `Content-Type: application/json`";
            return Err(
                ApiError::new(415, "UNSUPPORTED_MEDIA_TYPE", message).with_detail("field", "Content-Type")
            );
        }
        match serde_json::from_slice(&request.body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(invalid_json("the body must be a JSON object")),
            Err(error) => Err(invalid_json(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn text(&mut self, name: &str) -> Result<String, ApiError> {
        self.optional_text(name)?.ok_or_else(|| ApiError::field(name, "is required"))
    }

    /// A text that may be missing or null.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn optional_text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::field(name, "must be a string")),
        }
    }

    /// A field of any kind; null counts as missing.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Names of the fields nobody asked for.
    pub(super) fn unknown(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// For routes of our own: nothing may be left.
    ///
    /// # Errors
    /// 400 naming the first unknown field.
    pub(super) fn refuse_unknown(&self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::field(name, "is not a field of this request")),
        }
    }
}

/// A whole number from the query.
///
/// # Errors
/// 400 naming the parameter when it is not a number within the bounds.
pub(super) fn query_number(
    request: &Request,
    name: &str,
    default: u64,
    bounds: std::ops::RangeInclusive<u64>,
) -> Result<u64, ApiError> {
    let Some(text) = request.query(name) else { return Ok(default) };
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse().ok().filter(|value| plain && bounds.contains(value)) {
        Some(value) => Ok(value),
        None if *bounds.end() == u64::MAX => {
            Err(ApiError::field(name, &format!("must be a whole number, {} or more", bounds.start())))
        }
        None => {
            let problem = format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
            Err(ApiError::field(name, &problem))
        }
    }
}

/// Refuses query parameters this route does not have, so that a typo is found.
///
/// # Errors
/// 400 naming the first one.
pub(super) fn known_query(request: &Request, known: &[&str]) -> Result<(), ApiError> {
    match request.query.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::field(name, "is not a parameter of this path")),
    }
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
        || kind.len() > 5 && kind.get(kind.len() - 5..).is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

fn invalid_json(message: impl Into<String>) -> ApiError {
    ApiError::new(400, "INVALID_JSON", message).with_detail("field", "body")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content_type: Option<&str>, body: &str) -> Request {
        let headers =
            content_type.map(|kind| ("content-type".to_owned(), kind.to_owned())).into_iter().collect();
        Request { headers, body: body.as_bytes().to_vec(), ..Request::default() }
    }

    #[test]
    fn only_json_objects_are_read() {
        for body in ["{", "[]", "\"a\"", "null", "{\"a\":1}x", "\u{0}", "{\"a\":}", &"[".repeat(100_000)] {
            assert_eq!(Fields::of(&request(None, body)).unwrap_err().code, "INVALID_JSON", "{body:.20}");
        }
        assert!(Fields::of(&request(Some("application/json"), "")).unwrap().unknown().is_empty());
        assert!(Fields::of(&request(Some("Application/JSON; charset=utf-8"), "{}")).is_ok());
        assert!(Fields::of(&request(Some("application/vnd.a+json"), "{}")).is_ok());
        for kind in ["text/plain", "application/x-www-form-urlencoded", "\u{e9}+json-", "json"] {
            assert_eq!(Fields::of(&request(Some(kind), "{}")).unwrap_err().status, 415, "{kind}");
        }
    }

    #[test]
    fn each_problem_names_its_field_and_leftovers_are_known() {
        let mut fields = Fields::of(&request(None, r#"{"a":"x","b":1,"c":null,"zz":0}"#)).unwrap();
        assert_eq!(fields.text("a").unwrap(), "x");
        assert_eq!(fields.text("b").unwrap_err().message, "b: must be a string");
        assert_eq!(fields.optional_text("c").unwrap(), None);
        assert_eq!(fields.text("d").unwrap_err().message, "d: is required");
        assert_eq!(fields.unknown(), ["zz"]);
        assert!(fields.refuse_unknown().unwrap_err().message.starts_with("zz: "));
    }

    #[test]
    fn numbers_of_the_query_are_bounded() {
        let with = |value: &str| Request {
            query: vec![("limit".to_owned(), value.to_owned())],
            ..Request::default()
        };
        assert_eq!(query_number(&with("500"), "limit", 50, 1..=500), Ok(500));
        assert_eq!(query_number(&Request::default(), "limit", 50, 1..=500), Ok(50));
        for bad in ["0", "501", "-1", "+1", "1.5", "x", "", "99999999999999999999999"] {
            let error = query_number(&with(bad), "limit", 50, 1..=500).unwrap_err();
            assert_eq!(error.message, "limit: must be a whole number from 1 to 500", "{bad}");
        }
        assert!(known_query(&with("1"), &["limit"]).is_ok());
        assert!(known_query(&with("1"), &["offset"]).is_err());
    }
}
