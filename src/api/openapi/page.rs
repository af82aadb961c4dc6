//! `/docs`: the document as one page for people. No scripts, nothing loaded from elsewhere, readable on a phone.

use std::fmt::Write as _;

use serde_json::Value;

use super::routes;

/// The page of a document.
pub(super) fn page(document: &Value) -> String {
    let mut out = String::with_capacity(128 * 1024);
    let title = text(&document["info"]["title"]);
    let version = text(&document["info"]["version"]);
    put(
        &mut out,
        format_args!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{} API</title>\
         <style>{STYLE}</style></head><body><h1>{} <span class=\"faint\">{}</span></h1>",
            escape(title),
            escape(title),
            escape(version),
        ),
    );
    paragraphs(&mut out, text(&document["info"]["description"]));
    let token = text(&document["components"]["securitySchemes"]["token"]["description"]);
    paragraphs(
        &mut out,
        &format!(
            "Every request but those marked needs the header `Authorization: Bearer …`; the token is {token}"
        ),
    );
    out.push_str(TRY_IT);
    let tags = || document["tags"].as_array().into_iter().flatten().map(|tag| (text(&tag["name"]), tag));
    out.push_str("<nav>");
    for (name, _) in tags() {
        put(&mut out, format_args!("<a href=\"#{}\">{}</a> ", anchor(name), escape(name)));
    }
    out.push_str("<a href=\"openapi.json\">OpenAPI 3.1</a></nav>");
    for (name, tag) in tags() {
        put(&mut out, format_args!("<h2 id=\"{}\">{}</h2>", anchor(name), escape(name)));
        paragraphs(&mut out, text(&tag["description"]));
        for (path, method, operation) in operations(document) {
            if operation["tags"][0] == tag["name"] {
                Section { document, path, method, operation }.write(&mut out);
            }
        }
    }
    out.push_str("</body></html>\n");
    out
}

/// Path, method and Operation Object of every route, in the order of the table, which is one to read in.
fn operations(document: &Value) -> impl Iterator<Item = (&'static str, String, &Value)> {
    routes::all().filter_map(|route| {
        let method = route.method.to_lowercase();
        let operation = &document["paths"][route.path][&method];
        operation.is_object().then_some((route.path, method, operation))
    })
}

/// The name of a part of the page, as links have it.
fn anchor(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

/// What is shown of one route.
struct Section<'a> {
    document: &'a Value,
    path: &'a str,
    method: String,
    operation: &'a Value,
}

impl Section<'_> {
    fn write(&self, out: &mut String) {
        let method = self.method.to_uppercase();
        put(
            out,
            format_args!(
                "<details id=\"{}\"><summary><span class=\"method {method}\">{method}</span> <span class=\"path\">{}</span>\
             <span class=\"what\">{}</span></summary>",
                escape(text(&self.operation["operationId"])),
                escape(self.path),
                inline(text(&self.operation["summary"])),
            ),
        );
        paragraphs(out, text(&self.operation["description"]));
        if self.operation["security"].as_array().is_some_and(Vec::is_empty) {
            out.push_str("<p>Needs no token.</p>");
        }
        self.parameters(out);
        self.body(out);
        self.try_it(out);
        self.answers(out);
        out.push_str("</details>");
    }

    fn parameters(&self, out: &mut String) {
        let Some(parameters) = self.operation["parameters"].as_array() else { return };
        out.push_str("<h4>Parameters</h4><dl>");
        for parameter in parameters {
            let mut facts = vec![text(&parameter["in"]).to_owned()];
            let schema = &parameter["schema"];
            if let Some(values) = schema["enum"].as_array() {
                facts.push(values.iter().map(text).collect::<Vec<_>>().join(" | "));
            }
            for (bound, name) in [("minimum", "at least"), ("maximum", "at most"), ("default", "default")] {
                if let Some(number) = schema[bound].as_u64().filter(|number| *number <= SHOWN_BOUND) {
                    facts.push(format!("{name} {number}"));
                }
            }
            put(
                out,
                format_args!(
                    "<dt><code>{}</code> <span class=\"faint\">{}</span></dt><dd>{}</dd>",
                    escape(text(&parameter["name"])),
                    escape(&facts.join(", ")),
                    inline(text(&parameter["description"])),
                ),
            );
        }
        out.push_str("</dl>");
    }

    /// Fields of the body.
    fn body(&self, out: &mut String) {
        let schema = self.resolved(&self.operation["requestBody"]["content"]["application/json"]["schema"]);
        let Some(fields) = schema["properties"].as_object() else { return };
        let required = |name: &str| {
            schema["required"].as_array().is_some_and(|list| list.iter().any(|field| field == name))
        };
        // What must be there first; the rest as the document has it.
        let (needed, others): (Vec<_>, Vec<_>) = fields.iter().partition(|(name, _)| required(name));
        out.push_str("<h4>Body, JSON</h4><dl>");
        for (name, field) in needed.into_iter().chain(others) {
            let field = self.resolved(field);
            let mut facts = vec![if required(name) { "required" } else { "optional" }.to_owned()];
            match field["enum"].as_array() {
                Some(values) => facts.push(values.iter().map(text).collect::<Vec<_>>().join(" | ")),
                // The second of two types is `null`.
                None => facts
                    .extend(field["type"].as_str().or_else(|| field["type"][0].as_str()).map(str::to_owned)),
            }
            put(
                out,
                format_args!(
                    "<dt><code>{}</code> <span class=\"faint\">{}</span></dt><dd>{}</dd>",
                    escape(name),
                    escape(&facts.join(", ")),
                    inline(text(&field["description"])),
                ),
            );
        }
        out.push_str("</dl>");
    }

    /// What a `$ref` leads to.
    fn resolved<'v>(&'v self, schema: &'v Value) -> &'v Value {
        let to = schema["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
        to.and_then(|to| self.document.pointer(to)).unwrap_or(schema)
    }

    /// A command that can be pasted.
    fn try_it(&self, out: &mut String) {
        let mut command = String::from("curl -s");
        if self.method != "get" {
            command += &format!(" -X {}", self.method.to_uppercase());
        }
        let path = self.path.replace("{id}", "demo").replace("{messageId}", EXAMPLE_ID);
        command += &format!(" \"$API{path}\"");
        let schema = &self.operation["requestBody"]["content"]["application/json"]["schema"];
        if self.operation["requestBody"]["required"] == true
            && let Some(example) = self.example(schema)
        {
            command += &format!(" -H 'Content-Type: application/json' \\\n  -d '{example}'");
        }
        put(out, format_args!("<h4>Example</h4><pre>{}</pre>", escape(&command)));
    }

    fn answers(&self, out: &mut String) {
        let responses = || self.operation["responses"].as_object().into_iter().flatten();
        for (status, response) in responses().filter(|(status, _)| status.starts_with('2')) {
            put(
                out,
                format_args!("<h4>{}</h4><p>{}</p>", escape(status), inline(text(&response["description"]))),
            );
            for (kind, content) in response["content"].as_object().into_iter().flatten() {
                match self.example(&content["schema"]) {
                    Some(example) => put(out, format_args!("<pre>{}</pre>", escape(&pretty(&example)))),
                    None => put(out, format_args!("<p><code>{}</code></p>", escape(kind))),
                }
            }
        }
        out.push_str("<h4>Errors</h4><table>");
        for (status, response) in responses().filter(|(status, _)| !status.starts_with('2')) {
            let examples = &response["content"]["application/json"]["examples"];
            for (word, example) in examples.as_object().into_iter().flatten() {
                put(
                    out,
                    format_args!(
                        "<tr><td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
                        escape(status),
                        escape(word),
                        inline(text(&example["value"]["error"])),
                    ),
                );
            }
        }
        out.push_str("</table>");
    }

    /// What a value of this schema can look like.
    fn example(&self, schema: &Value) -> Option<Value> {
        if let Some(to) = schema["$ref"].as_str() {
            return self.example(self.document.pointer(to.strip_prefix('#')?)?);
        }
        if !schema["example"].is_null() {
            return Some(schema["example"].clone());
        }
        if let Some(all) = schema["allOf"].as_array() {
            let mut whole = serde_json::Map::new();
            for part in all {
                if let Some(Value::Object(fields)) = self.example(part) {
                    whole.extend(fields);
                }
            }
            return Some(Value::Object(whole));
        }
        if !schema["const"].is_null() {
            return Some(schema["const"].clone());
        }
        let fields = schema["properties"].as_object()?;
        let shown = fields.iter().filter_map(|(name, schema)| Some((name.clone(), self.example(schema)?)));
        Some(Value::Object(shown.collect()))
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Writing to a string cannot fail.
fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(what);
}

fn paragraphs(out: &mut String, markdown: &str) {
    for paragraph in markdown.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        put(out, format_args!("<p>{}</p>", inline(paragraph)));
    }
}

/// The one mark of Markdown we use: `code`.
fn inline(markdown: &str) -> String {
    let mut out = String::with_capacity(markdown.len() + 16);
    for (place, piece) in markdown.split('`').enumerate() {
        if place % 2 == 0 {
            out.push_str(&escape(piece));
        } else {
            put(&mut out, format_args!("<code>{}</code>", escape(piece)));
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What the examples need.
const TRY_IT: &str = "<p>The examples are for a shell in which <code>API=127.0.0.1:8001</code> says where the worker \
     is; <code>demo</code> is a session. From another machine add \
     <code>-H \"Authorization: Bearer $WORKER_AUTH_TOKEN\"</code>.</p>";

const STYLE: &str = include_str!("page.css");

/// Bounds beyond this are those of the machine and tell people nothing.
const SHOWN_BOUND: u64 = 1_000_000;

const EXAMPLE_ID: &str = "3EB0A1B2C3D4E5F60718AB";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_document_is_never_markup() {
        assert_eq!(inline("a <b> `c<d>` & \"e\""), "a &lt;b&gt; <code>c&lt;d&gt;</code> &amp; &quot;e&quot;");
    }
}
