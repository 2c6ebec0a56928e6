//! Files that have payouts paid: which columns PayPal, Wise and a bank expect, and which payouts they could not take.
//!
//! A rail reads such a file without a person in between, so nothing in it is altered to make it safe: a payout whose text could
//! run as a formula in a spreadsheet, or whose amount the rail cannot express, is left out and the reason is told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::money::Money;
use crate::program::MethodKind;

/// Characters of a note that PayPal shows to the recipient.
const PAYPAL_NOTE_CHARS: usize = 400;
/// Characters of PayPal's customer id, which has no spaces.
const PAYPAL_CUSTOMER_CHARS: usize = 30;
/// Currencies that PayPal pays out in, <https://developer.paypal.com/api/rest/reference/currency-codes/>.
const PAYPAL_CURRENCIES: [&str; 24] = [
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR", "NOK",
    "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD",
];
/// Of those, the ones that PayPal takes whole units of only, though ISO 4217 gives them decimals. Same page.
const PAYPAL_WHOLE: [&str; 2] = ["HUF", "TWD"];

/// A file that has payouts paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemittanceFormat {
    /// PayPal's payment file: no heading, one currency, 5,000 rows.
    Paypal,
    /// Its predecessor: the first five columns.
    Masspay,
    /// Wise's batch payment by e-mail address: 1,000 rows.
    Wise,
    /// For a bank, in no bank's own form.
    Bank,
}

impl RemittanceFormat {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paypal => "paypal",
            Self::Masspay => "masspay",
            Self::Wise => "wise",
            Self::Bank => "bank",
        }
    }

    /// The payment type whose payouts it holds.
    pub const fn method(self) -> MethodKind {
        match self {
            Self::Paypal | Self::Masspay => MethodKind::Paypal,
            Self::Wise => MethodKind::Wise,
            Self::Bank => MethodKind::Bank,
        }
    }

    /// The first row; PayPal wants none.
    pub const fn heading(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Paypal | Self::Masspay => None,
            Self::Wise => Some(&[
                "name",
                "recipientEmail",
                "sourceCurrency",
                "targetCurrency",
                "amount",
                "amountCurrency",
                "reference",
            ]),
            Self::Bank => Some(&[
                "name",
                "iban",
                "accountNumber",
                "routingNumber",
                "amount",
                "amountMinor",
                "currency",
                "reference",
                "payoutId",
                "partnerId",
                "approvedAt",
            ]),
        }
    }

    /// Rows that one file may have, without the heading.
    pub const fn max_rows(self) -> u32 {
        match self {
            Self::Paypal | Self::Masspay => 5_000,
            Self::Wise => 1_000,
            Self::Bank => u32::MAX,
        }
    }

    /// Whether a file holds one currency only.
    pub const fn is_of_one_currency(self) -> bool {
        matches!(self, Self::Paypal | Self::Masspay)
    }

    /// One payout as a row.
    pub fn row(self, of: &Remittance<'_>) -> Result<Vec<String>, Unfit> {
        let row = match self {
            Self::Paypal => of.paypal()?,
            Self::Masspay => of.masspay()?,
            Self::Wise => of.wise(),
            Self::Bank => of.bank(),
        };
        match row.iter().find(|cell| is_formula(cell)) {
            None => Ok(row),
            Some(_) => Err(Unfit::UnsafeText),
        }
    }
}

/// What a row is made from.
#[derive(Clone, Copy)]
pub struct Remittance<'a> {
    pub payout: &'a str,
    /// The payout's number for people.
    pub number: &'a str,
    pub program: &'a str,
    pub partner: &'a str,
    /// Where it goes, as the partner said.
    pub details: &'a BTreeMap<String, String>,
    /// In the currency it is sent in.
    pub pays: Money,
    /// The currency it is taken from.
    pub source_currency: crate::money::Currency,
    pub approved_at: Option<Timestamp>,
}

/// Where money goes is for no log.
impl std::fmt::Debug for Remittance<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remittance").field("payout", &self.payout).field("pays", &self.pays).finish_non_exhaustive()
    }
}

/// Why a rail cannot be asked to pay a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    #[error("a text begins as a formula does (= + - @ or a control character); correct the payout details")]
    UnsafeText,
    #[error("PayPal does not pay out in this currency")]
    Currency,
    #[error("PayPal takes whole units of this currency only")]
    Fraction,
    #[error("Venmo pays in USD only, and is no part of the older MassPay file")]
    Venmo,
    #[error("the payout details name no recipient")]
    NoRecipient,
}

/// How PayPal is to pay one recipient, by file or by its API.
#[derive(Clone, PartialEq, Eq)]
pub struct PaypalItem {
    pub receiver: String,
    pub receiver_kind: PaypalReceiver,
    pub value: String,
    pub venmo: bool,
    pub note: String,
}

impl std::fmt::Debug for PaypalItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaypalItem").field("value", &self.value).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaypalReceiver {
    Email,
    PayerId,
    Phone,
    VenmoHandle,
}

impl Remittance<'_> {
    fn detail(&self, name: &str) -> String {
        self.details.get(name).map(|value| value.trim().to_owned()).unwrap_or_default()
    }

    /// Refuses what PayPal would.
    pub fn paypal_item(&self) -> Result<PaypalItem, Unfit> {
        let currency = self.pays.currency.code();
        let venmo = self.detail("wallet") == VENMO;
        if !PAYPAL_CURRENCIES.contains(&currency) {
            return Err(Unfit::Currency);
        }
        if venmo && currency != "USD" {
            return Err(Unfit::Venmo);
        }
        let exact = self.pays.decimal();
        let value = if PAYPAL_WHOLE.contains(&currency) {
            exact.strip_suffix(".00").ok_or(Unfit::Fraction)?.to_owned()
        } else {
            exact
        };
        use PaypalReceiver::{Email, PayerId, Phone, VenmoHandle};
        let named = [("email", Email), ("payerId", PayerId), ("phone", Phone), ("venmoHandle", VenmoHandle)];
        let named = named.map(|(field, kind)| (self.detail(field), kind));
        let (receiver, receiver_kind) =
            named.into_iter().find(|(value, _)| !value.is_empty()).ok_or(Unfit::NoRecipient)?;
        let note = format!("Payout {}, {}", self.number, self.program);
        let note = note.chars().take(PAYPAL_NOTE_CHARS).collect();
        Ok(PaypalItem { receiver, receiver_kind, value, venmo, note })
    }

    fn paypal(&self) -> Result<Vec<String>, Unfit> {
        let item = self.paypal_item()?;
        let wallet = if item.venmo { VENMO } else { "PAYPAL" };
        let privacy = if item.venmo { self.privacy() } else { String::new() };
        let customer = self.number.chars().filter(|c| !c.is_whitespace()).take(PAYPAL_CUSTOMER_CHARS).collect();
        let currency = self.pays.currency.code().to_owned();
        Ok(vec![item.receiver, item.value, currency, customer, item.note, wallet.to_owned(), privacy])
    }

    /// Who sees a payment in Venmo's feed; nobody, where nothing is said.
    fn privacy(&self) -> String {
        let said = self.detail("venmoPrivacy");
        if said.is_empty() { VENMO_PRIVACY[0].to_owned() } else { said }
    }

    fn masspay(&self) -> Result<Vec<String>, Unfit> {
        if self.paypal_item()?.venmo {
            return Err(Unfit::Venmo);
        }
        let mut row = self.paypal()?;
        row.truncate(5);
        Ok(row)
    }

    fn wise(&self) -> Vec<String> {
        vec![
            self.detail("name"),
            self.detail("email"),
            self.source_currency.code().to_owned(),
            self.pays.currency.code().to_owned(),
            self.pays.decimal(),
            // The partner gets exactly this; Wise's fee is the merchant's.
            "target".to_owned(),
            self.number.to_owned(),
        ]
    }

    fn bank(&self) -> Vec<String> {
        vec![
            self.detail("name"),
            self.detail("iban"),
            self.detail("accountNumber"),
            self.detail("routingNumber"),
            self.pays.decimal(),
            self.pays.amount.units().to_string(),
            self.pays.currency.code().to_owned(),
            self.number.to_owned(),
            self.payout.to_owned(),
            self.partner.to_owned(),
            self.approved_at.map(|at| at.to_string()).unwrap_or_default(),
        ]
    }
}

pub const VENMO: &str = "VENMO";
pub const VENMO_PRIVACY: [&str; 3] = ["PRIVATE", "FRIENDS_ONLY", "PUBLIC"];

/// Whether a spreadsheet could take the text for a formula. <https://owasp.org/www-community/attacks/CSV_Injection>
pub fn is_formula(cell: &str) -> bool {
    cell.chars().next().is_some_and(|first| matches!(first, '=' | '+' | '-' | '@') || first.is_control())
}

/// Text for a file that people open: with an apostrophe before it, a spreadsheet shows a formula and does not run it.
pub fn shown_as_text(cell: &str) -> String {
    if is_formula(cell) { format!("'{cell}") } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::minor;

    fn row(format: RemittanceFormat, details: &[(&str, &str)], pays: &str, units: i64) -> Result<Vec<String>, Unfit> {
        let details = details.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        format.row(&Remittance {
            payout: "pay_1",
            number: "PP-00AB",
            program: "Acme, \"Partners\"",
            partner: "par_1",
            details: &details,
            pays: Money::new(minor(units), pays.parse().unwrap()),
            source_currency: "USD".parse().unwrap(),
            approved_at: Some("2026-06-01T10:00:00Z".parse().unwrap()),
        })
    }

    use RemittanceFormat::{Bank, Masspay, Paypal, Wise};

    #[test]
    fn rows_have_the_columns_each_rail_expects() {
        let note = "Payout PP-00AB, Acme, \"Partners\"";
        let email: &[(&str, &str)] = &[("email", "pay@partner.example")];
        let venmo: &[(&str, &str)] = &[("phone", "2125550100"), ("wallet", "VENMO"), ("venmoPrivacy", "FRIENDS_ONLY")];
        let wise: &[(&str, &str)] = &[("name", "Zoë, \"Z\"\nLtd"), ("email", "z@partner.example")];
        let bank: &[(&str, &str)] = &[("name", "Ann"), ("iban", "DE89370400440532013000")];
        for (format, details, currency, units, expect) in [
            (Paypal, email, "USD", 3_050, vec!["pay@partner.example", "30.50", "USD", "PP-00AB", note, "PAYPAL", ""]),
            (Paypal, email, "JPY", 3_050, vec!["pay@partner.example", "3050", "JPY", "PP-00AB", note, "PAYPAL", ""]),
            (Paypal, email, "HUF", 300_000, vec!["pay@partner.example", "3000", "HUF", "PP-00AB", note, "PAYPAL", ""]),
            (
                Paypal,
                &[("payerId", "QYR5Z8XDVJNXQ")],
                "EUR",
                1,
                vec!["QYR5Z8XDVJNXQ", "0.01", "EUR", "PP-00AB", note, "PAYPAL", ""],
            ),
            (Paypal, venmo, "USD", 100, vec!["2125550100", "1.00", "USD", "PP-00AB", note, "VENMO", "FRIENDS_ONLY"]),
            (Masspay, email, "USD", 3_050, vec!["pay@partner.example", "30.50", "USD", "PP-00AB", note]),
            (
                Wise,
                wise,
                "EUR",
                900,
                vec!["Zoë, \"Z\"\nLtd", "z@partner.example", "USD", "EUR", "9.00", "target", "PP-00AB"],
            ),
            (
                Bank,
                bank,
                "KWD",
                1_500,
                vec![
                    "Ann",
                    "DE89370400440532013000",
                    "",
                    "",
                    "1.500",
                    "1500",
                    "KWD",
                    "PP-00AB",
                    "pay_1",
                    "par_1",
                    "2026-06-01T10:00:00Z",
                ],
            ),
        ] {
            let made = row(format, details, currency, units).unwrap();
            assert_eq!(made, expect, "{format:?}");
            assert!(format.heading().is_none_or(|heading| heading.len() == made.len()), "{format:?}");
        }
    }

    #[test]
    fn what_a_rail_cannot_pay_is_left_out_with_the_reason() {
        let email: &[(&str, &str)] = &[("email", "pay@partner.example")];
        let venmo: &[(&str, &str)] = &[("email", "v@partner.example"), ("wallet", "VENMO")];
        for (format, details, currency, units, because) in [
            (Paypal, &[("email", "=cmd|@x.example")][..], "USD", 1, Unfit::UnsafeText),
            (Wise, &[("name", "+1"), ("email", "a@x.example")][..], "USD", 1, Unfit::UnsafeText),
            (Wise, &[("name", "@SUM(A1)"), ("email", "a@x.example")][..], "USD", 1, Unfit::UnsafeText),
            (Bank, &[("name", "\u{7}Ann"), ("iban", "DE")][..], "USD", 1, Unfit::UnsafeText),
            (Bank, &[("name", "Ann"), ("accountNumber", "-1")][..], "USD", 1, Unfit::UnsafeText),
            (Paypal, email, "KWD", 1, Unfit::Currency),
            (Paypal, email, "HUF", 10_050, Unfit::Fraction),
            (Paypal, venmo, "EUR", 100, Unfit::Venmo),
            (Masspay, venmo, "USD", 100, Unfit::Venmo),
            (Paypal, &[][..], "USD", 100, Unfit::NoRecipient),
        ] {
            assert_eq!(row(format, details, currency, units), Err(because), "{format:?} {details:?}");
        }
    }

    #[test]
    fn formulas_are_shown_and_everything_else_is_left_alone() {
        for (text, expect) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("\rx", "'\rx"),
            ("1=1", "1=1"),
            ("", ""),
            ("Zoë", "Zoë"),
        ] {
            assert_eq!(shown_as_text(text), expect);
        }
    }
}
