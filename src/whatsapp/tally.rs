//! What an engine counts about its own work, in plain numbers. Whoever drives the engine takes them away now and then
//! ([`super::engine::Engine::take_tally`]). Knows nothing of metrics, and nothing that could name a person.

use std::time::Duration;

use super::{model::CommandError, signal::SignalError};

/// What belongs together under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// How messages to send ended; each of them once.
    Sends,
    /// Refusals by the server, remedied or not, by its code.
    Refusals,
    /// Messages stored, by where they came from.
    Received,
    /// What came and could not be opened, by why.
    Undecryptable,
    /// Retry receipts, in and out.
    Retries,
    /// What has a name of its own.
    Single,
}

/// Makes [`Counted`], the list of all of it, and the family and word of each.
macro_rules! counted {
    ($($(#[doc = $doc:literal])+ $name:ident = $family:ident $word:literal),+ $(,)?) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Counted { $($(#[doc = $doc])+ $name),+ }

        impl Counted {
            /// All of them, those of a family together, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// What it belongs to.
            #[must_use]
            pub const fn family(self) -> Family {
                match self { $(Self::$name => Family::$family),+ }
            }

            /// What tells it from the others of its family.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }
        }
    };
}

counted! {
    /// The server has the message.
    Sent = Sends "sent",
    /// It could not be sent as it was asked for.
    SendInvalid = Sends "invalid",
    /// The session was not linked, or was unlinked before the message left.
    SendNotLinked = Sends "not_linked",
    /// The recipient is not on WhatsApp.
    SendNoRecipient = Sends "no_recipient",
    /// The account may not open new chats now.
    SendRestricted = Sends "restricted",
    /// The server asks to slow down, also after pauses.
    SendRateLimited = Sends "rate_limited",
    /// Refused for another reason of ours.
    SendRefused = Sends "refused",
    /// The server was in trouble, also after pauses.
    SendServerError = Sends "server_error",
    /// The session's queue was full.
    SendQueueFull = Sends "queue_full",
    /// No ack came, or the message waited for a day.
    SendTimeout = Sends "timeout",
    /// Our own store failed.
    SendStore = Sends "store",
    /// Malformed, or addressed in the wrong namespace.
    Refusal400 = Refusals "400",
    /// Not allowed.
    Refusal403 = Refusals "403",
    /// Nobody there.
    Refusal404 = Refusals "404",
    /// Not allowed in this chat.
    Refusal405 = Refusals "405",
    /// A device is not registered.
    Refusal406 = Refusals "406",
    /// Without explanation.
    Refusal420 = Refusals "420",
    /// Addressing of the group changed.
    Refusal421 = Refusals "421",
    /// Slow down.
    Refusal429 = Refusals "429",
    /// A token is missing, or the account is restricted.
    Refusal463 = Refusals "463",
    /// Quota of new chats.
    Refusal475 = Refusals "475",
    /// A shape the server does not take, or devices that changed.
    Refusal479 = Refusals "479",
    /// Trouble of the server.
    Refusal500 = Refusals "500",
    /// The same.
    Refusal503 = Refusals "503",
    /// A code that is not in the table.
    RefusalOther = Refusals "other",
    /// From a person.
    ReceivedDirect = Received "direct",
    /// In a group.
    ReceivedGroup = Received "group",
    /// Sent from another device of this account.
    ReceivedOwn = Received "own_device",
    /// A status update.
    ReceivedStatus = Received "status",
    /// It was there already, and was not stored again.
    ReceivedRepeat = Received "repeat",
    /// There is no session with the sender's device.
    NoSession = Undecryptable "no_session",
    /// The sender's key of the group is missing.
    NoSenderKey = Undecryptable "no_sender_key",
    /// Made with keys that we do not have.
    BadMac = Undecryptable "bad_mac",
    /// Made with a prekey that we do not have.
    UnknownPreKey = Undecryptable "unknown_prekey",
    /// Malformed, unsigned or out of range.
    Malformed = Undecryptable "malformed",
    /// A key was used for two messages.
    KeyReused = Undecryptable "key_reused",
    /// Our own record is damaged.
    OwnRecord = Undecryptable "own_record",
    /// It opened, and the content is no message; or it is of a kind that cannot be opened.
    Unreadable = Undecryptable "unreadable",
    /// We asked for a resend.
    RetryAsked = Retries "out",
    /// Somebody asked us for a resend.
    RetryReceived = Retries "in",
    /// And got it.
    Resent = Single "resent",
    /// A message was taken in for sending, and is durable from now on.
    Accepted = Single "accepted",
    /// One of them found no connection, or a pause that the server asked for.
    Queued = Single "queued",
}

impl Counted {
    /// A message to send ended like this.
    pub(in crate::whatsapp) fn failed_send(error: &CommandError) -> Self {
        match error {
            CommandError::Invalid(_) => Self::SendInvalid,
            CommandError::NotConnected | CommandError::WrongState(_) => Self::SendNotLinked,
            CommandError::NoSuchRecipient => Self::SendNoRecipient,
            CommandError::Refused { code: 463 | 475, .. } => Self::SendRestricted,
            CommandError::Refused { code: 500..600, .. } => Self::SendServerError,
            CommandError::Refused { .. } => Self::SendRefused,
            CommandError::RateLimited => Self::SendRateLimited,
            CommandError::QueueFull => Self::SendQueueFull,
            CommandError::Timeout | CommandError::ConnectionLost => Self::SendTimeout,
            CommandError::Store(_) => Self::SendStore,
        }
    }

    /// The server refused a message with this code.
    pub(in crate::whatsapp) fn refusal(code: u16) -> Self {
        match code {
            400 => Self::Refusal400,
            403 => Self::Refusal403,
            404 => Self::Refusal404,
            405 => Self::Refusal405,
            406 => Self::Refusal406,
            420 => Self::Refusal420,
            421 => Self::Refusal421,
            429 => Self::Refusal429,
            463 => Self::Refusal463,
            475 => Self::Refusal475,
            479 => Self::Refusal479,
            500 => Self::Refusal500,
            503 => Self::Refusal503,
            _ => Self::RefusalOther,
        }
    }

    /// A message did not open.
    pub(in crate::whatsapp) fn undecryptable(error: SignalError) -> Self {
        match error {
            SignalError::NoSession => Self::NoSession,
            SignalError::NoSenderKey => Self::NoSenderKey,
            SignalError::BadMac => Self::BadMac,
            SignalError::InvalidPreKeyId | SignalError::InvalidSignedPreKeyId => Self::UnknownPreKey,
            SignalError::InvalidMessage
            | SignalError::BadSignature
            | SignalError::TooFarAhead
            | SignalError::InvalidKey => Self::Malformed,
            SignalError::Duplicate => Self::KeyReused,
            SignalError::ChainExhausted
            | SignalError::DamagedRecord
            | SignalError::UnknownRecordVersion(_) => Self::OwnRecord,
        }
    }
}

/// Numbers since they were last taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    counts: [u32; Counted::ALL.len()],
    ack_waits: Vec<Duration>,
    is_empty: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: [0; Counted::ALL.len()], ack_waits: Vec::new(), is_empty: true }
    }
}

impl Tally {
    /// One more of these.
    pub(in crate::whatsapp) fn count(&mut self, what: Counted) {
        if let Some(count) = self.counts.get_mut(what as usize) {
            *count = count.saturating_add(1);
        }
        self.is_empty = false;
    }

    /// The server acknowledged a message so long after it left.
    pub(in crate::whatsapp) fn acked_after(&mut self, wait: Duration) {
        self.ack_waits.push(wait);
        self.is_empty = false;
    }

    /// Something that is not counted changed: queue lengths, prekeys.
    pub(in crate::whatsapp) fn touch(&mut self) {
        self.is_empty = false;
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// How many of each, in the order of [`Counted::ALL`].
    #[must_use]
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// From the wire to the server's ack, for each message.
    #[must_use]
    pub fn ack_waits(&self) -> &[Duration] {
        &self.ack_waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_each_is_its_place_in_the_list_and_words_are_unique_in_a_family() {
        for (place, what) in Counted::ALL.iter().enumerate() {
            assert_eq!(*what as usize, place);
            let same = |other: &&Counted| other.family() == what.family() && other.word() == what.word();
            assert_eq!(Counted::ALL.iter().filter(same).count(), 1, "{what:?}");
        }
    }

    #[test]
    fn codes_are_counted_under_themselves_and_unknown_ones_together() {
        for what in Counted::ALL.iter().filter(|what| what.family() == Family::Refusals) {
            let code = what.word().parse().unwrap_or(499);
            assert_eq!(Counted::refusal(code), *what);
        }
        let refused = |code| Counted::failed_send(&CommandError::Refused { code, reason: "" });
        assert_eq!([463, 475].map(refused), [Counted::SendRestricted; 2]);
        assert_eq!([500, 503].map(refused), [Counted::SendServerError; 2]);
        assert_eq!([400, 420, 479].map(refused), [Counted::SendRefused; 3]);
    }

    #[test]
    fn a_tally_knows_whether_anything_happened() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        tally.count(Counted::RetryAsked);
        assert!(!tally.is_empty());
        assert_eq!(tally.counts()[Counted::RetryAsked as usize], 1);
        assert_eq!(tally.counts().iter().sum::<u32>(), 1);
    }
}
