//! `cargo sim`: thousands of hostile worlds, one seed each, and an auditor who predicts every cent.
//!
//! A world runs the product's real handlers, store and SDK clients over embedded services, in virtual time. Calls are throttled,
//! refused, lost after they were applied, or answered from the past; functions are interleaved at every call and killed between any
//! two; queues duplicate, delay and reorder; schedules fire twice. After every step the auditor, a model with code of its own, compares
//! what was written with what the rules of money say. The same seed gives the same history on every machine.

mod auditor;
mod chance;
mod clock;
mod cloud;
mod items;
mod ledgers;
mod remitted;
mod script;
mod shop;
mod tasks;
mod told;
mod way;
mod ways;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::script::{Step, script};
use crate::world::{Failure, Played, Terms, play};

/// How often a failing history is tried with something left out.
const SHRINKING: usize = 400;
const SHRINKING_TIME: Duration = Duration::from_mins(2);
/// From so many worlds on, every kind of fault must have struck.
const MANY: u64 = 50;
const FAULTS: [&str; 42] = [
    "throttled",
    "conflict",
    "unavailable",
    "unreachable",
    "answer_lost",
    "failed_after",
    "in_part",
    "stale",
    "killed",
    "clock_off",
    "out_of_time",
    "reordered",
    "told_again",
    "overtaken",
    "duplicated",
    "redelivered",
    "fired_twice",
    "poison",
    "there_unreachable",
    "there_lost",
    "there_lost_after",
    "there_page",
    "there_page_after",
    "there_throttled",
    "there_token_ended",
    "there_refused",
    "there_twice",
    "webhook_again",
    "webhook_lost",
    "webhook_overtaken",
    "paypal_unreachable",
    "paypal_lost",
    "paypal_failed",
    "paypal_throttled",
    "paypal_token_ended",
    "paypal_lost_after",
    "paypal_failed_after",
    "paypal_refused",
    "paypal_twice",
    "paypal_again",
    "paypal_untold",
    "paypal_overtaken",
];

#[derive(Debug, Parser)]
#[command(about = "Plays worlds from seeds and checks every cent. See ARCHITECTURE.md.")]
struct Options {
    /// One world.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Many worlds, like 1..1000, the end excluded.
    #[arg(long, value_parser = range)]
    seeds: Option<Range<u64>>,
    /// Steps in each world.
    #[arg(long, default_value_t = 240)]
    steps: usize,
    /// Worlds played at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Tells everything that happens in the one world.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Reports a failing history as it is, without looking for a shorter one.
    #[arg(long)]
    no_shrinking: bool,
    /// Begins no other world once one failed.
    #[arg(long)]
    until_found: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.filter(|range: &Range<u64>| !range.is_empty()).ok_or_else(|| "give a range like 1..1000".to_owned())
}

fn main() -> ExitCode {
    let options = Options::parse();
    // A panic inside a function is a finding, told with its history; the default hook would only scatter it.
    std::panic::set_hook(Box::new(|_| {}));
    let passed = match (options.seed, &options.seeds) {
        (Some(seed), _) => one(seed, &options),
        (None, Some(seeds)) => many(seeds, &options),
        (None, None) => many(&(1..101), &options),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play_script(seed: u64, steps: &[Step], trace: bool) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(play(Terms { seed, trace }, steps)),
        Err(error) => {
            let failure = Failure { invariant: "the simulator itself".to_owned(), what: error.to_string() };
            Played { result: Err(failure), steps: 0, struck: BTreeMap::new(), written: BTreeMap::new(), trace: None }
        }
    }
}

fn one(seed: u64, options: &Options) -> bool {
    let steps = script(seed, options.steps);
    let played = play_script(seed, &steps, options.trace);
    if let Some(trace) = &played.trace {
        print!("{trace}");
    }
    match &played.result {
        Ok(()) => {
            println!("seed {seed}: {} steps, every cent explained", played.steps);
            true
        }
        Err(failure) => {
            report(seed, options, &steps, failure);
            false
        }
    }
}

/// What all worlds came to.
#[derive(Debug, Default)]
struct Sum {
    worlds: u64,
    steps: u64,
    struck: BTreeMap<&'static str, u64>,
    written: BTreeMap<String, u64>,
    failed: BTreeMap<u64, Failure>,
}

#[allow(clippy::cast_precision_loss, reason = "speeds are told to a digit")]
fn many(seeds: &Range<u64>, options: &Options) -> bool {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let played = play_script(seed, &script(seed, options.steps), false);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.worlds += 1;
                    sum.steps += played.steps;
                    for (fault, times) in played.struck {
                        *sum.struck.entry(fault).or_default() += times;
                    }
                    for (what, times) in played.written {
                        *sum.written.entry(what).or_default() += times;
                    }
                    if let Err(failure) = played.result {
                        if options.until_found {
                            next.store(seeds.end, Ordering::Relaxed);
                        }
                        eprintln!("seed {seed} FAILED ({}): {}", failure.invariant, failure.what);
                        sum.failed.insert(seed, failure);
                    }
                    if sum.worlds.is_multiple_of(20) {
                        let speed = sum.worlds as f64 / begun.elapsed().as_secs_f64();
                        eprintln!(
                            "{} of {} worlds, {speed:.1} a second, {} failed",
                            sum.worlds,
                            seeds.end - seeds.start,
                            sum.failed.len()
                        );
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary(&sum, begun.elapsed());
    if let Some((seed, failure)) = sum.failed.first_key_value() {
        report(*seed, options, &script(*seed, options.steps), failure);
    }
    let missing: Vec<_> = FAULTS.into_iter().filter(|fault| !sum.struck.contains_key(fault)).collect();
    if sum.worlds >= MANY && !missing.is_empty() {
        eprintln!("faults that never struck, so that nothing is proved about them: {}", missing.join(", "));
        return false;
    }
    sum.failed.is_empty()
}

#[allow(clippy::cast_precision_loss, reason = "speeds are told to a digit")]
fn summary(sum: &Sum, took: Duration) {
    let seconds = took.as_secs_f64().max(0.001);
    let strikes: u64 = sum.struck.values().sum();
    println!(
        "{} worlds, {} steps and {strikes} faults in {seconds:.0} s: {:.1} worlds, {:.0} steps and {:.0} faults a second; {} failed",
        sum.worlds,
        sum.steps,
        sum.worlds as f64 / seconds,
        sum.steps as f64 / seconds,
        strikes as f64 / seconds,
        sum.failed.len(),
    );
    println!("what struck:");
    for (fault, times) in &sum.struck {
        println!("  {fault:<20} {times:>8}");
    }
    println!("what was written:");
    for (what, times) in &sum.written {
        println!("  {what:<16} {times:>8}");
    }
    let mut broken: BTreeMap<&str, u64> = BTreeMap::new();
    for failure in sum.failed.values() {
        *broken.entry(&failure.invariant).or_default() += 1;
    }
    for (invariant, worlds) in broken {
        println!("  BROKEN in {worlds} world(s): {invariant}");
    }
}

/// Tells a failure with the shortest history that still shows it.
fn report(seed: u64, options: &Options, steps: &[Step], failure: &Failure) {
    println!("seed {seed} failed: {}\n  {}", failure.invariant, failure.what);
    if !options.no_shrinking {
        let shortest = shrink(seed, steps, failure);
        println!("the shortest history found that shows it, {} of {} steps:", shortest.len(), steps.len());
        let played = play_script(seed, &shortest, true);
        print!("{}", played.trace.unwrap_or_default());
    }
    println!("again: cargo sim --seed {seed} --steps {} --trace", options.steps);
}

/// Leaves out larger, then smaller parts of the history, and repetitions within what is left, as long as the same invariant breaks.
fn shrink(seed: u64, steps: &[Step], failure: &Failure) -> Vec<Step> {
    let begun = Instant::now();
    let mut tries = 0;
    let mut still_fails = |steps: &[Step]| {
        tries += 1;
        let in_time = tries <= SHRINKING && begun.elapsed() < SHRINKING_TIME;
        in_time && play_script(seed, steps, false).result.is_err_and(|found| found.invariant == failure.invariant)
    };
    let mut shortest = steps.to_vec();
    let mut part = shortest.len().div_ceil(2);
    loop {
        let (mut at, before) = (0, shortest.len());
        while at < shortest.len() {
            let mut without = shortest.clone();
            without.drain(at..(at + part).min(shortest.len()));
            if still_fails(&without) {
                shortest = without;
            } else {
                at += part;
            }
        }
        if part == 1 && shortest.len() == before {
            break;
        }
        part = part.div_ceil(2);
    }
    for at in 0..shortest.len() {
        let mut once = shortest.clone();
        once[at].most = 0;
        if once != shortest && still_fails(&once) {
            shortest = once;
        }
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_worlds_hold() {
        for seed in 1..4 {
            let played = play_script(seed, &script(seed, 120), false);
            let steps = script(seed, 120).len() as u64;
            assert_eq!((played.result, played.steps), (Ok(()), steps), "seed {seed}");
            assert!(
                !played.struck.is_empty() && !played.written.is_empty(),
                "seed {seed} was too quiet to prove anything"
            );
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_history() {
        let trace = || play_script(11, &script(11, 60), true).trace;
        let first = trace();
        assert!(first.as_ref().is_some_and(|trace| trace.lines().count() > 100));
        assert_eq!(first, trace());
    }

    #[test]
    fn what_does_not_fail_is_not_shortened() {
        let failure = Failure { invariant: "none".to_owned(), what: String::new() };
        let steps = script(3, 4);
        assert_eq!(shrink(3, &steps, &failure), steps);
    }

    #[test]
    fn a_range_excludes_its_end() {
        assert_eq!(range("1..100"), Ok(1..100));
        assert!(range("5..5").is_err() && range("1-9").is_err() && range("x..9").is_err());
    }
}
