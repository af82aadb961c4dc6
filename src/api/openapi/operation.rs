//! What a route says about itself, and its OpenAPI form.

use serde_json::{Map, Value, json};

use super::codes::{self, Code};

/// Under which heading a route is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Tag {
    /// The worker as a whole.
    Worker,
    /// Sessions.
    Sessions,
    /// Messages and events.
    Messages,
    /// The public backend's routes.
    Family,
    /// The API itself.
    Reference,
}

impl Tag {
    pub(super) const ALL: [Self; 5] =
        [Self::Worker, Self::Sessions, Self::Messages, Self::Family, Self::Reference];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worker => "Worker",
            Self::Sessions => "Sessions",
            Self::Messages => "Messages",
            Self::Family => "Backend family",
            Self::Reference => "Reference",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Worker => "The worker as a whole",
            Self::Sessions => "One session is one WhatsApp account",
            Self::Messages => "Sending, history and events of a session",
            Self::Family => {
                "What the public backend calls: the same handlers with its status words, the raw text of the QR, and \
                 the fields of `data` repeated beside it"
            }
            Self::Reference => "The description of this API",
        }
    }
}

/// The documentation of one route. Parameters in the path are added by themselves.
pub(in crate::api) struct Operation {
    tag: Tag,
    id: &'static str,
    summary: &'static str,
    about: &'static str,
    is_open: bool,
    parameters: Vec<Value>,
    body: Option<Body>,
    answers: Vec<Outcome>,
    errors: Vec<&'static str>,
    /// Headers of every success.
    headers: Map<String, Value>,
}

struct Body {
    schema: &'static str,
    is_required: bool,
}

/// One form of success.
struct Outcome {
    status: u16,
    media_type: &'static str,
    schema: Value,
    meaning: &'static str,
}

impl Operation {
    /// `id`: name of the function in generated clients. `summary`: one line, no full stop.
    pub(in crate::api) fn new(tag: Tag, id: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            id,
            summary,
            about: "",
            is_open: false,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            errors: vec!["BAD_REQUEST", "BAD_PATH", "INVALID_FIELD", "REQUEST_TIMEOUT", "OVERLOADED"],
            headers: Map::new(),
        }
    }

    /// More sentences, Markdown.
    pub(in crate::api) fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Needs no token.
    pub(in crate::api) fn open(self) -> Self {
        Self { is_open: true, ..self }
    }

    /// A query parameter.
    pub(in crate::api) fn query(
        mut self,
        name: &str,
        about: &str,
        schema: Value,
        example: impl Into<Value>,
    ) -> Self {
        let example: Value = example.into();
        self.parameters.push(json!({
            "name": name, "in": "query", "description": about, "schema": schema, "example": example,
        }));
        self
    }

    /// The header `Idempotency-Key`.
    pub(in crate::api) fn idempotency_key(mut self) -> Self {
        self.parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A repeated request with the same key is one message and gets the same answer, for 24 hours \
                            and across restarts.",
            "schema": { "type": "string", "pattern": "^[!-~]{1,255}$" },
        }));
        self.errors(&["IDEMPOTENCY_KEY_REUSED", "REQUEST_UNDER_WAY"])
    }

    /// A JSON body that must be there, by the name of its schema.
    pub(in crate::api) fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(Body { schema, is_required: true });
        self.errors(BODY_ERRORS)
    }

    /// A JSON body that may be left out.
    pub(in crate::api) fn optional_body(mut self, schema: &'static str) -> Self {
        self.body = Some(Body { schema, is_required: false });
        self.errors(BODY_ERRORS)
    }

    /// 200 with the envelope around `data` of this schema.
    pub(in crate::api) fn ok(self, schema: &str, meaning: &'static str) -> Self {
        self.answer(200, schema, meaning)
    }

    /// Any success with the envelope around `data` of this schema.
    pub(in crate::api) fn answer(mut self, status: u16, schema: &str, meaning: &'static str) -> Self {
        let schema = json!({
            "type": "object",
            "required": ["success", "data"],
            "properties": { "success": { "const": true }, "data": reference(schema) },
        });
        self.answers.push(Outcome { status, media_type: "application/json", schema, meaning });
        self
    }

    /// As [`Self::ok`], with the fields of `data` repeated beside it.
    pub(in crate::api) fn mirrored(self, schema: &str, meaning: &'static str) -> Self {
        self.mirrored_as(200, schema, meaning)
    }

    /// As [`Self::answer`], with the fields of `data` repeated beside it.
    pub(in crate::api) fn mirrored_as(mut self, status: u16, schema: &str, meaning: &'static str) -> Self {
        let schema = json!({
            "allOf": [
                {
                    "type": "object",
                    "required": ["success", "data"],
                    "properties": { "success": { "const": true }, "data": reference(schema) },
                },
                reference(schema),
            ],
        });
        self.answers.push(Outcome { status, media_type: "application/json", schema, meaning });
        self
    }

    /// 200 with a JSON object that is a whole answer of its own.
    pub(in crate::api) fn plain_ok(self, schema: &str, meaning: &'static str) -> Self {
        self.bare("application/json", reference(schema), meaning)
    }

    /// 200 without the envelope.
    pub(in crate::api) fn bare(
        mut self,
        media_type: &'static str,
        schema: Value,
        meaning: &'static str,
    ) -> Self {
        self.answers.push(Outcome { status: 200, media_type, schema, meaning });
        self
    }

    /// The path names a session that must be there.
    pub(in crate::api) fn session(self) -> Self {
        self.errors(&["SESSION_NOT_FOUND"])
    }

    /// The store is read or written.
    pub(in crate::api) fn store_errors(self) -> Self {
        self.errors(&["STORE_FAILED", "WORKER_STOPPING", "DISK_FULL"])
    }

    /// Further words an error of this route can carry.
    pub(in crate::api) fn errors(mut self, words: &[&'static str]) -> Self {
        self.errors.extend(words);
        self
    }

    /// Unknown fields are named in a header instead of being refused.
    pub(in crate::api) fn ignores_unknown_fields(self) -> Self {
        self.header("X-Unknown-Fields", "Fields of the body that nobody knows, separated by commas")
    }

    /// The answer may be that of an earlier request.
    pub(in crate::api) fn replays(self) -> Self {
        self.header("Idempotency-Replayed", "`true` when this is the answer of an earlier, equal request")
    }

    fn header(mut self, name: &str, about: &str) -> Self {
        self.headers.insert(name.to_owned(), json!({ "description": about, "schema": { "type": "string" } }));
        self
    }

    /// The words an error can carry, without repetitions.
    pub(super) fn codes(&self) -> Vec<&'static Code> {
        let mut words = self.errors.clone();
        if !self.is_open {
            words.extend(["UNAUTHORIZED", "FORBIDDEN_ORIGIN"]);
        }
        words.push("INTERNAL_ERROR");
        let mut found: Vec<&Code> = codes::CODES.iter().filter(|code| words.contains(&code.word)).collect();
        found.sort_by_key(|code| code.status);
        found
    }

    /// Words that are in no list.
    #[cfg(test)]
    pub(super) fn unknown_codes(&self) -> Vec<&'static str> {
        self.errors.iter().copied().filter(|word| codes::find(word).is_none()).collect()
    }

    /// The Operation Object.
    pub(super) fn render(self, path: &str) -> Value {
        let mut parameters: Vec<Value> = path.split('/').filter_map(path_parameter).collect();
        parameters.extend(self.parameters.iter().cloned());
        let mut operation = json!({
            "tags": [self.tag.name()],
            "operationId": self.id,
            "summary": self.summary,
            "responses": self.responses(),
        });
        if !self.about.is_empty() {
            operation["description"] = self.about.into();
        }
        if self.is_open {
            operation["security"] = json!([]);
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = json!({
                "required": body.is_required,
                "content": { "application/json": { "schema": reference(body.schema) } },
            });
        }
        operation
    }

    fn responses(&self) -> Map<String, Value> {
        let mut responses: Map<String, Value> = Map::new();
        for answer in &self.answers {
            let response = responses.entry(answer.status.to_string()).or_insert_with(|| {
                let mut response = json!({ "description": answer.meaning, "content": {} });
                if !self.headers.is_empty() {
                    response["headers"] = Value::Object(self.headers.clone());
                }
                response
            });
            response["content"][answer.media_type] = json!({ "schema": answer.schema });
        }
        let codes = self.codes();
        for same_status in codes.chunk_by(|one, other| one.status == other.status) {
            let Some(first) = same_status.first() else { continue };
            responses.insert(first.status.to_string(), error_response(first.status, same_status));
        }
        responses
    }
}

/// One response for all words of a status.
fn error_response(status: u16, codes: &[&Code]) -> Value {
    let words: Vec<&str> = codes.iter().map(|code| code.word).collect();
    let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.word, code.meaning)).collect();
    let examples: Map<String, Value> = codes
        .iter()
        .map(|code| {
            let value = json!({ "success": false, "error": code.meaning, "code": code.word });
            (code.word.to_owned(), json!({ "value": value }))
        })
        .collect();
    let schema = json!({
        "allOf": [
            reference("Error"),
            { "type": "object", "properties": { "code": { "enum": words } } },
        ],
    });
    let mut response = json!({
        "description": lines.join(". "),
        "content": { "application/json": { "schema": schema, "examples": examples } },
    });
    let integer = json!({ "type": "integer", "minimum": 1 });
    match status {
        429 | 503 => {
            response["headers"] = json!({
                "Retry-After": { "description": "Seconds to wait", "schema": integer, "required": true },
            });
        }
        401 => {
            response["headers"] =
                json!({ "WWW-Authenticate": { "schema": { "const": "Bearer" }, "required": true } });
        }
        _ => {}
    }
    response
}

fn path_parameter(segment: &str) -> Option<Value> {
    let (about, pattern, example) = match segment {
        "{id}" => ("The session", "^[A-Za-z0-9_-]{1,100}$", "demo"),
        "{messageId}" => ("The message", "^[!-.0-~]{1,128}$", "3EB0A1B2C3D4E5F60718AB"),
        _ => return None,
    };
    Some(json!({
        "name": segment.trim_matches(['{', '}']),
        "in": "path",
        "required": true,
        "description": about,
        "schema": { "type": "string", "pattern": pattern },
        "example": example,
    }))
}

pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

const BODY_ERRORS: &[&str] = &["INVALID_JSON", "BODY_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"];
