//! Reading JSON bodies so that every error names its field.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    api::http::{Request, Response},
    sandbox::world::SandboxError,
};

/// A JSON object of a request; fields are taken out one by one.
pub(super) struct Body(Map<String, Value>);

impl Body {
    /// Reads the body; an empty one is an empty object.
    pub(super) fn read(request: &Request) -> Result<Self, SandboxError> {
        if request.body.is_empty() {
            return Ok(Self(Map::new()));
        }
        match request.json() {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(invalid("body", "must be a JSON object")),
            Err(error) => Err(invalid("body", format!("is not JSON: {error}"))),
        }
    }

    pub(super) fn opt_text(&mut self, field: &'static str) -> Result<Option<String>, SandboxError> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(invalid(field, "must be a string")),
        }
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, SandboxError> {
        self.opt_text(field)?.filter(|text| !text.is_empty()).ok_or_else(|| invalid(field, "is required"))
    }

    pub(super) fn opt_bool(&mut self, field: &'static str) -> Result<Option<bool>, SandboxError> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(invalid(field, "must be true or false")),
        }
    }

    pub(super) fn opt_number(&mut self, field: &'static str, max: u64) -> Result<Option<u64>, SandboxError> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|number| *number <= max) {
                Some(number) => Ok(Some(number)),
                None => Err(invalid(field, format!("must be a whole number from 0 to {max}"))),
            },
        }
    }

    /// A list of strings; a single string counts as a list of one.
    pub(super) fn texts(&mut self, field: &'static str) -> Result<Vec<String>, SandboxError> {
        let wrong = || invalid(field, "must be a list of strings");
        match self.0.remove(field) {
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(wrong()),
                })
                .collect(),
            None => Err(invalid(field, "is required")),
            Some(_) => Err(wrong()),
        }
    }

    /// A word of a fixed list, or anything else serde can read.
    pub(super) fn opt_value<T: serde::de::DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, SandboxError> {
        let read = |value| serde_json::from_value(value).map_err(|error| invalid(field, error.to_string()));
        self.0.remove(field).map(read).transpose()
    }

    /// Everything that is left, as one value.
    pub(super) fn rest<T: serde::de::DeserializeOwned>(self, field: &'static str) -> Result<T, SandboxError> {
        serde_json::from_value(Value::Object(self.0)).map_err(|error| invalid(field, error.to_string()))
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), SandboxError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(field) => Err(invalid("body", format!("there is no field {field}"))),
        }
    }
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> SandboxError {
    SandboxError::Invalid { field, reason: reason.into() }
}

/// `{"success":true,"data":…}`.
pub(super) fn success(data: &Value) -> Response {
    #[derive(Serialize)]
    struct Success<'a> {
        success: bool,
        data: &'a Value,
    }
    Response::json(200, &Success { success: true, data })
}

/// `{"success":false,"error":…,"code":…,"details":{"field":…}}`.
pub(super) fn failure(error: &SandboxError) -> Response {
    let (status, code, field) = match error {
        SandboxError::NoSuchPhone(_) => (404, "NO_SUCH_PHONE", Some("phone")),
        SandboxError::Invalid { field, .. } => (400, "INVALID", Some(*field)),
        SandboxError::Conflict(_) => (409, "CONFLICT", None),
    };
    let details = field.map_or_else(|| json!({}), |field| json!({ "field": field }));
    Failure { success: false, error: error.to_string(), code, details }.respond(status)
}

/// No such route.
pub(super) fn not_found(request: &Request) -> Response {
    let error = format!("there is no {} /{}", request.method, request.segments.join("/"));
    Failure { success: false, error, code: "NOT_FOUND", details: json!({}) }.respond(404)
}

#[derive(Serialize)]
struct Failure {
    success: bool,
    error: String,
    code: &'static str,
    details: Value,
}

impl Failure {
    fn respond(&self, status: u16) -> Response {
        Response::json(status, self)
    }
}
