//! `/docs`: the document as one page for people. No scripts, nothing loaded from elsewhere, readable on a phone.

use std::fmt::Write as _;

use serde_json::Value;

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
    paragraphs(&mut out, text(&document["components"]["securitySchemes"]["token"]["description"]));
    out.push_str("<p>The same as <a href=\"openapi.json\">OpenAPI 3.1</a>, for generators of clients and for Postman.</p>");
    for tag in document["tags"].as_array().into_iter().flatten() {
        put(&mut out, format_args!("<h2>{}</h2>", escape(text(&tag["name"]))));
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

/// Path, method and Operation Object of every route.
fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        methods.as_object().into_iter().flatten().map(move |(method, operation)| (path, method, operation))
    })
}

/// What is shown of one route.
struct Section<'a> {
    document: &'a Value,
    path: &'a str,
    method: &'a str,
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
            command += &format!(" -H 'Content-Type: application/json' -d '{example}'");
        }
        put(out, format_args!("<h4>Example</h4><pre>{}</pre>", escape(&command)));
    }

    fn answers(&self, out: &mut String) {
        for (status, response) in self.operation["responses"].as_object().into_iter().flatten() {
            put(out, format_args!("<h4>{}</h4>", escape(status)));
            if status.starts_with('2') {
                paragraphs(out, text(&response["description"]));
                for (kind, content) in response["content"].as_object().into_iter().flatten() {
                    match self.example(&content["schema"]) {
                        Some(example) => put(out, format_args!("<pre>{}</pre>", escape(&pretty(&example)))),
                        None => put(out, format_args!("<p><code>{}</code></p>", escape(kind))),
                    }
                }
                continue;
            }
            out.push_str("<dl>");
            let examples = &response["content"]["application/json"]["examples"];
            for (word, example) in examples.as_object().into_iter().flatten() {
                put(
                    out,
                    format_args!(
                        "<dt><code>{}</code></dt><dd>{}</dd>",
                        escape(word),
                        inline(text(&example["value"]["error"])),
                    ),
                );
            }
            out.push_str("</dl>");
        }
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
