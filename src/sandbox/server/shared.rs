//! What the sandbox's threads share: the service behind one short lock, the phones behind another, and an outbox per
//! connection.
//!
//! Lock order: phones before service. Parsing and encrypting happen outside both.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::Sender;
use rand_core::OsRng;

use crate::{
    sandbox::{
        link::{ChainLie, NoiseIdentity},
        phone::{Phone, PhoneCtx, Phones},
        service::{
            CodeHello, Directory, GroupView, LinkRequest, LinkedDevice, PublishedKeys, Service, ServiceOutput,
        },
        world::{ConnId, NewPhone, SandboxError},
    },
    whatsapp::{binary::Node, ctx::Now, jid::Jid, keys::PublicKey, signal::PreKeyBundle},
};

/// Everything the threads share.
pub(in crate::sandbox) struct Shared {
    core: Mutex<Core>,
    phones: Mutex<Phones>,
    pub(super) identity: NoiseIdentity,
    pub(in crate::sandbox) lie: Mutex<ChainLie>,
    phone_queue: Sender<(u32, Arc<Node>)>,
    started: Instant,
    last_conn: AtomicU64,
    pub(super) stopping: AtomicBool,
    /// Counts stanzas the phones handled; waiters look again when it moves.
    progress: Mutex<u64>,
    progressed: Condvar,
}

struct Core {
    service: Service,
    outboxes: HashMap<ConnId, Arc<Outbox>>,
}

/// What waits to be written to one connection.
pub(super) struct Outbox {
    queue: Mutex<(VecDeque<Arc<Node>>, Option<End>)>,
    pub(super) wake: OwnedFd,
    woken: AtomicBool,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Write what is left, then close.
    Close,
    /// At once.
    Cut,
}

impl Outbox {
    pub(super) fn new() -> std::io::Result<Self> {
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let wake = rustix::event::eventfd(0, flags)?;
        Ok(Self { queue: Mutex::default(), wake, woken: AtomicBool::new(false) })
    }

    fn push(&self, node: Arc<Node>, wake: bool) {
        lock(&self.queue).0.push_back(node);
        if wake {
            self.ring();
        }
    }

    fn end(&self, end: End) {
        lock(&self.queue).1 = Some(end);
        self.ring();
    }

    fn ring(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // A full counter wakes as well as a fresh one.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Takes everything; the waker is armed again.
    pub(super) fn take(&self) -> (VecDeque<Arc<Node>>, Option<End>) {
        if self.woken.swap(false, Ordering::AcqRel) {
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.wake, &mut count);
        }
        let mut queue = lock(&self.queue);
        (std::mem::take(&mut queue.0), queue.1)
    }
}

impl Shared {
    pub(super) fn new(
        service: Service,
        identity: NoiseIdentity,
        phone_queue: Sender<(u32, Arc<Node>)>,
    ) -> Self {
        Self {
            core: Mutex::new(Core { service, outboxes: HashMap::new() }),
            phones: Mutex::default(),
            identity,
            lie: Mutex::default(),
            phone_queue,
            started: Instant::now(),
            last_conn: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            progress: Mutex::default(),
            progressed: Condvar::new(),
        }
    }

    /// The time as the service sees it.
    pub(in crate::sandbox) fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.started.elapsed(), unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Calls the service and hands out what comes of it. `own` is the calling connection, which needs no waking.
    pub(in crate::sandbox) fn service<T>(
        &self,
        own: Option<ConnId>,
        call: impl FnOnce(&mut Service) -> T,
    ) -> T {
        let mut core = lock(&self.core);
        let result = call(&mut core.service);
        let Core { service, outboxes } = &mut *core;
        while let Some(output) = service.next_output() {
            match output {
                ServiceOutput::Node(conn, node) => {
                    if let Some(outbox) = outboxes.get(&conn) {
                        outbox.push(node, own != Some(conn));
                    }
                }
                ServiceOutput::Phone(account, node) => {
                    // The phones' thread ends after everything that could get here.
                    let _ = self.phone_queue.send((account, node));
                }
                ServiceOutput::Close(conn) => {
                    if let Some(outbox) = outboxes.remove(&conn) {
                        outbox.end(End::Close);
                    }
                }
                ServiceOutput::Cut(conn) => {
                    if let Some(outbox) = outboxes.remove(&conn) {
                        outbox.end(End::Cut);
                    }
                }
            }
        }
        result
    }

    pub(super) fn add_connection(&self, outbox: Arc<Outbox>) -> ConnId {
        let conn = ConnId(self.last_conn.fetch_add(1, Ordering::Relaxed) + 1);
        lock(&self.core).outboxes.insert(conn, outbox);
        conn
    }

    pub(super) fn remove_connection(&self, conn: ConnId) {
        self.service(None, |service| service.disconnected(conn));
        lock(&self.core).outboxes.remove(&conn);
    }

    /// Ends every connection.
    pub(super) fn end_all(&self) {
        for (_, outbox) in lock(&self.core).outboxes.drain() {
            outbox.end(End::Cut);
        }
    }

    /// Calls the phones.
    pub(in crate::sandbox) fn phones<T>(&self, call: impl FnOnce(&mut Phones, &mut PhoneCtx<'_>) -> T) -> T {
        let mut phones = lock(&self.phones);
        let mut directory = SharedDirectory(self);
        let mut ctx = PhoneCtx { directory: &mut directory, rng: &mut OsRng, now: self.now() };
        call(&mut phones, &mut ctx)
    }

    /// Calls one phone.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchPhone`], or what the call gives.
    pub(in crate::sandbox) fn phone<T>(
        &self,
        number: &str,
        call: impl FnOnce(&mut Phone, &mut PhoneCtx<'_>) -> Result<T, SandboxError>,
    ) -> Result<T, SandboxError> {
        self.phones(|phones, ctx| {
            let phone = phones.find_mut(number);
            call(phone.ok_or_else(|| SandboxError::NoSuchPhone(number.to_owned()))?, ctx)
        })
    }

    /// Whether the sandbox ends.
    pub(in crate::sandbox) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The phones handled something.
    pub(super) fn progressed(&self) {
        *lock(&self.progress) += 1;
        self.progressed.notify_all();
    }

    /// Looks until `look` finds something or the time is up.
    pub(in crate::sandbox) fn wait_for<T>(
        &self,
        patience: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + patience;
        loop {
            let seen = *lock(&self.progress);
            if let Some(found) = look() {
                return Some(found);
            }
            let mut progress = lock(&self.progress);
            while *progress == seen {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || self.stopping.load(Ordering::Acquire) {
                    return None;
                }
                let step = left.min(STOP_CHECK);
                progress =
                    self.progressed.wait_timeout(progress, step).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// A panic in one connection's thread must not stop the others: the state behind a lock is kept consistent by its
/// owner, so a poisoned lock is used on.
pub(in crate::sandbox) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service as phones see it, locked for each question.
struct SharedDirectory<'a>(&'a Shared);

impl Directory for SharedDirectory<'_> {
    fn add_account(&mut self, phone: &NewPhone, keys: PublishedKeys, now: Now) -> Result<u32, SandboxError> {
        self.0.service(None, |service| Directory::add_account(service, phone, keys, now))
    }

    fn devices(&mut self, user: &Jid) -> Vec<Jid> {
        self.0.service(None, |service| service.devices(user))
    }

    fn bundle(&mut self, device: &Jid, now: Now) -> Option<PreKeyBundle> {
        self.0.service(None, |service| service.bundle(device, now))
    }

    fn group(&mut self, group: &Jid) -> Option<GroupView> {
        self.0.service(None, |service| service.group(group))
    }

    fn to_lid(&mut self, jid: &Jid) -> Jid {
        self.0.service(None, |service| service.to_lid(jid))
    }

    fn to_pn(&mut self, jid: &Jid) -> Jid {
        self.0.service(None, |service| service.to_pn(jid))
    }

    fn own_prekeys(&mut self, account: u32) -> usize {
        self.0.service(None, |service| service.own_prekeys(account))
    }

    fn publish(&mut self, account: u32, keys: Vec<(u32, PublicKey)>) {
        self.0.service(None, |service| service.publish(account, keys));
    }

    fn migrate(&mut self, account: u32) {
        self.0.service(None, |service| service.migrate(account));
    }

    fn reinstall(&mut self, account: u32, keys: PublishedKeys, now: Now) {
        self.0.service(None, |service| Directory::reinstall(service, account, keys, now));
    }

    fn submit(&mut self, account: u32, node: Node, now: Now) {
        self.0.service(None, |service| service.submit(account, node, now));
    }

    fn companion(&mut self, reference: &str) -> Option<LinkedDevice> {
        self.0.service(None, |service| Directory::companion(service, reference))
    }

    fn code_hello(&mut self, account: u32) -> Option<CodeHello> {
        self.0.service(None, |service| Directory::code_hello(service, account))
    }

    fn primary_hello(
        &mut self,
        reference: &str,
        wrapped_ephemeral: Vec<u8>,
        identity: &PublicKey,
        now: Now,
    ) -> Result<(), SandboxError> {
        self.0.service(None, |service| {
            Directory::primary_hello(service, reference, wrapped_ephemeral, identity, now)
        })
    }

    fn link(&mut self, account: u32, request: LinkRequest, now: Now) -> Result<u16, SandboxError> {
        self.0.service(None, |service| Directory::link(service, account, request, now))
    }
}

/// How often a waiter looks whether the sandbox stops.
const STOP_CHECK: Duration = Duration::from_millis(500);
