//! Checks of JSON bodies, field by field, that collect everything wrong before they complain.

use serde_json::{Map, Value};

/// What is wrong with one field.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub field: String,
    pub message: &'static str,
    pub value: Value,
}

/// The checks of one JSON object.
pub struct Checks<'b> {
    object: &'b Map<String, Value>,
    prefix: String,
    wrong: Vec<Wrong>,
}

impl<'b> Checks<'b> {
    pub fn of(object: &'b Map<String, Value>) -> Self {
        Self { object, prefix: String::new(), wrong: Vec::new() }
    }

    /// Must be there and pass.
    pub fn required(
        &mut self,
        name: &str,
        passes: impl Fn(&Value) -> bool,
        message: &'static str,
    ) -> &mut Self {
        let value = self.object.get(name);
        if !value.is_some_and(passes) {
            self.complain(name, message, value.cloned().unwrap_or_default());
        }
        self
    }

    /// May be absent, else must pass; null is a value like others.
    pub fn optional(
        &mut self,
        name: &str,
        passes: impl Fn(&Value) -> bool,
        message: &'static str,
    ) -> &mut Self {
        if self.object.contains_key(name) {
            self.required(name, passes, message);
        }
        self
    }

    /// Fields beside these are wrong.
    pub fn nothing_but(&mut self, names: &[&str]) -> &mut Self {
        for (name, value) in self.object {
            if !names.contains(&name.as_str()) {
                self.complain(name, "is not known", value.clone());
            }
        }
        self
    }

    /// An object inside, when it is there.
    pub fn inside(&mut self, name: &str, check: impl FnOnce(&mut Checks<'b>)) -> &mut Self {
        match self.object.get(name) {
            None => {}
            Some(Value::Object(object)) => self.within(name.to_owned(), object, check),
            Some(other) => self.complain(name, "must be an object", other.clone()),
        }
        self
    }

    /// A list of objects that must be there.
    pub fn each(&mut self, name: &str, check: impl Fn(&mut Checks<'b>)) -> &mut Self {
        let Some(Value::Array(items)) = self.object.get(name) else {
            self.complain(name, "must be a list", Value::Null);
            return self;
        };
        for (index, item) in items.iter().enumerate() {
            let place = format!("{name}.{index}");
            match item {
                Value::Object(object) => self.within(place, object, &check),
                other => self.complain(&place, "must be an object", other.clone()),
            }
        }
        self
    }

    fn within(&mut self, place: String, object: &'b Map<String, Value>, check: impl FnOnce(&mut Checks<'b>)) {
        let mut checks = Checks { object, prefix: format!("{}{place}.", self.prefix), wrong: Vec::new() };
        check(&mut checks);
        self.wrong.append(&mut checks.wrong);
    }

    fn complain(&mut self, name: &str, message: &'static str, value: Value) {
        self.wrong.push(Wrong { field: format!("{}{name}", self.prefix), message, value });
    }

    pub fn wrong(&mut self) -> Vec<Wrong> {
        std::mem::take(&mut self.wrong)
    }
}

/// A string of so many characters.
pub fn text(lengths: std::ops::RangeInclusive<usize>) -> impl Fn(&Value) -> bool {
    move |value| value.as_str().is_some_and(|text| lengths.contains(&text.chars().count()))
}

/// A string of so many letters, digits, `_` and `-`.
pub fn name(lengths: std::ops::RangeInclusive<usize>) -> impl Fn(&Value) -> bool {
    move |value| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        value.as_str().is_some_and(|text| lengths.contains(&text.len()) && text.chars().all(is_allowed))
    }
}

pub fn one_of<const N: usize>(words: [&'static str; N]) -> impl Fn(&Value) -> bool {
    move |value| value.as_str().is_some_and(|word| words.contains(&word))
}

/// A whole number of JSON.
pub fn whole(range: std::ops::RangeInclusive<u64>) -> impl Fn(&Value) -> bool {
    move |value| value.as_u64().is_some_and(|number| range.contains(&number))
}

pub fn percent(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| (0.0..=100.0).contains(&number))
}

/// ISO 8601 with a zone; numbers are none.
pub fn time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok())
}

/// `+?` and 2 to 15 digits, the first not 0.
pub fn phone(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        let digits = text.strip_prefix('+').unwrap_or(text);
        (2..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0')
    })
}

/// An address of http or https that paths can be put behind.
pub fn endpoint(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    })
}

/// The same, or null.
pub fn or_null(passes: impl Fn(&Value) -> bool) -> impl Fn(&Value) -> bool {
    move |value| value.is_null() || passes(value)
}
