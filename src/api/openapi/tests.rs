use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::*;

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get("$ref") {
                found.insert(to.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for to in &found {
        let pointer = to.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{to}");
    }
    for name in schemas::all().keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "nobody uses the schema {name}");
    }
}

#[test]
fn every_route_says_what_it_is_and_no_name_is_taken_twice() {
    let mut names = BTreeSet::new();
    for route in routes::all() {
        let document = (route.doc)().render(route.path);
        let name = document["operationId"].as_str().unwrap_or_default().to_owned();
        assert!(names.insert(name), "{} {}", route.method, route.path);
        assert!(!document["summary"].as_str().unwrap_or_default().ends_with('.'), "{}", route.path);
        let successes = ["200", "202", "204"];
        assert!(successes.iter().any(|status| document["responses"][status].is_object()), "{}", route.path);
        assert_eq!((route.doc)().unknown_codes(), Vec::<&str>::new(), "{}", route.path);
    }
}

/// Quoted words of capitals that are something else: methods, variables, statuses and types of the `/api` family.
const NOT_ERRORS: &[&str] = &[
    "HEAD",
    "DELETE",
    "POST",
    "OPTIONS",
    "CARGO_PKG_VERSION",
    "DISCONNECTED",
    "RECONNECTING",
    "QR_REQUIRED",
    "CONNECTED",
    "ERROR",
    "TEXT",
    "SEEN",
];

#[test]
fn the_page_shows_every_route_and_every_error_word_and_loads_nothing() {
    let page = page::page(&document());
    for route in routes::all() {
        let path = format!("<span class=\"path\">{}</span>", route.path);
        assert!(page.contains(&path), "{}", route.path);
        for code in (route.doc)().codes() {
            assert!(page.contains(&format!("<code>{}</code>", code.word)), "{}", code.word);
        }
    }
    for foreign in ["<script", "<link", "<img", "src=", "url(", "@import", "http://", "https://"] {
        assert!(!page.contains(foreign), "the page holds {foreign}");
    }
}

/// Error words are the only quoted words of capitals in the sources of the API, names of methods aside.
fn words_in(source: &str) -> BTreeSet<String> {
    let (code, _) = source.split_once("#[cfg(test)]").unwrap_or((source, ""));
    let is_word = |piece: &&str| {
        piece.len() > 3
            && piece.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            && !NOT_ERRORS.contains(piece)
    };
    code.split('"').skip(1).step_by(2).filter(is_word).map(str::to_owned).collect()
}

fn sources_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match name.as_str() {
            "tests" | "tests.rs" | "openapi" => {}
            _ if path.is_dir() => sources_below(&path, found),
            _ if name.ends_with(".rs") => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn every_error_word_of_the_api_is_described_and_every_described_word_exists() {
    let mut sources = Vec::new();
    sources_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api"), &mut sources);
    // Routes repeat the words their errors can carry.
    sources.retain(|path| {
        !path.parent().is_some_and(|folder| folder.ends_with("routes")) || path.ends_with("mod.rs")
    });
    let used: BTreeSet<String> =
        sources.iter().flat_map(|path| words_in(&fs::read_to_string(path).unwrap())).collect();
    let described: BTreeSet<String> = codes::CODES.iter().map(|code| code.word.to_owned()).collect();
    assert_eq!(used, described);
}
