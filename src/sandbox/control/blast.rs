//! Many messages from phones at a set rate, for load tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::sandbox::{server::Shared, world::SandboxError};

/// What to send.
pub(super) struct Order {
    pub(super) from: Vec<String>,
    pub(super) to: Vec<String>,
    pub(super) count: u64,
    /// Messages per second; 0 is as fast as it goes.
    pub(super) rate: u64,
    pub(super) text: String,
}

/// The latest blast.
#[derive(Default)]
pub(super) struct Blast {
    running: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
    took_ms: AtomicU64,
}

impl Blast {
    /// Starts a blast on a thread of its own.
    pub(super) fn start(self: &Arc<Self>, shared: &Arc<Shared>, order: Order) -> Result<(), SandboxError> {
        if order.from.is_empty() || order.to.is_empty() {
            return Err(super::body::invalid("from", "from and to need at least one entry"));
        }
        if self.running.swap(true, Ordering::AcqRel) {
            return Err(SandboxError::Conflict("a blast is running".to_owned()));
        }
        self.sent.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
        let (blast, shared) = (self.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("sbx-blast".to_owned());
        let started = thread.spawn(move || {
            blast.run(&shared, &order);
            blast.running.store(false, Ordering::Release);
        });
        started.map(|_| ()).map_err(|error| {
            self.running.store(false, Ordering::Release);
            SandboxError::Conflict(format!("no thread for the blast: {error}"))
        })
    }

    /// How it goes.
    pub(super) fn status(&self) -> Value {
        json!({
            "running": self.running.load(Ordering::Acquire),
            "sent": self.sent.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
            "tookMs": self.took_ms.load(Ordering::Relaxed),
        })
    }

    fn run(&self, shared: &Shared, order: &Order) {
        let started = Instant::now();
        let pairs = order.from.iter().cycle().zip(order.to.iter().cycle());
        for (number, (from, to)) in (0..order.count).zip(pairs) {
            if shared.is_stopping() {
                return;
            }
            if let Some(due) = (number * 1_000_000).checked_div(order.rate) {
                let ahead = Duration::from_micros(due).saturating_sub(started.elapsed());
                if !ahead.is_zero() {
                    std::thread::sleep(ahead);
                }
            }
            let text = format!("{} {number}", order.text);
            let result = shared.phone(from, |phone, ctx| phone.send_text(to, &text, ctx));
            let counter = if result.is_ok() { &self.sent } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.took_ms.store(took, Ordering::Relaxed);
        }
    }
}
