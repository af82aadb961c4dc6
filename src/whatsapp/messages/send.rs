//! Accepting a message, and keeping the lanes moving.
//!
//! A message is in the history as `pending` before anything else happens to it; after a restart it is found there and
//! sent with the same id, which lets server and recipient recognise it.

use std::time::Duration;

use prost::Message as _;

use super::{
    content::{self, Extract},
    fanout::Dispatch,
    job::{Job, Sent, Tries},
};
use crate::whatsapp::{
    ctx::Ctx,
    engine::{Engine, EngineError},
    jid::{Jid, Server},
    messages::id,
    model::{
        CommandError, CommandId, Event, MessageRecord, MessageStatus, OutgoingContent, QuotedMessage, Reply,
        SendId, SendRequest,
    },
    proto::Message,
    state::{StateRead, Write},
    tally::Counted,
    timers::Timer,
};

/// Longest text, bytes. Seen: the apps cut at 65,536 characters.
const MAX_TEXT_BYTES: usize = 65_536;
/// Longest message id a caller may choose.
const MAX_ID_BYTES: usize = 64;
/// Messages of one session that are accepted and not answered, on the wire or waiting for a connection: what a long
/// outage may cost in memory and disk, and more than a phone's owner would ever have waiting.
const MAX_QUEUED: usize = 1000;
/// A message is given up when no ack came within this. Seen: whatsmeow `request.go`, 75 s.
const ACK_TIMEOUT: Duration = Duration::from_secs(75);
/// Pending messages older than this are not sent after a restart: nobody expects them any more.
const MAX_PENDING_AGE_S: u64 = 24 * 60 * 60;
/// A conversation that went quiet keeps its decoded records for this long.
pub(super) const CACHE_IDLE: Duration = Duration::from_secs(60);

impl Engine {
    /// `Command::Send`.
    pub(in crate::whatsapp) fn on_send(
        &mut self,
        ctx: &mut Ctx<'_>,
        command: CommandId,
        request: SendRequest,
    ) -> Result<(), EngineError> {
        let Some(own) = self.own() else {
            self.refuse_send(command, CommandError::WrongState("the session is not linked to a phone"));
            return Ok(());
        };
        self.find_pending(ctx)?;
        let to = recipient(&request.to);
        if let Err(why) = check(&to, &request) {
            self.refuse_send(command, CommandError::Invalid(why.to_owned()));
            return Ok(());
        }
        let chat = self.display_name(ctx.store, &to)?;
        let is_full = self.messages.jobs.count() >= MAX_QUEUED;
        let id = match request.id {
            SendId::Fresh(id) => id,
            SendId::Repeat(id) => {
                if self.is_known_send(ctx.store, command, &chat, &id)? {
                    return Ok(());
                }
                id
            }
            SendId::Generate => id::generate(&own.pn.user, ctx.now.unix_s(), ctx.rng),
        };
        if is_full {
            self.refuse_send(command, CommandError::QueueFull);
            return Ok(());
        }
        let message = self.build_message(ctx, &chat, request.content)?;
        let sender = own.pn.to_user();
        let record = outgoing_record(id, chat, sender, &message, ctx.now.unix_s());
        let job = self.job_of(Some(command), &record, &message);
        self.state.add_message(record);
        self.tally.count(Counted::Accepted);
        if !self.may_send(ctx) {
            self.tally.count(Counted::Queued);
        }
        self.start_job(ctx, job)
    }

    /// A message that is not taken in.
    pub(in crate::whatsapp) fn refuse_send(&mut self, command: CommandId, error: CommandError) {
        self.tally.count(Counted::failed_send(&error));
        self.reply_failed(command, error);
    }

    /// An id that may have been used before: answers from what became of it.
    fn is_known_send(
        &mut self,
        store: &dyn StateRead,
        command: CommandId,
        chat: &Jid,
        id: &str,
    ) -> Result<bool, EngineError> {
        if let Some(job) = self.messages.jobs.find(id) {
            if job.chat == *chat && job.command.is_none() {
                job.command = Some(command);
            } else {
                let why = "a message with this id is being sent".to_owned();
                self.refuse_send(command, CommandError::Invalid(why));
            }
            return Ok(true);
        }
        let Some(record) = self.state.message(store, chat, id, None)?.filter(|record| record.from_me) else {
            return Ok(false);
        };
        if record.status == MessageStatus::Failed {
            let why = "a message with this id has failed; choose another id".to_owned();
            self.refuse_send(command, CommandError::Invalid(why));
        } else {
            self.reply(command, Reply::Sent { id: record.id, timestamp: record.timestamp });
        }
        Ok(true)
    }

    /// The protobuf, with the names in it brought into the namespace of the chat.
    fn build_message(
        &mut self,
        ctx: &mut Ctx<'_>,
        chat: &Jid,
        mut content: OutgoingContent,
    ) -> Result<Message, EngineError> {
        let OutgoingContent::Text { quote, .. } = &content;
        let quoted = quote.clone();
        let lid_addressed = if chat.is_group() {
            self.known_group(ctx.store, chat)?.is_none_or(|info| info.lid_addressed)
        } else {
            self.credentials.as_ref().is_some_and(|own| own.lid_migrated && own.lid.is_some())
        };
        for jid in content::mentions_mut(&mut content) {
            if jid.is_lid() != lid_addressed
                && let Some(other) = self.alternate(ctx.store, jid)?
            {
                *jid = other;
            }
        }
        let quoted = self.quoted_body(ctx, chat, quoted)?;
        let ephemeral = self.chat_record(ctx.store, chat)?.ephemeral();
        let mut secret = [0; 32];
        ctx.rng.fill_bytes(&mut secret);
        Ok(content::build(&content, secret, ephemeral, quoted))
    }

    /// What the quoted message said, as far as the history knows.
    fn quoted_body(
        &mut self,
        ctx: &Ctx<'_>,
        chat: &Jid,
        quoted: Option<QuotedMessage>,
    ) -> Result<Option<Message>, EngineError> {
        let Some(QuotedMessage { id, participant }) = quoted else { return Ok(None) };
        let author = self.display_name(ctx.store, &participant.to_user())?;
        let record = self.state.message(ctx.store, chat, &id, Some(&author))?;
        Ok(record.and_then(|record| Message::decode(record.raw.as_slice()).ok()).map(content::as_quoted))
    }

    fn job_of(&mut self, command: Option<CommandId>, record: &MessageRecord, message: &Message) -> Job {
        Job {
            seq: self.messages.jobs.next_seq(),
            command,
            id: record.id.clone(),
            chat: record.chat.clone(),
            raw: record.raw.clone(),
            stanza: content::stanza_kind(message),
            namespace: None,
            token_until: None,
            tries: Tries::default(),
            sent: Sent::default(),
        }
    }

    /// A job enters: onto the wire at once when nothing is in front of it.
    fn start_job(&mut self, ctx: &mut Ctx<'_>, job: Job) -> Result<(), EngineError> {
        if self.messages.jobs.is_waiting(&job.chat) {
            self.messages.jobs.queue(job);
            return Ok(());
        }
        self.advance_job(ctx, job).map(drop)
    }

    /// Moves every lane as far as it goes.
    pub(in crate::whatsapp) fn pump(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        if !self.may_send(ctx) {
            return Ok(());
        }
        for chat in self.messages.jobs.waiting_chats() {
            while let Some(job) = self.messages.jobs.next_of(&chat) {
                if !self.advance_job(ctx, job)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn may_send(&self, ctx: &Ctx<'_>) -> bool {
        self.is_logged_in() && self.messages.paused_until.is_none_or(|until| until <= ctx.now.mono)
    }

    /// Tries to send one job. False when it went back into its lane to wait.
    fn advance_job(&mut self, ctx: &mut Ctx<'_>, mut job: Job) -> Result<bool, EngineError> {
        if !self.may_send(ctx) {
            self.messages.jobs.queue(job);
            return Ok(false);
        }
        match self.dispatch_job(ctx, &mut job)? {
            Dispatch::Sent => {
                let deadline = ctx.now.mono + ACK_TIMEOUT;
                job.sent.at = ctx.now.mono;
                self.messages.jobs.put_on_wire(job, deadline);
                if !self.timers.is_set(Timer::MessageAck) {
                    self.arm(Timer::MessageAck, deadline);
                }
                self.arm(Timer::CacheTrim, ctx.now.mono + CACHE_IDLE);
                Ok(true)
            }
            Dispatch::Wait => {
                self.messages.jobs.queue(job);
                Ok(false)
            }
            Dispatch::Failed(error) => {
                self.fail_job(ctx, job, error);
                Ok(true)
            }
        }
    }

    /// Nothing helps: the message will not be delivered.
    pub(super) fn fail_job(&mut self, ctx: &Ctx<'_>, job: Job, error: CommandError) {
        log::info!("message {} failed: {error}", job.id);
        self.tally.count(Counted::failed_send(&error));
        let timestamp = ctx.now.unix_s();
        self.put_status(&job, MessageStatus::Failed, timestamp, Some(error.to_string()));
        if let Some(command) = job.command {
            self.reply_failed(command, error);
        }
    }

    /// The server has the message.
    pub(super) fn finish_job(&mut self, job: Job, timestamp: u64) {
        self.tally.count(Counted::Sent);
        self.put_status(&job, MessageStatus::Sent, timestamp, None);
        self.messages.progress.insert(job.id.clone(), MessageStatus::Sent);
        if let Some(command) = job.command {
            self.reply(command, Reply::Sent { id: job.id, timestamp });
        }
    }

    fn put_status(&mut self, job: &Job, status: MessageStatus, timestamp: u64, error: Option<String>) {
        self.state.push(Write::Status {
            chat: job.chat.clone(),
            id: job.id.clone(),
            status,
            participant: None,
            timestamp,
            error: error.clone(),
        });
        self.emit_durable(Event::MessageStatus {
            chat: job.chat.clone(),
            id: job.id.clone(),
            status,
            participant: None,
            timestamp,
            error,
        });
    }

    /// Logged in on a new connection: sends that wait for one go on.
    pub(in crate::whatsapp) fn on_messages_connected(
        &mut self,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), EngineError> {
        self.messages.paused_until = None;
        self.messages.pause_step = 0;
        if !self.messages.missing.is_empty() {
            self.arm(Timer::Placeholder, ctx.now.mono);
        }
        self.find_pending(ctx)?;
        self.pump(ctx)
    }

    /// After a restart, once: messages that were accepted and never answered. They go in front of all newer ones.
    fn find_pending(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        if std::mem::replace(&mut self.messages.found_pending, true) {
            return Ok(());
        }
        for record in ctx.store.pending_messages()? {
            let message = Message::decode(record.raw.as_slice()).unwrap_or_default();
            let job = self.job_of(None, &record, &message);
            if record.timestamp + MAX_PENDING_AGE_S < ctx.now.unix_s() {
                self.fail_job(ctx, job, CommandError::Timeout);
            } else {
                self.messages.jobs.queue(job);
                self.tally.touch();
            }
        }
        Ok(())
    }

    /// The connection is gone: what was on the wire waits in its lane for the next one, with the same id.
    pub(in crate::whatsapp) fn on_messages_disconnected(&mut self, _ctx: &mut Ctx<'_>) {
        self.messages.jobs.requeue_wire();
        self.messages.fetching.clear();
        self.messages.distributing.clear();
        self.messages.receipts.clear();
        self.messages.resends.clear();
        self.messages.answered.drain().for_each(drop);
        self.contacts.disconnected();
        self.groups.disconnected();
    }

    /// Unlinked: nothing can be sent any more.
    pub(in crate::whatsapp) fn on_messages_logged_out(&mut self, ctx: &mut Ctx<'_>) {
        // Whoever links next is somebody else: what an earlier run of the worker left must not go out in their name.
        if let Err(error) = self.find_pending(ctx) {
            log::error!("messages that wait could not be read: {error}");
        }
        for job in self.messages.jobs.drain() {
            self.fail_job(ctx, job, CommandError::NotConnected);
        }
        self.messages = super::Messages::default();
        self.contacts = super::super::contacts::Contacts::default();
        self.groups = super::super::groups::Groups::default();
    }

    /// [`Timer::MessageAck`]: overdue acks, tokens that did not come, and the end of a pause.
    pub(super) fn on_ack_timer(&mut self, ctx: &mut Ctx<'_>) -> Result<(), EngineError> {
        while let Some(mut job) = self.messages.jobs.overdue(ctx.now.mono) {
            self.release_distribution(&job);
            if job.tries.timeouts == 0 {
                job.tries.timeouts += 1;
                self.messages.jobs.queue(job);
            } else {
                self.fail_job(ctx, job, CommandError::Timeout);
            }
        }
        if self.messages.paused_until.is_some_and(|until| until <= ctx.now.mono) {
            self.messages.paused_until = None;
        }
        self.pump(ctx)?;
        self.arm_ack_timer();
        Ok(())
    }

    /// Arms the timer for the next overdue ack, the next message that waited long enough for a token, or the end of
    /// the pause, whichever is first.
    pub(super) fn arm_ack_timer(&mut self) {
        let jobs = &self.messages.jobs;
        let deadlines = [jobs.next_deadline(), jobs.next_token_deadline(), self.messages.paused_until];
        match deadlines.into_iter().flatten().min() {
            Some(at) => self.timers.set(Timer::MessageAck, at),
            None => self.timers.clear(Timer::MessageAck),
        }
    }
}

/// The chat a request means: legacy and device forms are brought into the usual one.
fn recipient(to: &Jid) -> Jid {
    if to.server == Server::LegacyPn { Jid::pn(to.user.clone()) } else { to.to_user() }
}

fn check(to: &Jid, request: &SendRequest) -> Result<(), &'static str> {
    if !(to.is_user() || to.is_group() && !to.user.is_empty()) {
        return Err("messages can be sent to a person or a group");
    }
    let OutgoingContent::Text { body, .. } = &request.content;
    if body.is_empty() || body.len() > MAX_TEXT_BYTES {
        return Err("a text has 1 to 65536 bytes");
    }
    let well_formed = |id: &str| {
        (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match &request.id {
        SendId::Fresh(id) | SendId::Repeat(id) if !well_formed(id) => {
            Err("a message id has 1 to 64 letters, digits and hyphens")
        }
        _ => Ok(()),
    }
}

fn outgoing_record(id: String, chat: Jid, sender: Jid, message: &Message, timestamp: u64) -> MessageRecord {
    let Extract { kind, content, target_id } = content::extract(message).unwrap_or(Extract {
        kind: "unknown",
        content: String::new(),
        target_id: None,
    });
    MessageRecord {
        id,
        chat,
        sender,
        from_me: true,
        kind: kind.to_owned(),
        content,
        push_name: None,
        target_id,
        timestamp,
        status: MessageStatus::Pending,
        raw: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(to: &str, id: Option<&str>, body: &str) -> SendRequest {
        let id = id.map_or(SendId::Generate, |id| SendId::Repeat(id.to_owned()));
        SendRequest {
            to: to.parse().unwrap(),
            id,
            content: OutgoingContent::Text { body: body.to_owned(), quote: None, mentions: vec![] },
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused_before_anything_is_written() {
        let verdict = |request: SendRequest| check(&recipient(&request.to), &request);
        assert!(verdict(request("6281200000001@c.us", None, "hi")).is_ok());
        assert!(verdict(request("120363@g.us", Some("3EB0-a"), "hi")).is_ok());
        assert!(verdict(request("status@broadcast", None, "hi")).is_err());
        assert!(verdict(request("s.whatsapp.net", None, "hi")).is_err());
        assert!(verdict(request("1@lid", None, "")).is_err());
        assert!(verdict(request("1@lid", None, &"x".repeat(65_537))).is_err());
        assert!(verdict(request("1@lid", Some(""), "hi")).is_err());
        assert!(verdict(request("1@lid", Some("a/b"), "hi")).is_err());
    }
}
