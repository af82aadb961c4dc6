//! Log lines: text for people and the journal, or JSON for collectors; panics included.
//!
//! The id of a session travels as the key `session` of each line (`log::info!(session = id; "…")`).
//! Levels are a promise: ERROR needs a person or is a bug, WARN is degraded but handled, INFO is lifecycle,
//! DEBUG has stanza tags and ids, TRACE the wire.

use std::io::{self, Write as _};

use env_logger::fmt::Formatter;
use log::{
    Level, Record,
    kv::{Key, Value, VisitSource},
};

use crate::config::LogFormat;

/// Starts logging to standard error. A second call does nothing.
pub fn init(format: LogFormat, filter: &str) {
    let mut builder = env_logger::Builder::new();
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
    write!(out, "{time} {:<5} {}", record.level(), record.args())?;
    write_pairs(out, record)?;
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
    let text = record.args().to_string().replace('\n', &format!("\n<{priority}>"));
    write!(out, "<{priority}>{text}")?;
    write_pairs(out, record)?;
    writeln!(out)
}

fn write_json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut line = Pairs::default();
    line.0.insert("time".to_owned(), out.timestamp_millis().to_string().into());
    line.0.insert("level".to_owned(), record.level().as_str().to_ascii_lowercase().into());
    line.0.insert("target".to_owned(), record.target().into());
    line.0.insert("message".to_owned(), record.args().to_string().into());
    // Collecting into a map cannot fail.
    let _ = record.key_values().visit(&mut line);
    writeln!(out, "{}", serde_json::Value::Object(line.0))
}

fn write_pairs(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut pairs = Pairs::default();
    let _ = record.key_values().visit(&mut pairs);
    for (name, value) in pairs.0 {
        match value.as_str() {
            Some("") => {}
            Some(text) => write!(out, " {name}={text}")?,
            None => write!(out, " {name}={value}")?,
        }
    }
    Ok(())
}

/// The key-value pairs of a line.
#[derive(Default)]
struct Pairs(serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = match value.to_u64() {
            Some(number) => number.into(),
            None => value.to_string().into(),
        };
        self.0.insert(key.as_str().to_owned(), value);
        Ok(())
    }
}
