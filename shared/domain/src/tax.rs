//! Tax on payouts: what a payer must keep back.

use serde::{Deserialize, Serialize};

use crate::money::{Minor, MoneyError, Percent};

/// What is kept back from a payout, decided when it was drafted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withholding {
    pub kind: WithholdingKind,
    pub rate: Percent,
    /// It applies where the payout comes to at least this much, and then to the whole of it.
    pub from: Minor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithholdingKind {
    /// A payee of the country who gave no tax number.
    Backup,
    /// A foreign payee for services done in the country, by law or treaty.
    Nonresident,
}

impl Withholding {
    /// How much is kept back of a payout that comes to `gross`.
    pub fn of(&self, gross: Minor) -> Result<Minor, MoneyError> {
        if gross.is_positive() && gross >= self.from { self.rate.of(gross) } else { Ok(Minor::ZERO) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::minor;

    #[test]
    fn the_whole_payout_is_withheld_from_once_it_reaches_the_limit() {
        let backup = Withholding { kind: WithholdingKind::Backup, rate: Percent::new(24.into()), from: minor(60_000) };
        for (gross, expect) in [(59_999, 0), (60_000, 14_400), (60_002, 14_400), (-60_000, 0)] {
            assert_eq!(backup.of(minor(gross)).unwrap(), minor(expect), "{gross}");
        }
    }
}
