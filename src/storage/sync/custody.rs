//! The leases this worker holds: taking, renewing, proving before a write, giving back, losing.
//!
//! One thread renews all of them, each at half its life, so a thousand sessions spread over time by themselves. While
//! the object store cannot be reached, sessions that run go on: nobody else can take them either, unless only this
//! worker is cut off. Then the other one starts with new sending keys, the service disconnects ours ("replaced"), and
//! nothing of ours is written any more, because every batch of uploads proves the lease first.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    CustodyError, ObjectSync, PARALLEL, SessionKey, in_parallel, layout,
    lease::{self, Found, Lease, State},
    lock, millis, now_ms,
};
use crate::storage::{
    baileys::Freshness,
    local::LeaseRow,
    object::{Conditions, ObjectError, ObjectStore, Version, self_test},
};

/// A lease of ours.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) id: String,
    pub(super) generation: u64,
    /// Of `lease.json`; `None` while the store could not be asked since the start.
    version: Option<Version>,
    expires_ms: u64,
    renew_at: Instant,
    /// Files of another program whose content has files of ours: removed when those are written.
    pub(super) superseded: Vec<String>,
}

/// Where the newest state of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newest {
    Here,
    Bucket(Freshness),
}

/// A lease that was taken.
struct Taken {
    generation: u64,
    version: Version,
    expires_ms: u64,
    newest: Newest,
}

/// Why a lease is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Somebody asks for the session now.
    Asked,
    /// It was here before.
    Remembered,
}

/// How proving a lease went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    Ours,
    /// Of another worker now, or of none.
    Lost,
    /// Nobody can say.
    Unknown,
}

impl ObjectSync {
    /// Takes the session's lease and makes its newest state the local one. Cheap when it is held already.
    ///
    /// # Errors
    /// [`CustodyError`]: another worker has it, the store cannot be asked, what is there cannot be used.
    pub fn acquire(&self, id: &str, key: SessionKey) -> Result<(), CustodyError> {
        self.acquire_as(id, key, Wish::Asked)
    }

    /// The same at a start, when nobody asked for this session: not when somebody else had it since and gave it away.
    ///
    /// # Errors
    /// As [`ObjectSync::acquire`]; [`CustodyError::GivenAway`].
    pub fn acquire_again(&self, id: &str, key: SessionKey) -> Result<(), CustodyError> {
        self.acquire_as(id, key, Wish::Remembered)
    }

    fn acquire_as(&self, id: &str, key: SessionKey, wish: Wish) -> Result<(), CustodyError> {
        if self.holds(key) {
            return Ok(());
        }
        let taking = Arc::clone(lock(&self.inner.taking).entry(key).or_default());
        let one_at_a_time = lock(&taking);
        let result = if self.holds(key) { Ok(()) } else { self.acquire_now(id, key, wish) };
        drop(one_at_a_time);
        result
    }

    fn acquire_now(&self, id: &str, key: SessionKey, wish: Wish) -> Result<(), CustodyError> {
        let row = self.inner.local.lease(key)?;
        let taken = match self.try_take(id, row, wish) {
            Ok(taken) => taken,
            Err(CustodyError::Unreachable(error)) => return self.go_on_alone(id, key, row, error),
            Err(error) => return Err(error),
        };
        let held = Held {
            id: id.to_owned(),
            generation: taken.generation,
            version: Some(taken.version.clone()),
            expires_ms: taken.expires_ms,
            renew_at: self.next_renewal(key),
            superseded: Vec::new(),
        };
        let outcome = match taken.newest {
            Newest::Here => {
                let complete = row.is_none_or(|row| row.complete);
                let row = LeaseRow { generation: taken.generation, complete };
                self.inner.local.set_lease(key, Some(row)).map_err(CustodyError::from).map(|()| Vec::new())
            }
            Newest::Bucket(freshness) => self.load(id, key, taken.generation, freshness),
        };
        match outcome {
            Ok(superseded) => {
                self.held().insert(key, Held { superseded, ..held });
                self.resume_history(id, key);
                // What was marked before the lease was ours can go now.
                self.inner.board.wake();
                Ok(())
            }
            Err(error) => {
                // What is here stays the newest, and only the lease says so.
                if taken.newest != Newest::Here {
                    self.give_up(&held);
                }
                Err(error)
            }
        }
    }

    /// Whether the lease is held (or taken as ours while nobody can be asked).
    #[must_use]
    pub fn holds(&self, key: SessionKey) -> bool {
        self.held().contains_key(&key)
    }

    /// Whether this worker may say how the session is: nobody else has it, as far as is known here. `starting`: the
    /// lease of the last run counts, too, because it is not renewed yet.
    #[must_use]
    pub fn speaks_for(&self, key: SessionKey, starting: bool) -> bool {
        !self.inner.settings.shared
            || self.holds(key)
            || starting && matches!(self.inner.local.lease(key), Ok(Some(_)))
    }

    /// Who has a session that is not ours; `None` when it is free.
    ///
    /// # Errors
    /// [`CustodyError::Unreachable`]
    pub fn holder(&self, id: &str) -> Result<Option<(String, u64)>, CustodyError> {
        let found = self.ask(|store| lease::read(store, id))?;
        Ok(match found {
            Found::Lease(lease, _)
                if lease.state == State::Held
                    && !lease.is_of(&self.inner.holder)
                    && lease.expires_ms() > now_ms() =>
            {
                let expires_ms = lease.expires_ms();
                Some((lease.worker_id, expires_ms))
            }
            _ => None,
        })
    }

    /// Uploads what is left of a session whose thread has ended and gives its lease back, so that any worker can go
    /// on with it as if nothing had happened. `returns`: this worker wants it again at its next start.
    ///
    /// # Errors
    /// [`CustodyError::Unreachable`] when the deadline passed first: the lease is kept then, and expires if we end.
    pub fn release(&self, key: SessionKey, returns: bool, deadline: Instant) -> Result<(), CustodyError> {
        if !self.holds(key) {
            return Ok(());
        }
        self.flush_session(key, deadline)?;
        let Some(held) = self.held().get(&key).cloned() else { return Ok(()) };
        let creds = self.ask(|store| store.get(&format!("{}{}", layout::auth(&held.id), layout::CREDS)))?;
        let lease = Lease {
            state: State::Released,
            clean: true,
            returns,
            creds: creds.map(|creds| creds.version.as_str().to_owned()),
            ..Lease::held(&self.inner.holder, held.generation, now_ms())
        };
        let version = held.version.as_ref();
        if self.ask(|store| lease::write(store, &held.id, &lease, version))?.is_none() {
            log::warn!("session {}: its lease was taken by another worker before it was given back", held.id);
        }
        self.held().remove(&key);
        Ok(())
    }

    /// Stops holding a session that is deleted here.
    pub(super) fn forget(&self, key: SessionKey) {
        self.held().remove(&key);
        lock(&self.inner.taking).remove(&key);
    }

    /// Proves that the session is still ours, by the clock when the lease has long to live, else by renewing it.
    pub(super) fn prove(&self, key: SessionKey) -> Proof {
        let Some(held) = self.held().get(&key).cloned() else { return Proof::Lost };
        let margin = millis(self.inner.settings.lease_ttl) / MARGIN;
        let is_fresh = !self.inner.settings.shared || held.expires_ms > now_ms() + margin;
        if held.version.is_some() && is_fresh {
            return Proof::Ours;
        }
        self.renew(key)
    }

    /// The `lease` thread.
    pub(super) fn keep_leases(&self) {
        while !self.is_stopping() {
            self.pause(self.tick());
            let now = Instant::now();
            let is_due =
                |held: &Held| held.renew_at <= now && (self.inner.settings.shared || held.version.is_none());
            let due: Vec<SessionKey> =
                self.held().iter().filter(|(_, held)| is_due(held)).map(|(key, _)| *key).collect();
            if due.is_empty() {
                continue;
            }
            in_parallel(due, PARALLEL, |key| {
                self.renew(key);
            });
            self.note_alive();
        }
    }

    /// Writes the lease anew.
    fn renew(&self, key: SessionKey) -> Proof {
        let Some(held) = self.held().get(&key).cloned() else { return Proof::Lost };
        let result = match &held.version {
            Some(version) => self.ask(|store| self.prolong(store, &held, version)),
            None => self.ask(|store| self.confirm(store, key, &held)),
        };
        match result {
            Ok(Some((generation, version, expires_ms))) => {
                let renew_at = self.next_renewal(key);
                if let Some(held) = self.held().get_mut(&key) {
                    *held = Held { generation, version: Some(version), expires_ms, renew_at, ..held.clone() };
                }
                self.inner.board.wake();
                Proof::Ours
            }
            Ok(None) => {
                self.lose(key);
                Proof::Lost
            }
            Err(_) => {
                let retry = self.inner.settings.lease_ttl / RETRY;
                if let Some(held) = self.held().get_mut(&key) {
                    held.renew_at = Instant::now() + retry;
                }
                Proof::Unknown
            }
        }
    }

    fn prolong(
        &self,
        store: &dyn ObjectStore,
        held: &Held,
        version: &Version,
    ) -> Result<Option<(u64, Version, u64)>, ObjectError> {
        let lease = self.new_lease(held.generation);
        if let Some(version) = lease::write(store, &held.id, &lease, Some(version))? {
            return Ok(Some((held.generation, version, lease.expires_ms())));
        }
        // Touched by somebody, or gone with the bucket: still ours as long as nobody else's name is in it.
        let over = match lease::read(store, &held.id)? {
            Found::Lease(found, version)
                if found.is_of(&self.inner.holder)
                    && found.generation == held.generation
                    && found.state == State::Held =>
            {
                Some(version)
            }
            Found::None => None,
            Found::Lease(..) | Found::Damaged(..) => return Ok(None),
        };
        let written = lease::write(store, &held.id, &lease, over.as_ref())?;
        Ok(written.map(|version| (held.generation, version, lease.expires_ms())))
    }

    /// Asks for a lease that was taken as ours while the store could not be reached.
    fn confirm(
        &self,
        store: &dyn ObjectStore,
        key: SessionKey,
        held: &Held,
    ) -> Result<Option<(u64, Version, u64)>, ObjectError> {
        let over = match lease::read(store, &held.id)? {
            Found::None => None,
            Found::Lease(found, version)
                if found.is_of(&self.inner.holder)
                    && found.generation == held.generation
                    && found.state != State::Deleting =>
            {
                Some(version)
            }
            Found::Lease(..) | Found::Damaged(..) => return Ok(None),
        };
        let lease = Lease { continues: Some(held.generation), ..self.new_lease(held.generation + 1) };
        let Some(version) = lease::write(store, &held.id, &lease, over.as_ref())? else { return Ok(None) };
        let complete = self.inner.local.lease(key).ok().flatten().is_none_or(|row| row.complete);
        let row = LeaseRow { generation: lease.generation, complete };
        if let Err(error) = self.inner.local.set_lease(key, Some(row)) {
            log::warn!("session {}: its lease was not stored: {error}", held.id);
        }
        Ok(Some((lease.generation, version, lease.expires_ms())))
    }

    /// Another worker has the session.
    fn lose(&self, key: SessionKey) {
        let Some(held) = self.held().remove(&key) else { return };
        let worker = match self.ask(|store| lease::read(store, &held.id)) {
            Ok(Found::Lease(lease, _)) => lease.worker_id,
            Ok(Found::None | Found::Damaged(..)) | Err(_) => "unknown".to_owned(),
        };
        log::warn!("session {}: taken over by worker {worker}; it stops here", held.id);
        self.inner.counts.lost.add(1);
        // Ending a session takes its time; leases of others do not wait for it.
        self.spawn_detached("lost", move |sync| {
            if let Some(listener) = sync.inner.lost.get() {
                listener(key, &worker);
            }
        });
    }

    fn try_take(&self, id: &str, row: Option<LeaseRow>, wish: Wish) -> Result<Taken, CustodyError> {
        let circuit = &self.inner.circuit;
        if !circuit.allows(Instant::now()) {
            return Err(CustodyError::Unreachable(circuit.error().unwrap_or_default()));
        }
        let (begun, mut tries) = (Instant::now(), 1);
        let taken = loop {
            let taken = self.prove_conditions().and_then(|()| self.take(&*self.inner.store, id, row, wish));
            // A kept connection that the store had closed is found out by using it; writing a lease twice is harmless.
            let again = matches!(taken, Err(CustodyError::Unreachable(_)))
                && tries < TRIES
                && begun.elapsed() < QUICK;
            if !again {
                break taken;
            }
            tries += 1;
        };
        match &taken {
            Err(CustodyError::Unreachable(error)) => circuit.failed(error, Instant::now()),
            _ => circuit.succeeded(),
        }
        taken
    }

    /// Without conditions that hold there is no ownership. Asked once, when the start could not.
    fn prove_conditions(&self) -> Result<(), CustodyError> {
        if self.inner.proven.load(Ordering::SeqCst) {
            return Ok(());
        }
        match self_test(&*self.inner.store)? {
            Conditions::Enforced => {
                self.inner.proven.store(true, Ordering::SeqCst);
                Ok(())
            }
            Conditions::Ignored { how } => {
                let why = format!("the object store ignores conditional writes ({how})");
                log::error!("{why}; no session is connected unless STORAGE_SINGLE_WORKER=true");
                Err(CustodyError::Unreachable(why))
            }
        }
    }

    /// Takes the lease, if it is free or was ours.
    fn take(
        &self,
        store: &dyn ObjectStore,
        id: &str,
        row: Option<LeaseRow>,
        wish: Wish,
    ) -> Result<Taken, CustodyError> {
        for _ in 0..TRIES {
            let (over, generation, newest) = match lease::read(store, id)? {
                Found::None => (None, known_generation(row), self.newest_without_lease(store, id, row)?),
                Found::Damaged(bytes, version) => {
                    self.quarantine(&layout::lease(id), &bytes, "it is no lease");
                    (Some(version), known_generation(row), Newest::Bucket(Freshness::Stale))
                }
                Found::Lease(lease, version) => {
                    let is_others = lease.state == State::Released && !lease.is_of(&self.inner.holder);
                    if wish == Wish::Remembered && is_others && !lease.returns {
                        return Err(CustodyError::GivenAway { worker: lease.worker_id });
                    }
                    let newest = self.may_take(store, id, &lease, row)?;
                    (Some(version), lease.generation, newest)
                }
            };
            let known = known_generation(row);
            let lease = Lease {
                continues: (newest == Newest::Here).then_some(known),
                ..self.new_lease(generation.max(known) + 1)
            };
            if let Some(version) = lease::write(store, id, &lease, over.as_ref())? {
                let expires_ms = lease.expires_ms();
                return Ok(Taken { generation: lease.generation, version, expires_ms, newest });
            }
        }
        Err(CustodyError::Unreachable("its lease changes all the time".to_owned()))
    }

    /// Whether a lease that was found lets us have the session, and where its newest state is then.
    fn may_take(
        &self,
        store: &dyn ObjectStore,
        id: &str,
        lease: &Lease,
        row: Option<LeaseRow>,
    ) -> Result<Newest, CustodyError> {
        let ours = lease.is_of(&self.inner.holder);
        let is_alive = lease.expires_ms() > now_ms();
        let (worker, expires_ms) = (lease.worker_id.clone(), lease.expires_ms());
        match lease.state {
            State::Deleting => return Err(CustodyError::Deleting),
            State::Held if !ours && is_alive && lease.worker_id == self.inner.holder.worker_id => {
                return Err(CustodyError::HeldByNamesake { worker, expires_ms });
            }
            State::Held if !ours && is_alive => return Err(CustodyError::Held { worker, expires_ms }),
            State::Held | State::Released => {}
        }
        let known = known_generation(row);
        let is_known = ours && (lease.generation == known || lease.continues == Some(known));
        if lease.state == State::Held {
            return Ok(if is_known { Newest::Here } else { Newest::Bucket(Freshness::Stale) });
        }
        // A Baileys worker that had the folder since then knows no leases, but it wrote `creds.json`.
        let creds = store.get(&format!("{}{}", layout::auth(id), layout::CREDS))?;
        let untouched = creds.map(|creds| creds.version.as_str().to_owned()) == lease.creds;
        Ok(match (is_known, untouched && lease.clean) {
            (true, true) => Newest::Here,
            (false, true) => Newest::Bucket(Freshness::Clean),
            (_, false) => Newest::Bucket(Freshness::Stale),
        })
    }

    /// No lease: a new session, one from before there were leases, or a folder that another program left.
    fn newest_without_lease(
        &self,
        store: &dyn ObjectStore,
        id: &str,
        row: Option<LeaseRow>,
    ) -> Result<Newest, CustodyError> {
        if row.is_some() || self.inner.local.has_state(id)? {
            return Ok(Newest::Here);
        }
        let found = store.list(&layout::session(id))?;
        Ok(if found.is_empty() { Newest::Here } else { Newest::Bucket(Freshness::Stale) })
    }

    /// The store cannot be asked. What ran here a moment ago, or can run nowhere else, goes on.
    fn go_on_alone(
        &self,
        id: &str,
        key: SessionKey,
        row: Option<LeaseRow>,
        error: String,
    ) -> Result<(), CustodyError> {
        let has_state = row.is_some() || self.inner.local.has_state(id)?;
        let is_ours = self.inner.settings.single_worker
            || row.is_some() && self.inner.local.alive_until_ms()? > now_ms();
        if !has_state && !self.inner.settings.single_worker || !is_ours {
            return Err(CustodyError::Unreachable(error));
        }
        log::warn!("session {id}: goes on without its lease being asked for: {error}");
        let held = Held {
            id: id.to_owned(),
            generation: known_generation(row),
            version: None,
            expires_ms: 0,
            renew_at: Instant::now() + self.tick(),
            superseded: Vec::new(),
        };
        self.held().insert(key, held);
        Ok(())
    }

    /// A lease that turned out to be of no use is not kept from others.
    fn give_up(&self, held: &Held) {
        let lease =
            Lease { state: State::Released, ..Lease::held(&self.inner.holder, held.generation, now_ms()) };
        let version = held.version.as_ref();
        if let Err(error) = self.ask(|store| lease::write(store, &held.id, &lease, version)) {
            log::debug!("session {}: its lease was not given back: {error}", held.id);
        }
    }

    /// Remembers until when every session that runs here is ours for certain, for a start without the store.
    fn note_alive(&self) {
        let earliest = self.held().values().map(|held| held.expires_ms).min().unwrap_or(0);
        if let Err(error) = self.inner.local.set_alive_until_ms(earliest) {
            log::debug!("the end of the leases was not stored: {error}");
        }
    }

    fn new_lease(&self, generation: u64) -> Lease {
        Lease::held(&self.inner.holder, generation, now_ms() + millis(self.inner.settings.lease_ttl))
    }

    /// Half the life of a lease from now, spread a little.
    /// How often the leases are looked at.
    fn tick(&self) -> Duration {
        (self.inner.settings.lease_ttl / LOOKS).min(LONGEST_TICK)
    }

    fn next_renewal(&self, key: SessionKey) -> Instant {
        let half = self.inner.settings.lease_ttl / 2;
        let spread = u32::try_from(key.0.rem_euclid(16)).unwrap_or(0);
        Instant::now() + half - half * spread / 64
    }
}

/// What the local store knows of the session's generations; zero when it never had a lease.
fn known_generation(row: Option<LeaseRow>) -> u64 {
    row.map_or(0, |row| row.generation)
}

/// Part of a lease's life that must be left for a batch of uploads to begin.
const MARGIN: u64 = 4;
/// Tries to renew in a lease's life while the store fails.
const RETRY: u32 = 15;
/// Tries to write a lease while others write it.
const TRIES: usize = 5;
/// Errors that come sooner are worth another try at once.
const QUICK: Duration = Duration::from_secs(1);
/// The leases are looked at this often in a lease's life, and never less often than …
const LOOKS: u32 = 32;
const LONGEST_TICK: Duration = Duration::from_secs(2);
