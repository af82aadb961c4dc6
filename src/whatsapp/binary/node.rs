//! A stanza as a tree: tag, attributes, content; with a builder for what we send and readers for what we get.

use std::{borrow::Cow, fmt};

use crate::whatsapp::jid::Jid;

/// Text that is either a dictionary token or owned.
pub type Text = Cow<'static, str>;

/// An attribute value. JIDs have their own wire form, so they stay typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Plain text, numbers and booleans included.
    Text(Text),
    /// A JID.
    Jid(Jid),
}

/// What a node contains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Content {
    /// Nothing.
    #[default]
    Empty,
    /// Child nodes.
    Nodes(Vec<Node>),
    /// Bytes. Keys, ciphertexts and tokens must be sent as this: the server answers 479 to text.
    Bytes(Vec<u8>),
    /// Text (a token on the wire where one exists). When reading, interchangeable with bytes.
    Text(Text),
}

/// Attributes in wire order. Lists are short, so a linear search beats a map.
pub type Attrs = Vec<(Text, Value)>;

/// One stanza or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Element name.
    pub tag: Text,
    /// Attributes.
    pub attrs: Attrs,
    /// Children, bytes or text.
    pub content: Content,
}

impl Node {
    /// A node without attributes and content.
    #[must_use]
    pub fn new(tag: impl Into<Text>) -> Self {
        Self { tag: tag.into(), attrs: Vec::new(), content: Content::Empty }
    }

    /// Adds an attribute. Numbers: pass `n.to_string()`.
    #[must_use]
    pub fn attr(mut self, key: impl Into<Text>, value: impl Into<Value>) -> Self {
        self.attrs.push((key.into(), value.into()));
        self
    }

    /// Adds an attribute when there is a value.
    #[must_use]
    pub fn attr_opt(self, key: impl Into<Text>, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.attr(key, value),
            None => self,
        }
    }

    /// Appends a child.
    #[must_use]
    pub fn child(mut self, child: Node) -> Self {
        match &mut self.content {
            Content::Nodes(nodes) => nodes.push(child),
            content => *content = Content::Nodes(vec![child]),
        }
        self
    }

    /// Appends a child when there is one.
    #[must_use]
    pub fn child_opt(self, child: Option<Node>) -> Self {
        match child {
            Some(child) => self.child(child),
            None => self,
        }
    }

    /// Replaces the content by these children.
    #[must_use]
    pub fn nodes(mut self, children: impl IntoIterator<Item = Node>) -> Self {
        self.content = Content::Nodes(children.into_iter().collect());
        self
    }

    /// Replaces the content by bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.content = Content::Bytes(bytes.into());
        self
    }

    /// Replaces the content by text.
    #[must_use]
    pub fn text(mut self, text: impl Into<Text>) -> Self {
        self.content = Content::Text(text.into());
        self
    }

    /// The raw attribute value.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.attrs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The attribute as text (JIDs in their text form).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        match self.value(key)? {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Jid(jid) => Some(Cow::Owned(jid.to_string())),
        }
    }

    /// Whether the attribute is exactly this text.
    #[must_use]
    pub fn has(&self, key: &str, expected: &str) -> bool {
        self.get(key).is_some_and(|value| value == expected)
    }

    /// The attribute as a JID; `None` when absent or not a JID.
    #[must_use]
    pub fn jid(&self, key: &str) -> Option<Jid> {
        match self.value(key)? {
            Value::Jid(jid) => Some(jid.clone()),
            Value::Text(text) => text.parse().ok(),
        }
    }

    /// The attribute as a number; `None` when absent or not a number of this type.
    #[must_use]
    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.get(key)?.parse().ok()
    }

    /// All children (empty for byte or text content).
    #[must_use]
    pub fn children(&self) -> &[Node] {
        match &self.content {
            Content::Nodes(nodes) => nodes,
            _ => &[],
        }
    }

    /// The first child with this tag.
    #[must_use]
    pub fn find(&self, tag: &str) -> Option<&Node> {
        self.children().iter().find(|child| child.tag == tag)
    }

    /// All children with this tag.
    pub fn find_all<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = &'a Node> {
        self.children().iter().filter(move |child| child.tag == tag)
    }

    /// Byte or text content as bytes.
    #[must_use]
    pub fn content_bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::Text(text) => Some(text.as_bytes()),
            Content::Empty | Content::Nodes(_) => None,
        }
    }

    /// Content bytes of the first child with this tag.
    #[must_use]
    pub fn find_bytes(&self, tag: &str) -> Option<&[u8]> {
        self.find(tag)?.content_bytes()
    }

    /// Byte or text content as text; `None` when it is not UTF-8.
    #[must_use]
    pub fn content_text(&self) -> Option<&str> {
        std::str::from_utf8(self.content_bytes()?).ok()
    }
}

impl From<Jid> for Value {
    fn from(jid: Jid) -> Self {
        Self::Jid(jid)
    }
}

impl From<&Jid> for Value {
    fn from(jid: &Jid) -> Self {
        Self::Jid(jid.clone())
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Text> for Value {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

/// Shape only: tag, attribute names, child tags, byte counts. Values may be personal data.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.tag)?;
        for (key, _) in &self.attrs {
            write!(f, " {key}")?;
        }
        match &self.content {
            Content::Empty => f.write_str("/>"),
            Content::Bytes(bytes) => write!(f, ">{} bytes</{}>", bytes.len(), self.tag),
            Content::Text(text) => write!(f, ">{} characters</{}>", text.len(), self.tag),
            Content::Nodes(nodes) => {
                f.write_str(">")?;
                nodes.iter().try_for_each(|node| node.fmt(f))?;
                write!(f, "</{}>", self.tag)
            }
        }
    }
}
