//! Trouble on command: what networks and the real service do to clients.

use std::time::Duration;

use serde::Deserialize;

use super::{DeviceRef, Service};
use crate::{
    sandbox::world::SandboxError,
    whatsapp::{binary::Node, ctx::Now},
};

/// One fault for one linked device.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Cut the TCP connection without a word.
    Drop,
    /// Keep the connection open but never send or answer anything again.
    Freeze,
    /// End the stream with this code; `conflict` adds `<conflict type/>`.
    StreamError {
        /// 401, 429, 500, 503, 515, 516, …
        code: Option<u16>,
        /// `replaced` or `device_removed`.
        conflict: Option<String>,
    },
    /// Refuse the next login with `<failure reason/>`, and cut the live connection.
    Failure {
        /// 401, 402, 403, 405, 406, 503, …
        reason: u16,
    },
    /// Say that the same credentials connected elsewhere.
    Replaced,
    /// Hold every stanza back; 0 ends it.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Receipts for this device vanish on the way.
    LoseReceipts {
        /// Start or end.
        on: bool,
    },
    /// Receipts and acks of this device vanish on the way: what they answered comes again at its next login.
    LoseAnswers {
        /// Start or end.
        on: bool,
    },
    /// Only this many one-time prekeys remain, and the device is told.
    LowPrekeys {
        /// How many.
        count: usize,
    },
    /// Messages of different chats overtake each other: one is held back until another chat has something.
    Reorder {
        /// Start or end.
        on: bool,
    },
    /// Send every unanswered stanza again on the live connection.
    Redeliver,
    /// Bundles of this device (0: the phone) are handed out with a false signature.
    FalseBundles {
        /// Start or end.
        on: bool,
    },
    /// The phone unlinks the device.
    Unlink,
}

impl Service {
    /// Brings a fault over a device.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] when there is no such device, [`SandboxError::Conflict`] when it is not connected
    /// and the fault needs a connection.
    pub fn inject(&mut self, account: u32, device: u16, fault: &Fault, now: Now) -> Result<(), SandboxError> {
        let device = DeviceRef { account, device };
        // Device 0 is the phone: only its published keys can be tampered with.
        let applies = device.device != 0 || matches!(fault, Fault::FalseBundles { .. });
        let target = self.device_mut(device).filter(|_| applies).ok_or_else(|| SandboxError::Invalid {
            field: "device",
            reason: "there is no such linked device".to_owned(),
        })?;
        match fault {
            Fault::Failure { reason } => {
                target.refuse_login = Some(*reason);
                if let Some(conn) = target.conn {
                    self.cut(conn);
                }
                return Ok(());
            }
            Fault::LowPrekeys { count } => {
                target.keys.truncate(*count);
                self.ask_for_prekeys(device, now);
                return Ok(());
            }
            Fault::FalseBundles { on } => {
                target.keys.false_signature = *on;
                return Ok(());
            }
            Fault::Reorder { on } => {
                target.queue.reorder(*on);
                self.release_held(device, now, Duration::ZERO);
                return Ok(());
            }
            Fault::Unlink => {
                self.remove_device(device, now);
                return Ok(());
            }
            _ => {}
        }
        let conn =
            target.conn.ok_or_else(|| SandboxError::Conflict("the device is not connected".to_owned()))?;
        self.inject_on_connection(device, conn, fault, now);
        Ok(())
    }

    fn inject_on_connection(
        &mut self,
        device: DeviceRef,
        conn: crate::sandbox::world::ConnId,
        fault: &Fault,
        now: Now,
    ) {
        match fault {
            Fault::Drop => self.cut(conn),
            Fault::Replaced => self.replace(conn, now),
            Fault::StreamError { code, conflict } => {
                let conflict = conflict.as_ref().map(|kind| Node::new("conflict").attr("type", kind.clone()));
                self.end_stream(conn, *code, conflict, now);
            }
            Fault::Redeliver => {
                let again =
                    self.device_mut(device).map(|target| target.queue.redeliver()).unwrap_or_default();
                for node in again {
                    self.send_shared(conn, node, now);
                }
            }
            Fault::Freeze | Fault::Delay { .. } | Fault::LoseReceipts { .. } | Fault::LoseAnswers { .. } => {
                let Some(state) = self.conns.get_mut(&conn) else { return };
                match fault {
                    Fault::Freeze => state.frozen = true,
                    Fault::Delay { ms } => state.delay = Duration::from_millis(*ms),
                    Fault::LoseReceipts { on } => state.lose_receipts = *on,
                    Fault::LoseAnswers { on } => state.lose_answers = *on,
                    _ => {}
                }
            }
            // Handled by `inject`: they need no connection.
            Fault::Failure { .. }
            | Fault::LowPrekeys { .. }
            | Fault::FalseBundles { .. }
            | Fault::Reorder { .. }
            | Fault::Unlink => {}
        }
    }
}
