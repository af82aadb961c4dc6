//! The server's ack of a message: done, one remedy, or failed. The table is in [`super::ack`].

use std::time::Duration;

use super::{
    ack::{AckAction, action, refusal},
    fanout::Dispatch,
    job::Job,
    namespace::Namespace,
};
use crate::whatsapp::{
    binary::Node,
    ctx::Ctx,
    engine::{Engine, EngineError},
    tally::Counted,
};

/// First pause after a 429 or a 5xx; doubled each time, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(120);
/// A job is paused for this often before it fails.
const MAX_PAUSES: u8 = 3;
/// A message refused for want of a token waits this long for one: whoever we write to may grant it in the same moment,
/// and a caller of the API waits somewhat longer for the answer.
const TOKEN_WAIT: Duration = Duration::from_secs(5);
/// A device hash that differs from ours makes us ask again, but not more often than this: where the two sides count
/// differently, asking does not help.
const PHASH_INTERVAL: Duration = Duration::from_secs(300);

impl Engine {
    /// `<ack class="message" …>` from the server.
    pub(in crate::whatsapp) fn on_message_ack(
        &mut self,
        ctx: &mut Ctx<'_>,
        stanza: &Node,
    ) -> Result<(), EngineError> {
        // Acks of resends and peer messages are for jobs that are done already.
        let Some(id) = stanza.get("id") else { return Ok(()) };
        let Some(job) = self.messages.jobs.take_from_wire(&id) else { return Ok(()) };
        self.release_distribution(&job);
        // An error that is not a number is still an error.
        let code = stanza.get("error").map_or(0, |code| code.parse().unwrap_or(u16::MAX));
        if code != 0 {
            self.tally.count(Counted::refusal(code));
        }
        match action(code) {
            AckAction::Accepted => self.on_accepted(ctx, job, stanza)?,
            AckAction::FlipNamespace => self.flip_namespace(ctx, job, code),
            AckAction::FlipToLid => self.flip_to_lid(ctx, job, code),
            AckAction::RefreshDevices | AckAction::RefetchGroup => self.refresh_and_resend(ctx, job, code)?,
            AckAction::BackOff | AckAction::Again => self.pause_sending(ctx, job, code),
            AckAction::Fail => self.fail_job(ctx, job, refusal(code)),
        }
        self.pump(ctx)
    }

    fn on_accepted(&mut self, ctx: &mut Ctx<'_>, job: Job, stanza: &Node) -> Result<(), EngineError> {
        self.messages.pause_step = 0;
        self.tally.acked_after(ctx.now.mono.saturating_sub(job.sent.at));
        if let Some((key_id, devices)) = &job.sent.distribution {
            self.mark_sender_key(ctx.store, &job.chat, *key_id, devices)?;
        }
        if let (Some(namespace), true) = (job.sent.namespace, job.tries.flips > 0) {
            self.set_chat_namespace(ctx.store, &job.chat, namespace)?;
        }
        if stanza.has("refresh_lid", "true") {
            self.ask_devices(ctx, vec![job.chat.clone()]);
        }
        if stanza.get("phash").is_some_and(|theirs| theirs != job.sent.phash) {
            self.on_other_phash(ctx, &job)?;
        }
        let timestamp = stanza.number("t").unwrap_or_else(|| ctx.now.unix_s());
        self.finish_job(job, timestamp);
        Ok(())
    }

    /// The message was taken, but our list of devices is not the server's. Those missed ask by retry receipts; the
    /// next message goes to a fresh list.
    fn on_other_phash(&mut self, ctx: &mut Ctx<'_>, job: &Job) -> Result<(), EngineError> {
        let now = ctx.now.mono;
        if self.messages.phash_checked.get(&job.chat).is_some_and(|at| now < *at + PHASH_INTERVAL) {
            return Ok(());
        }
        self.messages.phash_checked.insert(job.chat.clone(), now);
        log::debug!("the server counts other devices than we do");
        self.forget_audience(ctx, job)?;
        if job.chat.is_group() {
            self.clear_group_marks(ctx.store, &job.chat)?;
        }
        Ok(())
    }

    /// Drops what is known of the recipients: devices of the peer and our own, or metadata and all members' devices.
    fn forget_audience(&mut self, ctx: &mut Ctx<'_>, job: &Job) -> Result<(), EngineError> {
        let users = if job.chat.is_group() {
            let known = self.known_group(ctx.store, &job.chat)?;
            self.forget_group(ctx.store, &job.chat)?;
            known.map(|info| info.participants.iter().map(|member| member.jid.clone()).collect())
        } else {
            Some(vec![job.chat.clone()])
        };
        let own = self.own().map(|own| own.pn);
        for user in users.unwrap_or_default().iter().chain(own.iter()) {
            self.forget_devices(ctx.store, user)?;
            if let Some(other) = self.alternate(ctx.store, user)? {
                self.forget_devices(ctx.store, &other)?;
            }
        }
        Ok(())
    }

    /// 400: the other namespace, once.
    fn flip_namespace(&mut self, ctx: &Ctx<'_>, mut job: Job, code: u16) {
        match job.sent.namespace {
            Some(namespace) if job.tries.flips == 0 => {
                job.tries.flips += 1;
                job.namespace = Some(namespace.other());
                self.messages.jobs.queue(job);
            }
            _ => self.fail_job(ctx, job, refusal(code)),
        }
    }

    /// 463: by LID if it was by PN; with a token if it had none, as soon as one is here; once each. A token cannot be
    /// asked for: ours went out with the message, and the contact grants theirs when it likes.
    fn flip_to_lid(&mut self, ctx: &mut Ctx<'_>, mut job: Job, code: u16) {
        if job.sent.namespace == Some(Namespace::Pn) && job.tries.flips == 0 {
            job.tries.flips += 1;
            job.namespace = Some(Namespace::Lid);
            self.messages.jobs.queue(job);
        } else if !job.sent.had_token && job.tries.tokens == 0 {
            job.tries.tokens += 1;
            job.token_until = Some(ctx.now.mono + TOKEN_WAIT);
            self.messages.jobs.queue(job);
            self.arm_ack_timer();
        } else {
            self.fail_job(ctx, job, refusal(code));
        }
    }

    /// Whether a job that was refused for want of a token may go; what to do with it otherwise.
    pub(super) fn token_verdict(
        &mut self,
        ctx: &Ctx<'_>,
        job: &mut Job,
    ) -> Result<Option<Dispatch>, EngineError> {
        let Some(until) = job.token_until else { return Ok(None) };
        if self.token_node(ctx.store, &job.chat, ctx.now.unix_s())?.is_some() {
            job.token_until = None;
            return Ok(None);
        }
        let is_over = until <= ctx.now.mono;
        Ok(Some(if is_over { Dispatch::Failed(refusal(463)) } else { Dispatch::Wait }))
    }

    /// 406, 421, 479: everything about the recipients is asked again, once.
    fn refresh_and_resend(&mut self, ctx: &mut Ctx<'_>, mut job: Job, code: u16) -> Result<(), EngineError> {
        if job.tries.refreshes > 0 {
            self.fail_job(ctx, job, refusal(code));
            return Ok(());
        }
        log::debug!("refused with {code}: asking for the recipients' devices again");
        job.tries.refreshes += 1;
        self.forget_audience(ctx, &job)?;
        if job.chat.is_group() {
            self.clear_group_marks(ctx.store, &job.chat)?;
        }
        self.messages.jobs.queue(job);
        Ok(())
    }

    /// 429, 5xx: the whole session waits, longer each time; the job is sent again with its id.
    fn pause_sending(&mut self, ctx: &Ctx<'_>, mut job: Job, code: u16) {
        if job.tries.pauses >= MAX_PAUSES {
            self.fail_job(ctx, job, refusal(code));
            return;
        }
        job.tries.pauses += 1;
        self.messages.jobs.queue(job);
        // Many messages on the wire are refused together: that is one reason to wait, not many.
        if self.messages.paused_until.is_some_and(|until| until > ctx.now.mono) {
            return;
        }
        let pause = (FIRST_PAUSE * 2u32.saturating_pow(self.messages.pause_step)).min(MAX_PAUSE);
        self.messages.pause_step = (self.messages.pause_step + 1).min(16);
        self.messages.paused_until = Some(ctx.now.mono + pause);
        self.arm_ack_timer();
    }
}
