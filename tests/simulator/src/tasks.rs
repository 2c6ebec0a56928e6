//! Functions under way. The world polls them itself, one at a time, in an order that its seed decides.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::LocalBoxFuture;
use jiff::Timestamp;

use crate::chance::Chance;
use crate::cloud::Sky;

/// Set when a function can go on; wakes the world if it waits for that.
#[derive(Debug)]
struct Flag {
    ready: AtomicBool,
    world: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.ready.store(true, Ordering::Release);
        if let Some(world) = self.world.lock().unwrap_or_else(PoisonError::into_inner).take() {
            world.wake();
        }
    }
}

/// One invocation, and what it is for.
struct Task<J, O> {
    job: J,
    future: LocalBoxFuture<'static, O>,
    flag: Arc<Flag>,
    waker: Waker,
    chance: Chance,
    odds: u32,
    struck: u32,
    /// Of a thousand turns, how many kill it.
    mortal: u32,
    /// When it began: the auditor's tick, and the world's time.
    since: (usize, Timestamp),
}

/// How an invocation ended.
#[derive(Debug)]
pub enum Ended<O> {
    Answered(O),
    /// Its process was killed between two calls.
    Killed,
    Panicked(String),
}

pub struct Tasks<J, O> {
    running: Vec<Task<J, O>>,
    world: Arc<Mutex<Option<Waker>>>,
    sky: Sky,
    /// The auditor's tick, and the world's time at that.
    pub now: (usize, Timestamp),
}

impl<J, O> std::fmt::Debug for Tasks<J, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

/// How a function is treated.
#[derive(Debug)]
pub struct Lot {
    pub chance: Chance,
    /// Of a thousand calls, how many are struck.
    pub odds: u32,
    pub mortal: u32,
}

impl<J, O> Tasks<J, O> {
    pub fn new(sky: Sky) -> Self {
        Self { running: Vec::new(), world: Arc::default(), sky, now: (0, Timestamp::UNIX_EPOCH) }
    }

    pub fn start(&mut self, job: J, lot: Lot, future: LocalBoxFuture<'static, O>) {
        let flag = Arc::new(Flag { ready: AtomicBool::new(true), world: Arc::clone(&self.world) });
        let waker = Waker::from(Arc::clone(&flag));
        let Lot { chance, odds, mortal } = lot;
        self.running.push(Task { job, future, flag, waker, chance, odds, struck: 0, mortal, since: self.now });
    }

    /// When the oldest of those under way began.
    pub fn oldest(&self) -> (usize, Timestamp) {
        self.running.iter().map(|task| task.since).min().unwrap_or(self.now)
    }

    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Gives one function a turn, as `chance` picks; returns it if that was its last, with how often it was struck. Waits where all
    /// of them wait.
    pub async fn turn(&mut self, chance: &mut Chance) -> Option<(J, Ended<O>, u32)> {
        if self.running.is_empty() {
            return None;
        }
        let ready = std::future::poll_fn(|context| {
            *self.world.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
            let ready: Vec<usize> =
                (0..self.running.len()).filter(|n| self.running[*n].flag.ready.load(Ordering::Acquire)).collect();
            if ready.is_empty() { Poll::Pending } else { Poll::Ready(ready) }
        })
        .await;
        let picked = *chance.pick(&ready)?;
        let ended = self.poll(picked)?;
        let task = self.running.remove(picked);
        Some((task.job, ended, task.struck))
    }

    fn poll(&mut self, n: usize) -> Option<Ended<O>> {
        let task = &mut self.running[n];
        if task.chance.permille(task.mortal) {
            self.sky.weather().note("killed");
            return Some(Ended::Killed);
        }
        task.flag.ready.store(false, Ordering::Release);
        // Transaction tokens and waiting times come from the thread's generator: for this turn it is the function's own.
        fastrand::seed(task.chance.number());
        self.lend(n);
        let task = &mut self.running[n];
        let polled =
            catch_unwind(AssertUnwindSafe(|| task.future.as_mut().poll(&mut Context::from_waker(&task.waker))));
        self.lend(n);
        match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(answer)) => Some(Ended::Answered(answer)),
            Err(panic) => Some(Ended::Panicked(message(panic.as_ref()))),
        }
    }

    /// Swaps the function's chance with the weather's: before its turn, and after.
    fn lend(&mut self, n: usize) {
        let task = &mut self.running[n];
        let mut weather = self.sky.weather();
        std::mem::swap(&mut weather.chance, &mut task.chance);
        std::mem::swap(&mut weather.odds, &mut task.odds);
        std::mem::swap(&mut weather.struck_here, &mut task.struck);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
