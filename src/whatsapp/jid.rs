//! JIDs: who a stanza is from or to.
//!
//! Text form `user[_agent][:device]@server`. `user@server` and `user:0@server` name the same device.
//! PN = phone-number JID (`…@s.whatsapp.net`), LID = opaque account id (`…@lid`).
//!
//! Seen: whatsmeow `types/jid.go` @33cfac51; whatsapp-rust `wacore/binary/src/jid.rs` @1489b7da.

use std::{borrow::Cow, fmt, str::FromStr};

/// The part behind the `@`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// `s.whatsapp.net`: addressed by phone number.
    Pn,
    /// `lid`: addressed by opaque id.
    Lid,
    /// `g.us`: groups.
    Group,
    /// `broadcast`: broadcast lists and `status@broadcast`.
    Broadcast,
    /// `newsletter`: channels.
    Newsletter,
    /// `hosted`: Cloud-API device of a PN.
    Hosted,
    /// `hosted.lid`: Cloud-API device of a LID.
    HostedLid,
    /// `c.us`: legacy phone-number form, only in contact queries.
    LegacyPn,
    /// `bot`.
    Bot,
    /// `call`.
    Call,
    /// `msgr`: Messenger interoperability.
    Messenger,
    /// `interop`: other-network interoperability.
    Interop,
    /// A server this code does not know; kept so that stanzas can be answered.
    Other(Box<str>),
}

impl Server {
    /// The wire text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pn => "s.whatsapp.net",
            Self::Lid => "lid",
            Self::Group => "g.us",
            Self::Broadcast => "broadcast",
            Self::Newsletter => "newsletter",
            Self::Hosted => "hosted",
            Self::HostedLid => "hosted.lid",
            Self::LegacyPn => "c.us",
            Self::Bot => "bot",
            Self::Call => "call",
            Self::Messenger => "msgr",
            Self::Interop => "interop",
            Self::Other(text) => text,
        }
    }
}

impl From<&str> for Server {
    fn from(text: &str) -> Self {
        match text {
            "s.whatsapp.net" => Self::Pn,
            "lid" => Self::Lid,
            "g.us" => Self::Group,
            "broadcast" => Self::Broadcast,
            "newsletter" => Self::Newsletter,
            "hosted" => Self::Hosted,
            "hosted.lid" => Self::HostedLid,
            "c.us" => Self::LegacyPn,
            "bot" => Self::Bot,
            "call" => Self::Call,
            "msgr" => Self::Messenger,
            "interop" => Self::Interop,
            other => Self::Other(other.into()),
        }
    }
}

/// One address. Two JIDs are equal when user, device and server are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Jid {
    /// Phone number, LID, group id, …; may be empty (`@s.whatsapp.net` is the service itself).
    pub user: Cow<'static, str>,
    /// Device index; 0 is the phone.
    pub device: u16,
    /// Where the user lives.
    pub server: Server,
}

impl Jid {
    /// A device-less JID.
    #[must_use]
    pub fn new(user: impl Into<Cow<'static, str>>, server: Server) -> Self {
        Self { user: user.into(), device: 0, server }
    }

    /// `user@s.whatsapp.net`.
    #[must_use]
    pub fn pn(user: impl Into<Cow<'static, str>>) -> Self {
        Self::new(user, Server::Pn)
    }

    /// `user@lid`.
    #[must_use]
    pub fn lid(user: impl Into<Cow<'static, str>>) -> Self {
        Self::new(user, Server::Lid)
    }

    /// `@s.whatsapp.net`: the service.
    #[must_use]
    pub fn service() -> Self {
        Self::new("", Server::Pn)
    }

    /// `status@broadcast`.
    #[must_use]
    pub fn status_broadcast() -> Self {
        Self::new("status", Server::Broadcast)
    }

    /// The same user on another device.
    #[must_use]
    pub fn with_device(&self, device: u16) -> Self {
        Self { user: self.user.clone(), device, server: self.server.clone() }
    }

    /// The user without a device ("non-AD" JID). Hosted servers fold to their base server.
    #[must_use]
    pub fn to_user(&self) -> Self {
        let server = match self.server {
            Server::Hosted => Server::Pn,
            Server::HostedLid => Server::Lid,
            _ => self.server.clone(),
        };
        Self { user: self.user.clone(), device: 0, server }
    }

    /// Drops an agent part (`user_1`) of a person: every current client ignores it, and in a Signal address it would
    /// name another user.
    #[must_use]
    pub(in crate::whatsapp) fn without_agent(mut self) -> Self {
        if (self.is_pn() || self.is_lid())
            && let Some((bare, agent)) = self.user.split_once('_')
            && !agent.is_empty()
            && agent.bytes().all(|byte| byte.is_ascii_digit())
        {
            self.user = Cow::Owned(bare.to_owned());
        }
        self
    }

    /// A phone-number address (hosted included).
    #[must_use]
    pub fn is_pn(&self) -> bool {
        matches!(self.server, Server::Pn | Server::Hosted | Server::LegacyPn)
    }

    /// A LID address (hosted included).
    #[must_use]
    pub fn is_lid(&self) -> bool {
        matches!(self.server, Server::Lid | Server::HostedLid)
    }

    /// A group.
    #[must_use]
    pub fn is_group(&self) -> bool {
        self.server == Server::Group
    }

    /// `status@broadcast`.
    #[must_use]
    pub fn is_status_broadcast(&self) -> bool {
        self.server == Server::Broadcast && self.user == "status"
    }

    /// A person (PN or LID) with a user part.
    #[must_use]
    pub fn is_user(&self) -> bool {
        (self.is_pn() || self.is_lid()) && !self.user.is_empty()
    }

    /// A Cloud-API device: never gets sender keys. Seen: Baileys `WABinary/jid-utils.ts`.
    #[must_use]
    pub fn is_hosted(&self) -> bool {
        matches!(self.server, Server::Hosted | Server::HostedLid) || self.device == 99
    }

    /// Same user on the same base server, whatever the device.
    #[must_use]
    pub fn same_user(&self, other: &Self) -> bool {
        self.user == other.user && self.to_user().server == other.to_user().server
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.user.is_empty() {
            f.write_str(&self.user)?;
            if self.device != 0 {
                write!(f, ":{}", self.device)?;
            }
            f.write_str("@")?;
        } else if !reads_as_bare_server(self.server.as_str()) {
            f.write_str("@")?;
        }
        f.write_str(self.server.as_str())
    }
}

/// Why a text is not a JID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    /// No server part.
    #[error("a JID needs a server, like 6281234567890@s.whatsapp.net")]
    NoServer,
    /// The device part is not a number of at most 16 bits.
    #[error("the device part of a JID must be a number below 65536")]
    BadDevice,
    /// Control characters, blanks or a second `@`.
    #[error("a JID must not contain blanks, control characters or a second @")]
    BadCharacter,
    /// Longer than any real JID.
    #[error("a JID must not be longer than 128 bytes")]
    TooLong,
}

impl FromStr for Jid {
    type Err = JidError;

    /// Reads the text form. An agent part (`user_agent`) is dropped.
    fn from_str(text: &str) -> Result<Self, JidError> {
        if text.len() > 128 {
            return Err(JidError::TooLong);
        }
        let Some((user, server)) = text.split_once('@') else {
            // The bare server is how the service itself is written: `s.whatsapp.net`.
            return if !reads_as_bare_server(text) {
                Err(JidError::NoServer)
            } else if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
                Err(JidError::BadCharacter)
            } else {
                Ok(Self::new("", Server::from(text)))
            };
        };
        if server.is_empty() {
            return Err(JidError::NoServer);
        }
        if text.bytes().any(|b| b <= b' ' || b == 0x7f) || server.contains('@') {
            return Err(JidError::BadCharacter);
        }
        let (user, device) = match user.split_once(':') {
            Some((user, device)) => (user, device.parse().map_err(|_| JidError::BadDevice)?),
            None => (user, 0),
        };
        let jid =
            Self { user: Cow::Owned(user.to_owned()), device, server: Server::from(server) }.without_agent();
        if jid.device != 0 && jid.user.is_empty() { Err(JidError::BadDevice) } else { Ok(jid) }
    }
}

/// Whether a text without `@` is a server rather than a forgotten one.
fn reads_as_bare_server(text: &str) -> bool {
    text.contains('.') || matches!(text, "lid" | "broadcast" | "call")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for text in [
            "6281234567890@s.whatsapp.net",
            "6281234567890:17@s.whatsapp.net",
            "123456789012345:2@lid",
            "120363000000000000@g.us",
            "6281234567890-1600000000@g.us",
            "status@broadcast",
            "s.whatsapp.net",
        ] {
            assert_eq!(text.parse::<Jid>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn device_zero_is_the_bare_user() {
        assert_eq!("1:0@lid".parse::<Jid>().unwrap(), "1@lid".parse::<Jid>().unwrap());
    }

    #[test]
    fn bad_texts_are_refused_with_the_reason() {
        assert_eq!("".parse::<Jid>(), Err(JidError::NoServer));
        assert_eq!("123".parse::<Jid>(), Err(JidError::NoServer));
        assert_eq!("1@".parse::<Jid>(), Err(JidError::NoServer));
        assert_eq!("1:x@lid".parse::<Jid>(), Err(JidError::BadDevice));
        assert_eq!("1:70000@lid".parse::<Jid>(), Err(JidError::BadDevice));
        assert_eq!("1 2@lid".parse::<Jid>(), Err(JidError::BadCharacter));
        assert_eq!("1@2@lid".parse::<Jid>(), Err(JidError::BadCharacter));
    }

    #[test]
    fn a_server_without_user_keeps_its_at_where_it_is_needed() {
        for text in ["@9", "@bot", "lid", "s.whatsapp.net"] {
            assert_eq!(text.parse::<Jid>().unwrap().to_string(), text);
        }
        for text in [":5@lid", "_0:84@lid"] {
            assert_eq!(text.parse::<Jid>(), Err(JidError::BadDevice), "{text}");
        }
    }

    #[test]
    fn an_agent_part_is_dropped() {
        assert_eq!("123_1:4@s.whatsapp.net".parse::<Jid>().unwrap(), Jid::pn("123").with_device(4));
    }
}
