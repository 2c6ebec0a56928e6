//! Chance from a seed: the same choices on every machine.

/// A source of choices. The generator (`fastrand`'s `WyRand`) is fixed by the lock file.
#[derive(Debug, Clone)]
pub struct Chance(fastrand::Rng);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Independent of how often other sources were asked: a step's choices stay when other steps go.
    pub fn of(seed: u64, step: u64) -> Self {
        Self::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ step)
    }

    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }

    pub fn number(&mut self) -> u64 {
        self.0.u64(..)
    }

    pub fn wide(&mut self) -> u128 {
        self.0.u128(..)
    }

    /// From `low` to `high`, both included.
    pub fn from(&mut self, low: i64, high: i64) -> i64 {
        self.0.i64(low..=high)
    }

    /// Below `end`; zero if there is nothing below.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.usize(0..end) }
    }

    pub fn percent(&mut self, odds: u32) -> bool {
        self.0.u32(0..100) < odds
    }

    pub fn permille(&mut self, odds: u32) -> bool {
        self.0.u32(0..1000) < odds
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// One of several, each as likely as its weight.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u32, T)]) -> Option<T> {
        let all: u32 = choices.iter().map(|(weight, _)| weight).sum();
        let mut at = self.0.u32(0..all.max(1));
        for (weight, choice) in choices {
            if at < *weight {
                return Some(*choice);
            }
            at -= weight;
        }
        None
    }
}
