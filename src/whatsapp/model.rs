//! The engine's face: commands in, outputs and events out, and the records they carry.

use std::time::Duration;

use super::{jid::Jid, state::Batch};

/// Chosen by the caller; comes back in [`Output::Reply`].
pub type CommandId = u64;

/// What a caller can ask of a session.
#[derive(Debug, Clone)]
pub enum Command {
    /// Send a message. Reply: [`Reply::Sent`] after the server's ack.
    Send(SendRequest),
    /// Link by phone number instead of QR. Reply: [`Reply::PairCode`].
    PairCode {
        /// Digits only, international form.
        phone: String,
    },
    /// Tell the sender that these messages were read. Reply: [`Reply::Done`].
    MarkRead {
        /// The chat.
        chat: Jid,
        /// The author, in groups.
        participant: Option<Jid>,
        /// Message ids.
        ids: Vec<String>,
    },
    /// Unlink this device. Reply: [`Reply::Done`] when the server confirmed.
    Logout,
    /// Who is in this group, from the cache or asked now. Reply: [`Reply::Group`].
    GroupInfo {
        /// The group.
        group: Jid,
    },
    /// Create a group (tests and the later groups issue). Reply: [`Reply::Group`].
    CreateGroup {
        /// Title, 1 to 100 characters.
        subject: String,
        /// Members besides us.
        participants: Vec<Jid>,
    },
}

/// A message to send.
#[derive(Debug, Clone)]
pub struct SendRequest {
    /// A user (PN or LID) or a group.
    pub to: Jid,
    /// The message's id.
    pub id: SendId,
    /// What to say.
    pub content: OutgoingContent,
}

/// Which id a message gets.
#[derive(Debug, Clone)]
pub enum SendId {
    /// The engine makes one.
    Generate,
    /// Made at random for this command: no message can have it.
    Fresh(String),
    /// Chosen earlier (idempotency): a message may have it, and then nothing is sent again.
    Repeat(String),
}

/// What can be sent. More kinds come with later issues.
#[derive(Debug, Clone)]
pub enum OutgoingContent {
    /// Plain text.
    Text {
        /// UTF-8, 1 to 65,536 bytes.
        body: String,
        /// The message this one answers.
        quote: Option<QuotedMessage>,
        /// Users named in the text by `@<user>`.
        mentions: Vec<Jid>,
    },
}

/// A message that is answered.
#[derive(Debug, Clone)]
pub struct QuotedMessage {
    /// Its id.
    pub id: String,
    /// Its author.
    pub participant: Jid,
}

/// Answer to a [`Command`].
#[derive(Debug, Clone)]
pub enum Reply {
    /// The server has the message.
    Sent {
        /// Its id.
        id: String,
        /// The server's time, Unix seconds.
        timestamp: u64,
    },
    /// The code to type on the phone, `XXXX-XXXX`.
    PairCode {
        /// The code.
        code: String,
        /// How long it stays valid.
        expires_in: Duration,
    },
    /// Group metadata.
    Group(Box<GroupInfo>),
    /// Done, nothing to tell.
    Done,
    /// It did not work.
    Failed(CommandError),
}

/// Why a command failed. One variant per thing the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not logged in (yet).
    #[error("the session is not connected to WhatsApp")]
    NotConnected,
    /// Pairing is needed or under way, or the session is already paired.
    #[error("not possible in this state: {0}")]
    WrongState(&'static str),
    /// The recipient is not on WhatsApp, or has no reachable device.
    #[error("the recipient has no WhatsApp device")]
    NoSuchRecipient,
    /// The server refused; `code` is its number.
    #[error("WhatsApp refused: {reason} ({code})")]
    Refused {
        /// 400, 403, 404, 463, 475, 479, …
        code: u16,
        /// In words.
        reason: &'static str,
    },
    /// 429, or an account restriction: try later.
    #[error("WhatsApp asks to slow down")]
    RateLimited,
    /// So many messages of this session wait already that no further one is taken.
    #[error("too many messages of this session wait to be sent")]
    QueueFull,
    /// No answer in time; the message stays queued where that is safe.
    #[error("WhatsApp did not answer in time")]
    Timeout,
    /// The connection went away before the answer.
    #[error("the connection to WhatsApp was lost")]
    ConnectionLost,
    /// The request itself cannot be sent.
    #[error("{0}")]
    Invalid(String),
    /// Our own store failed.
    #[error("the local store failed: {0}")]
    Store(String),
}

/// What the session thread must do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Make durable. Nothing behind this output may happen before.
    Persist(Batch),
    /// Send as one binary websocket message.
    Transmit(Vec<u8>),
    /// Tell whoever listens; not durable (durable events travel inside [`Output::Persist`]).
    Event(Event),
    /// Answer a command.
    Reply(CommandId, Reply),
    /// Close the socket. What to do next is in the reason.
    Disconnect(DisconnectReason),
}

/// Why the engine wants the socket closed, and so what comes next (protocol-facts 1.8, 1.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisconnectReason {
    /// 515 after pairing, or any time: reconnect at once, no back-off.
    RestartRequired,
    /// Network-level trouble (dead socket, bad frame, bad certificate, stream end, 5xx): reconnect with back-off.
    /// `extra_steps` advances the back-off (429: 5).
    Retry {
        /// What kind of trouble.
        trouble: Trouble,
        /// In words, for status and log.
        reason: String,
        /// Back-off steps on top of the usual one.
        extra_steps: u32,
    },
    /// The same credentials connected elsewhere: do not reconnect, keep credentials.
    Replaced,
    /// Unlinked: credentials are gone (the engine already cleared them durably).
    LoggedOut {
        /// In words.
        reason: String,
    },
    /// Temporary ban: wait this long.
    Banned {
        /// Server's code.
        code: u32,
        /// How long.
        expires_in: Duration,
    },
    /// 405: our version is too old. Reconnect once with a newer version, then back off long.
    ClientOutdated,
    /// Stop and let a person look (400, 409, …).
    Stop {
        /// In words.
        reason: String,
    },
    /// Nobody scanned: all QR refs used.
    QrTimeout,
    /// We asked for it (logout).
    Requested,
}

/// What kind of trouble ended a connection that is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Handshake, login or pairing were not answered, or not as they must be.
    Handshake,
    /// The server answers nothing any more.
    Silence,
    /// The server ended the stream.
    StreamEnd,
    /// The server says that it has trouble (5xx).
    Server,
    /// The server asks to slow down (429).
    RateLimited,
    /// One side could not read what the other sent.
    Protocol,
}

/// What the outside is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A QR to show. Replaces the earlier one.
    Qr {
        /// The text to draw.
        code: String,
        /// Until the next one.
        expires_in: Duration,
    },
    /// This account needs a passkey step that only a browser can do.
    PasskeyRequired {
        /// WebAuthn request options as the server sent them.
        options: String,
    },
    /// The phone accepted us; a restart of the stream follows.
    Paired {
        /// Our PN JID with device.
        jid: Jid,
        /// Our LID with device.
        lid: Option<Jid>,
    },
    /// Logged in.
    Connected {
        /// Our PN JID with device.
        jid: Jid,
        /// Our LID with device.
        lid: Option<Jid>,
        /// Our own name, when known.
        push_name: Option<String>,
    },
    /// The offline queue is drained: everything that waited has been delivered.
    Ready,
    /// Unlinked.
    LoggedOut {
        /// In words.
        reason: String,
    },
    /// A message arrived, or was sent from another device of ours.
    Message(Box<MessageRecord>, Box<Arrival>),
    /// A message of ours made progress.
    MessageStatus {
        /// The chat.
        chat: Jid,
        /// Message id.
        id: String,
        /// New status.
        status: MessageStatus,
        /// Who, in a group.
        participant: Option<Jid>,
        /// Unix seconds.
        timestamp: u64,
        /// Why, when failed.
        error: Option<String>,
    },
    /// A message could not be decrypted and a resend was asked for.
    Undecryptable {
        /// The chat.
        chat: Jid,
        /// Message id.
        id: String,
        /// Its author.
        sender: Jid,
    },
    /// A peer's identity key changed (new phone or reinstall).
    IdentityChanged {
        /// Whose.
        user: Jid,
    },
    /// A group changed.
    GroupChanged {
        /// Which.
        group: Jid,
    },
}

/// Progress of a message. Ordered: a status never moves back, `Failed` excepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageStatus {
    /// Accepted by us, not yet by the server.
    Pending = 1,
    /// The server has it.
    Sent = 2,
    /// A device has it. Incoming messages are stored with this.
    Delivered = 3,
    /// It was seen.
    Read = 4,
    /// Voice or video was played.
    Played = 5,
    /// It will not be delivered.
    Failed = 6,
}

impl MessageStatus {
    /// The word of the REST contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
            Self::Failed => "failed",
        }
    }
}

/// One message of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageRecord {
    /// Message id, unique per (chat, sender).
    pub id: String,
    /// Peer or group, without device. For 1:1 the PN when it is known, so that a chat has one name.
    pub chat: Jid,
    /// Author, without device.
    pub sender: Jid,
    /// Sent by this account (this device or another one).
    pub from_me: bool,
    /// `text`, `image`, `reaction`, `edit`, `revoke`, …: the REST `type`.
    pub kind: String,
    /// What the REST `content` shows: text, caption, emoji; empty when there is none.
    pub content: String,
    /// Author's display name, as the stanza carried it.
    pub push_name: Option<String>,
    /// For an edit, a revoke or a reaction: the message it is about.
    pub target_id: Option<String>,
    /// Unix seconds, the server's.
    pub timestamp: u64,
    /// Progress.
    pub status: MessageStatus,
    /// The protobuf `Message`, unpadded, for resends and for history.
    pub raw: Vec<u8>,
}

/// What is known of an arriving message besides what history keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The author's name in the other namespace (LID or PN), when it is known.
    pub sender_alt: Option<Jid>,
    /// The same for a chat with one person.
    pub chat_alt: Option<Jid>,
    /// It came before everything that waited for us had come: it may be old.
    pub offline: bool,
}

/// What is known of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupInfo {
    /// `…@g.us`.
    pub jid: Jid,
    /// Title.
    pub subject: String,
    /// Whether members are addressed by LID (else by PN).
    pub lid_addressed: bool,
    /// Members, device-less, in the group's namespace.
    pub participants: Vec<GroupParticipant>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupParticipant {
    /// In the group's namespace.
    pub jid: Jid,
    /// The same person in the other namespace, when known.
    pub alt: Option<Jid>,
    /// Admin or creator.
    pub is_admin: bool,
}
