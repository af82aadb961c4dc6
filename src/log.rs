//! Log lines: text for people and the journal, or JSON for collectors; panics included.
//!
//! Every line about a session names it: as the key `session` (`log::info!(session = id; "…")`), as its first words
//! (`session <id>: …`), or by coming from a thread of that session, whose name has it. In JSON all three become the
//! field `session`; as text, what is missing in the words is put behind them.
//! Levels are a promise: ERROR needs a person or is a bug, WARN is degraded but handled, INFO is lifecycle,
//! DEBUG has stanza tags and ids, TRACE the wire.

use std::io::{self, Write as _};

use env_logger::fmt::Formatter;
use log::{
    Level, LevelFilter, Record,
    kv::{Key, Value, VisitSource},
};

use crate::config::LogFormat;

/// Starts logging to standard error. A second call does nothing.
pub fn init(format: LogFormat, filter: &str) {
    let mut builder = env_logger::Builder::new();
    // What libraries say of every connection drowns what we say; `debug,rustls=debug` asks for it.
    for library in TALKATIVE {
        builder.filter_module(library, LevelFilter::Warn);
    }
    builder.parse_filters(filter);
    match format {
        LogFormat::Json => builder.format(write_json),
        // Set by systemd when standard error goes to the journal, which has a clock of its own.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => builder.format(write_journal),
        LogFormat::Text => builder.format(write_text),
    };
    // Only fails when a logger is set already, as in a test that runs two workers.
    let _ = builder.try_init();
}

const TALKATIVE: [&str; 5] = ["rustls", "tiny_http", "ureq", "ureq_proto", "tungstenite"];

/// A panic anywhere becomes one ERROR line that says where.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let text = panic.payload_as_str().unwrap_or("no text");
        let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
        log::error!("panic in thread {}{place}: {text}", thread.name().unwrap_or("without a name"));
    }));
}

fn write_text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = out.timestamp_millis();
    let message = record.args().to_string();
    write!(out, "{time} {:<5} {message}", record.level())?;
    write_pairs(out, record, &message)?;
    writeln!(out)
}

/// `<priority>text` as `sd-daemon(3)` has it, one line for the journal per line of text.
fn write_journal(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let priority = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let message = record.args().to_string();
    write!(out, "<{priority}>{}", message.replace('\n', &format!("\n<{priority}>")))?;
    write_pairs(out, record, &message)?;
    writeln!(out)
}

fn write_json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut line = Pairs::default();
    line.0.insert("time".to_owned(), out.timestamp_millis().to_string().into());
    line.0.insert("level".to_owned(), record.level().as_str().to_ascii_lowercase().into());
    line.0.insert("target".to_owned(), record.target().into());
    let message = record.args().to_string();
    if let Some(id) = first_words_session(&message).map(str::to_owned).or_else(thread_session) {
        line.0.insert("session".to_owned(), id.into());
    }
    line.0.insert("message".to_owned(), message.into());
    // Collecting into a map cannot fail.
    let _ = record.key_values().visit(&mut line);
    writeln!(out, "{}", serde_json::Value::Object(line.0))
}

fn write_pairs(out: &mut Formatter, record: &Record<'_>, message: &str) -> io::Result<()> {
    let mut pairs = Pairs::default();
    if let (None, Some(id)) = (first_words_session(message), thread_session()) {
        pairs.0.insert("session".to_owned(), id.into());
    }
    let _ = record.key_values().visit(&mut pairs);
    for (name, value) in pairs.0 {
        match value.as_str() {
            Some(text) => write!(out, " {name}={text}")?,
            None => write!(out, " {name}={value}")?,
        }
    }
    Ok(())
}

/// The id in a message that begins with `session <id>`.
fn first_words_session(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("session ")?;
    let is_of_id = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let end = rest.find(|c| !is_of_id(c))?;
    let (id, rest) = rest.split_at(end);
    (!id.is_empty() && (rest.starts_with(": ") || rest.starts_with(' '))).then_some(id)
}

/// The session whose thread this is.
fn thread_session() -> Option<String> {
    let thread = std::thread::current();
    let name = thread.name()?;
    SESSION_THREADS.iter().find_map(|prefix| name.strip_prefix(prefix)).map(str::to_owned)
}

/// What the names of threads begin with that work for one session; its id follows.
const SESSION_THREADS: [&str; 3] = ["wa-", "new-", "dial-"];

/// The key-value pairs of a line, without those that say nothing.
#[derive(Default)]
struct Pairs(serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = match value.to_u64() {
            Some(number) => number.into(),
            None => match value.to_string() {
                text if text.is_empty() => return Ok(()),
                text => text.into(),
            },
        };
        self.0.insert(key.as_str().to_owned(), value);
        Ok(())
    }
}
