//! When to report and when to end: interval, count, duration, signals, the end of a traced command.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::child::Child;
use crate::cli::Every;

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wake {
    /// A part of the run is over: report it. After the last one, end.
    Part { seconds: f64, last: bool },
    /// The time to look is up, or there is something to look at.
    Look,
}

/// The signals that end a run, held back from the moment it is made: whoever starts a tool and stops it
/// at once still gets its output.
///
/// A thread waits for them, so that the second one is the second also for a tool that is held up by a reader
/// who does not read.
pub struct Signals(Arc<Heard>);

struct Heard {
    /// Can be read once a signal has come.
    event: EventFd,
    /// The signal if another process sent it, and not the terminal: it has to be passed on to the command.
    sent: OnceLock<Option<Signal>>,
}

impl Signals {
    /// # Errors
    /// The kernel gives no descriptor or no thread.
    pub fn block() -> Result<Signals> {
        let mut ending = SigSet::empty();
        ending.add(Signal::SIGINT);
        ending.add(Signal::SIGTERM);
        if !is_ignored(Signal::SIGHUP) {
            ending.add(Signal::SIGHUP); // else started by nohup
        }
        ending.thread_block().context("cannot hold back signals")?;
        let fd = SignalFd::with_flags(&ending, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot receive signals")?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context("cannot pass on signals")?;
        let heard = Arc::new(Heard { event, sent: OnceLock::new() });
        let hears = Arc::clone(&heard);
        let listen = move || listen(&fd, &hears);
        thread::Builder::new().name("signals".to_owned()).spawn(listen).context("cannot start a thread")?;
        Ok(Signals(heard))
    }

    /// Has one come?
    fn take(&self) -> Option<Option<Signal>> {
        self.0.event.read().ok()?;
        self.0.sent.get().copied()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

/// timeout(1) sends its signal twice, to the tool and to its process group: what comes so soon is one.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// Takes the first signal. From then on the next one ends the process at once.
fn listen(fd: &SignalFd, heard: &Heard) {
    let info = loop {
        let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE).and_then(|_| fd.read_signal()) {
            Ok(Some(info)) => break info,
            Ok(None) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    };
    let by_kernel = info.ssi_code > 0;
    let _ = heard.sent.set(Signal::try_from(info.ssi_signo as i32).ok().filter(|_| !by_kernel));
    let _ = heard.event.write(1);
    thread::sleep(ONE_SIGNAL);
    while fd.read_signal().is_ok_and(|again| again.is_some()) {}
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default action runs no code of ours.
        let _ = unsafe { sigaction(signal, &default) };
    }
    let _ = SigSet::all().thread_unblock();
    loop {
        thread::park(); // it is this thread that the next one is not held back for
    }
}

fn is_ignored(signal: Signal) -> bool {
    let ask = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the action in force is put back at once, and no other thread deals with signals yet.
    let Ok(before) = (unsafe { sigaction(signal, &ask) }) else {
        return false;
    };
    // SAFETY: as above.
    let _ = unsafe { sigaction(signal, &before) };
    matches!(before.handler(), SigHandler::SigIgn)
}

/// When the parts of a run are due, relative to its start. No part's length depends on how long
/// printing took.
#[derive(Debug)]
struct Schedule {
    interval: Option<Duration>,
    end: Option<Duration>,
    passed: u32,
}

impl Schedule {
    fn new(every: &Every) -> Schedule {
        let counted = every.interval.zip(every.count).map(|(interval, count)| interval.saturating_mul(count));
        let end = [counted, every.duration].into_iter().flatten().min();
        Schedule { interval: every.interval, end, passed: 0 }
    }

    /// When the next part is due; none: only a signal ends the run.
    fn due(&self) -> Option<Duration> {
        let next = self.interval.map(|interval| interval.saturating_mul(self.passed.saturating_add(1)));
        [next, self.end].into_iter().flatten().min()
    }

    /// The part that is due at `elapsed`; parts that were overslept are one.
    fn pass(&mut self, elapsed: Duration) -> Option<bool> {
        if self.due().is_none_or(|due| elapsed < due) {
            return None;
        }
        if let Some(interval) = self.interval {
            self.passed = u32::try_from(elapsed.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u32::MAX);
        }
        Some(self.end.is_some_and(|end| elapsed >= end))
    }
}

/// Waits for whatever comes first.
pub struct Ticker {
    schedule: Schedule,
    signals: Signals,
    start: Instant,
    reported: Duration,
    /// A signal that the traced command has to get from us.
    pub forward: Option<Signal>,
}

impl Ticker {
    /// Starts the clock: call it after everything is attached.
    #[must_use]
    pub fn new(every: &Every, signals: Signals) -> Ticker {
        Ticker {
            schedule: Schedule::new(every),
            signals,
            start: Instant::now(),
            reported: Duration::ZERO,
            forward: None,
        }
    }

    /// For work that a signal ends early, such as a long report: says whether one has come. It still counts
    /// for [`Ticker::wait`].
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn interrupted(&self) -> Result<impl Fn() -> bool + 'static> {
        let fd = self.signals.fd().try_clone_to_owned()?;
        Ok(move || {
            let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        })
    }

    /// From the start to the end of the last part.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.reported
    }

    /// Waits until a part is over, at most `look` long. With the command the run ends.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn wait(&mut self, look: Option<Duration>, command: Option<&Child>) -> Result<Wake> {
        self.wait_also(look, command, None)
    }

    /// The same; also until `source` can be read: [`Wake::Look`].
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn wait_also(
        &mut self,
        look: Option<Duration>,
        command: Option<&Child>,
        source: Option<BorrowedFd<'_>>,
    ) -> Result<Wake> {
        let looks = look.map(|length| Instant::now() + length);
        loop {
            let elapsed = self.start.elapsed();
            if let Some(last) = self.schedule.pass(elapsed) {
                return Ok(self.part(elapsed, last));
            }
            if let Some(signal) = self.signals.take() {
                self.forward = signal;
                return Ok(self.part(self.start.elapsed(), true));
            }
            let now = Instant::now();
            if looks.is_some_and(|at| at <= now) {
                return Ok(Wake::Look);
            }
            let left = [
                self.schedule.due().map(|due| due.saturating_sub(elapsed)),
                looks.map(|at| at.saturating_duration_since(now)),
            ];
            let fds = [Some(self.signals.fd()), command.map(Child::fd), source];
            let mut polled: Vec<PollFd<'_>> =
                fds.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, timeout(left.into_iter().flatten().min())) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait"),
            }
            let mut ready = polled.iter().skip(1).map(|fd| fd.any().unwrap_or(true));
            let has_ended = command.is_some() && ready.next() == Some(true);
            let is_there = ready.next() == Some(true);
            if has_ended {
                return Ok(self.end());
            }
            if is_there {
                return Ok(Wake::Look);
            }
        }
    }

    /// Ends the run before its time.
    pub fn end(&mut self) -> Wake {
        self.part(self.start.elapsed(), true)
    }

    fn part(&mut self, elapsed: Duration, last: bool) -> Wake {
        let seconds = elapsed.saturating_sub(self.reported).as_secs_f64();
        self.reported = elapsed;
        Wake::Part { seconds, last }
    }
}

/// Rounded up: a wait must not end a millisecond too soon and spin.
fn timeout(left: Option<Duration>) -> PollTimeout {
    let Some(left) = left else {
        return PollTimeout::NONE;
    };
    let millis = left.as_nanos().div_ceil(1_000_000).min(1_000_000_000);
    PollTimeout::try_from(millis as u32).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(interval: u64, count: Option<u32>, duration: Option<u64>) -> Schedule {
        let duration = duration.map(Duration::from_millis);
        Schedule::new(&Every { interval: Some(Duration::from_millis(interval)), count, duration })
    }

    fn passes(schedule: &mut Schedule, at: &[u64]) -> Vec<Option<bool>> {
        at.iter().map(|ms| schedule.pass(Duration::from_millis(*ms))).collect()
    }

    #[test]
    fn parts_are_aligned_to_the_start_and_the_count_ends_the_run() {
        let mut s = schedule(100, Some(3), None);
        assert_eq!(
            passes(&mut s, &[99, 101, 199, 205, 300]),
            [None, Some(false), None, Some(false), Some(true)]
        );
    }

    #[test]
    fn parts_that_were_overslept_are_one() {
        let mut s = schedule(100, None, None);
        assert_eq!(passes(&mut s, &[350, 399, 400]), [Some(false), None, Some(false)]);
    }

    #[test]
    fn a_duration_cuts_the_last_part() {
        let mut s = schedule(100, Some(9), Some(250));
        assert_eq!(passes(&mut s, &[100, 200, 249, 250]), [Some(false), Some(false), None, Some(true)]);
    }

    #[test]
    fn without_an_interval_only_the_end_is_due() {
        let every = Every { interval: None, count: None, duration: None };
        assert_eq!(Schedule::new(&every).due(), None);
    }

    #[test]
    fn a_timeout_is_never_too_short() {
        assert_eq!(timeout(Some(Duration::from_micros(1))), PollTimeout::from(1_u8));
        assert_eq!(timeout(Some(Duration::ZERO)), PollTimeout::ZERO);
    }
}
