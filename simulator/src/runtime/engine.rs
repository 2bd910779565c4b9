//! Slots and models in memory: what a request needs before it can be answered. Knows no HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ollama_coordinator_common::protocol::runtime::Model;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::blobs::Blobs;
use super::record::Record;
use super::residency::{Claim, KeepAlive, Memory, Residency};
use super::script::{FailureMode, RuntimeScript};

/// A runtime's state, shared by all of its connections.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) record: Arc<Record>,
    pub(super) blobs: Blobs,
    script: Mutex<Arc<RuntimeScript>>,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    residency: Mutex<Residency>,
    released: Notify,
}

/// More requests wait for a slot than the script allows.
#[derive(Debug, thiserror::Error)]
#[error("server busy, please try again.  maximum pending requests exceeded")]
pub(super) struct QueueFull;

impl Engine {
    pub(super) fn new(script: RuntimeScript) -> Self {
        let slots = usize::try_from(script.slots.get()).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            record: Arc::default(),
            blobs: Blobs::default(),
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            script: Mutex::new(Arc::new(script)),
            waiting: AtomicUsize::new(0),
            residency: Mutex::default(),
            released: Notify::new(),
        }
    }

    /// Returns the script as it is now.
    pub(super) fn script(&self) -> Arc<RuntimeScript> {
        Arc::clone(&self.script.lock())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut RuntimeScript)) {
        change(Arc::make_mut(&mut self.script.lock()));
    }

    /// Returns how many requests wait for a slot.
    pub(super) fn queued(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns the models in memory and when each will leave.
    pub(super) fn loaded(&self) -> Vec<(String, Option<Instant>)> {
        self.residency.lock().loaded(Instant::now())
    }

    /// Waits for a slot and for the model to be in memory.
    pub(super) async fn seat(
        self: &Arc<Self>,
        model: &Model,
        keep_alive: Option<KeepAlive>,
        script: &RuntimeScript,
    ) -> Result<Seat, QueueFull> {
        let arrived = Instant::now();
        let slot = self.claim_slot(script.max_queue).await?;
        let memory = Memory {
            max_loaded: script.max_loaded.get(),
            cold_load: slowed(script.cold_load, script),
        };
        let ready_at = self.claim_model(&model.name, memory).await;
        let seat = Seat {
            engine: Arc::clone(self),
            model: model.name.clone(),
            keep_alive: keep_alive.unwrap_or(KeepAlive::For(script.keep_alive)),
            arrived,
            load_duration: ready_at.map_or(Duration::ZERO, |at| at - arrived),
            _slot: slot,
        };
        if let Some(ready_at) = ready_at {
            sleep_until(ready_at).await;
        }
        Ok(seat)
    }

    /// Drops `model` from memory once nobody uses it.
    pub(super) fn unload(&self, model: &str) {
        let memory = Memory {
            max_loaded: usize::MAX,
            cold_load: Duration::ZERO,
        };
        let now = Instant::now();
        let mut residency = self.residency.lock();
        residency.claim(model, memory, now);
        residency.release(model, KeepAlive::For(Duration::ZERO), now);
    }

    async fn claim_slot(&self, max_queue: usize) -> Result<OwnedSemaphorePermit, QueueFull> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let _place = Place::take(&self.waiting, max_queue).ok_or(QueueFull)?;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        Ok(slot.expect("the slots are never closed"))
    }

    async fn claim_model(&self, model: &str, memory: Memory) -> Option<Instant> {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            let claim = self.residency.lock().claim(model, memory, Instant::now());
            match claim {
                Claim::Warm => return None,
                Claim::Joined(ready_at) => return Some(ready_at),
                Claim::Loading(ready_at) => {
                    self.record.loads.fetch_add(1, Ordering::Relaxed);
                    return Some(ready_at);
                }
                Claim::Full => released.await,
            }
        }
    }
}

/// A place in the queue, given up on drop.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, max_queue: usize) -> Option<Self> {
        let join = |waiting| (waiting < max_queue).then_some(waiting + 1);
        let joined = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, join);
        joined.is_ok().then_some(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One slot and one use of a model, held while a request is served.
#[derive(Debug)]
pub(super) struct Seat {
    engine: Arc<Engine>,
    /// The model's full name.
    pub(super) model: String,
    keep_alive: KeepAlive,
    arrived: Instant,
    load_duration: Duration,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = Instant::now();
        self.engine
            .residency
            .lock()
            .release(&self.model, self.keep_alive, now);
        self.engine.released.notify_waiters();
    }
}

impl Seat {
    /// Returns the time since the request arrived and the part of it spent on loading.
    pub(super) fn durations(&self) -> (Duration, Duration) {
        (self.arrived.elapsed(), self.load_duration)
    }
}

/// Returns how long something takes that normally takes `duration`.
pub(super) fn slowed(duration: Duration, script: &RuntimeScript) -> Duration {
    match script.failure {
        FailureMode::Slow { factor } => duration.saturating_mul(factor.get()),
        FailureMode::None
        | FailureMode::Refuse
        | FailureMode::Stall { .. }
        | FailureMode::Reset { .. }
        | FailureMode::Status(_)
        | FailureMode::ErrorLine { .. } => duration,
    }
}
