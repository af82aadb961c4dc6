//! Reads the source tree and fails where the architecture is broken: arrows between modules, forbidden words in the
//! protocol core, file sizes, unfinished code, an async runtime in the dependency tree.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// `(folder, words it must not use, why)`. Words are matched as whole paths in code, never in comments or strings.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "src/whatsapp",
        &[
            "crate::api",
            "crate::session",
            "crate::storage",
            "crate::backend",
            "crate::sandbox",
            "crate::config",
        ],
        "the protocol knows none of its users",
    ),
    (
        "src/whatsapp",
        &[
            "std::net",
            "std::thread",
            "std::fs",
            "std::process",
            "std::env",
            "rustix",
            "rustls",
            "tungstenite",
        ],
        "the protocol is sans-IO",
    ),
    ("src/whatsapp", &["Mutex", "RwLock", "Condvar"], "the protocol shares nothing, so it locks nothing"),
    (
        "src/whatsapp",
        &["Instant::now", "SystemTime::now", "thread::sleep", "OsRng", "thread_rng", "getrandom"],
        "time and randomness are arguments",
    ),
    ("src/api", &["whatsapp::engine"], "the API holds session handles, never engines"),
    (
        "src/session",
        &["crate::api", "crate::backend", "crate::sandbox"],
        "sessions do not know who drives them",
    ),
    (
        "src/storage",
        &["crate::api", "crate::backend", "crate::session", "crate::sandbox"],
        "storage does not know its users",
    ),
    (
        "src/backend",
        &["crate::api", "crate::sandbox", "crate::whatsapp"],
        "the link to the backend knows sessions and the event log, not requests and not the protocol",
    ),
    (
        "src/sandbox",
        &["crate::session", "crate::storage", "crate::config"],
        "the sandbox is the other side of the wire; it shares only the HTTP server",
    ),
    ("src", &["todo!", "unimplemented!"], "a stub is not a feature"),
];

/// Lines of a file without its tests and without comments and blank lines at which it must be split.
const MAX_FILE_LINES: usize = 800;

/// Crates that would bring an async runtime.
const ASYNC_RUNTIMES: &[&str] =
    &["tokio", "async-std", "smol", "async-executor", "futures-executor", "mio", "actix-rt"];

/// The packages that were chosen for the program's main tasks.
const STOOD_ON: &[&str] = &[
    "tiny_http",
    "ureq",
    "rust-s3",
    "serde",
    "serde_json",
    "qrcode",
    "sysinfo",
    "log",
    "env_logger",
    "crossbeam-channel",
    "rustls",
    "prost",
    "curve25519-dalek",
    "aes-gcm",
];

#[test]
fn no_module_uses_what_its_place_in_the_architecture_forbids() {
    let mut faults = Vec::new();
    for file in rust_files(Path::new("src")) {
        let code = production_code(&read(&file));
        for (folder, words, why) in FORBIDDEN {
            if file.starts_with(folder) {
                let used = words.iter().filter(|word| mentions(&code, word));
                faults.extend(used.map(|word| format!("{} uses `{word}`: {why}", file.display())));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_file_is_too_long_to_read() {
    let long: Vec<String> = rust_files(Path::new("src"))
        .into_iter()
        .chain(rust_files(Path::new("tests")))
        .filter_map(|file| {
            let text = read(&file);
            let lines = production_code(&text).lines().filter(|line| !line.trim().is_empty()).count();
            (lines > MAX_FILE_LINES && !is_generated(&text))
                .then(|| format!("{}: {lines} lines", file.display()))
        })
        .collect();
    assert!(long.is_empty(), "split these (limit {MAX_FILE_LINES}):\n{}", long.join("\n"));
}

#[test]
fn no_async_runtime_is_linked() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.starts_with("whatsapp-worker "), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let found: Vec<&str> = tree
        .lines()
        .filter(|line| ASYNC_RUNTIMES.contains(&line.split(' ').next().unwrap_or_default()))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Each does what it is there for, and is no longer in the program when nothing uses it.
#[test]
fn the_packages_the_program_stands_on_are_used() {
    let manifest = read(&root().join("Cargo.toml"));
    let (_, behind) = manifest.split_once("\n[dependencies]\n").expect("dependencies");
    let dependencies = behind.split("\n[").next().expect("a section");
    let code: String =
        rust_files(&root().join("src")).iter().map(|file| production_code(&read(file))).collect();
    for package in STOOD_ON {
        let listed = dependencies.lines().any(|line| line.starts_with(&format!("{package} = ")));
        // rust-s3 calls itself by another name.
        let name = if *package == "rust-s3" { "s3".to_owned() } else { package.replace('-', "_") };
        assert!(listed && mentions(&code, &name), "{package} is not what the program stands on any more");
    }
}

#[test]
fn the_reader_of_this_test_sees_code_and_not_prose() {
    let code = production_code(
        "// std::net\n/* a /* std::fs */ Mutex */ let s = \"std::thread \\\" Mutex\"; let r = r#\"RwLock\"#;\n\
         let c = '\"'; use std::{fmt, net::{TcpStream}};\n#[cfg(test)]\nmod tests { use std::fs; }\n",
    );
    assert!(mentions(&code, "std::net"), "{code}");
    assert!(!mentions(&code, "std::fs"), "{code}");
    assert!(!mentions(&code, "std::thread"), "{code}");
    assert!(!mentions(&code, "Mutex") && !mentions(&code, "RwLock"), "{code}");
    assert!(mentions("let x: EngineHandle; Engine::new()", "Engine"));
    assert!(!mentions("let x: EngineHandle; MyEngine::new()", "Engine"));
    assert!(mentions("use crate::{whatsapp, api::x};", "crate::api"));
    assert!(mentions("use crate::{\n    whatsapp::{a, b},\n    api,\n};", "crate::api"));
    assert!(!mentions("use crate::{whatsapp::{api, b}};", "crate::api"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).expect("a listed file can be read")
}

/// Every `.rs` file below `folder`, relative to the repository, tests and build output left out.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a source folder can be listed") {
            let name = entry.expect("an entry can be read").file_name();
            let path = folder.join(&name);
            let is_dir = root().join(&path).is_dir();
            match name.to_str() {
                // `vectors.rs` are unit tests too: they read vector files.
                Some("target" | "node_modules" | "tests" | "tests.rs" | "vectors.rs") => {}
                _ if is_dir => folders.push(path),
                Some(name) if name.ends_with(".rs") => files.push(path),
                _ => {}
            }
        }
    }
    assert!(!files.is_empty(), "{} has no source", folder.display());
    files
}

/// Tables and schemas written by a program say so in their first lines.
fn is_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.to_ascii_lowercase().contains("generated"))
}

/// The code without comments, without the content of strings, and without the unit tests at the end of the file.
fn production_code(text: &str) -> String {
    let code = without_prose(text);
    let mut end = code.len();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let rest = code[at + "#[cfg(test)]".len()..].trim_start();
        if rest.starts_with("mod ") && !rest.split_once('{').is_none_or(|(head, _)| head.contains(';')) {
            end = at;
            break;
        }
    }
    code[..end].to_owned()
}

/// Replaces comments by nothing and the content of string and character literals by nothing.
fn without_prose(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, code.chars().next_back()) {
            length
        } else if next == '"' {
            quoted(rest, '"')
        } else if next == '\'' && is_char_literal(rest) {
            quoted(rest, '\'')
        } else {
            code.push(next);
            next.len_utf8()
        };
        rest = &rest[skip..];
    }
    code
}

/// Length of the block comment `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the raw string `text` starts with, if it does. `before`: the character in front of it.
fn raw_string(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        return None;
    }
    let hashes = text.strip_prefix('r')?.chars().take_while(|c| *c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&close)? + close.len())
}

/// Length of the literal `text` starts with, both quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Tells `'a'` from the lifetime `'a`.
fn is_char_literal(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Whether `code` names `path`, directly or inside a grouped import (`std::net` in `use std::{fmt, net}`).
fn mentions(code: &str, path: &str) -> bool {
    if whole_words(code, path) {
        return true;
    }
    let Some((parent, name)) = path.rsplit_once("::") else { return false };
    code.match_indices(&format!("{parent}::{{")).any(|(at, open)| {
        let group = &code[at + open.len()..];
        let mut depth = 0;
        let mut start = 0;
        for (here, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    let item = group[start..here].trim();
                    if item == name
                        || item.strip_prefix(name).is_some_and(|rest| rest.starts_with([':', ' ']))
                    {
                        return true;
                    }
                    start = here + 1;
                    if c == '}' {
                        return false;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        false
    })
}

fn whole_words(code: &str, path: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(is_word);
        let after = code[at + path.len()..].chars().next().is_some_and(is_word);
        !before && !after
    })
}
