//! The entities used here, with the fields used here. Names and limits are Intuit's (accounting API, minor version 75).

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::amount::Amount;

/// Something that has an address of its own in a company.
pub trait Entity: DeserializeOwned + Serialize {
    /// Its name in bodies and queries; the path has it in lower case.
    const NAME: &'static str;
}

macro_rules! entity {
    ($type:ty, $name:literal) => {
        impl Entity for $type {
            const NAME: &'static str = $name;
        }
    };
}

entity!(Vendor, "Vendor");
entity!(Bill, "Bill");
entity!(BillPayment, "BillPayment");
entity!(Account, "Account");
entity!(Term, "Term");
entity!(Preferences, "Preferences");
entity!(CompanyInfo, "CompanyInfo");

/// A reference to something by its id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    pub value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Ref {
    pub fn to(id: impl Into<String>) -> Self {
        Self { value: id.into(), name: None }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MetaData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated_time: Option<String>,
}

impl MetaData {
    /// `None` where it is not told, or not as a moment.
    pub fn changed_at(&self) -> Option<Timestamp> {
        self.last_updated_time.as_deref()?.parse().ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Email {
    pub address: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Vendor {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Opaque. What is sent with another than the current one is refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sync_token: String,
    /// At most 500 characters, unique among vendors, customers and employees, without colon, tab and newline.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub print_on_check_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_email_addr: Option<Email>,
    /// At most 15 characters where it must show in QuickBooks Online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acct_num: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// What it is paid in; it cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency_ref: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Bill {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sync_token: String,
    pub vendor_ref: Ref,
    #[serde(skip_serializing_if = "Option::is_none", rename = "APAccountRef")]
    pub ap_account_ref: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sales_term_ref: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency_ref: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange_rate: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_tax_calculation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_date: Option<Date>,
    /// At most 21 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc_number: Option<String>,
    /// The memo, at most 4,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_note: Option<String>,
    pub line: Vec<BillLine>,
    /// What it comes to. QuickBooks computes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_amt: Option<Amount>,
    /// What is open of it. Zero: settled, by cash or by credits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Amount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub linked_txn: Vec<LinkedTxn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BillLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub amount: Amount,
    /// At most 4,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub detail_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_based_expense_line_detail: Option<ExpenseDetail>,
}

impl BillLine {
    /// An amount to an account; negative ones take away.
    pub fn expense(amount: Amount, account: &str, description: String) -> Self {
        Self {
            id: None,
            amount,
            description: Some(description),
            detail_type: "AccountBasedExpenseLineDetail".to_owned(),
            account_based_expense_line_detail: Some(ExpenseDetail { account_ref: Ref::to(account) }),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExpenseDetail {
    pub account_ref: Ref,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LinkedTxn {
    pub txn_id: String,
    pub txn_type: String,
}

/// A payment of Bills, by check or by card.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BillPayment {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sync_token: String,
    pub vendor_ref: Ref,
    pub pay_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_amt: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency_ref: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_note: Option<String>,
    pub line: Vec<PaymentLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PaymentLine {
    pub amount: Amount,
    pub linked_txn: Vec<LinkedTxn>,
}

impl BillPayment {
    /// How much of it went to a Bill. Nothing once it was voided: its links are gone then.
    pub fn applied_to(&self, bill: &str) -> Amount {
        let to_bill = |line: &&PaymentLine| {
            line.linked_txn.iter().any(|linked| linked.txn_type == "Bill" && linked.txn_id == bill)
        };
        Amount(self.line.iter().filter(to_bill).map(|line| line.amount.0).sum())
    }

    /// How much of that is money. Whatever else the payment draws on (credits of the vendor, journal entries, deposits) settles without any, and
    /// is counted as this Bill's, so that never more is told; neither is more than the payment's own total, which is what it moved.
    pub fn cash_to(&self, bill: &str) -> Amount {
        let pays_a_bill = |line: &PaymentLine| line.linked_txn.iter().any(|linked| linked.txn_type == "Bill");
        let drawn_on = self.line.iter().filter(|line| !pays_a_bill(line));
        let credits: Decimal = drawn_on.map(|line| line.amount.0.abs()).sum();
        let moved = self.total_amt.unwrap_or_default().0;
        Amount((self.applied_to(bill).0 - credits).min(moved).max(Decimal::ZERO))
    }

    /// The Bills it pays.
    pub fn bills(&self) -> impl Iterator<Item = &str> {
        let linked = self.line.iter().flat_map(|line| &line.linked_txn);
        linked.filter(|linked| linked.txn_type == "Bill").map(|linked| linked.txn_id.as_str())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Account {
    pub id: String,
    pub name: String,
    pub account_type: String,
    pub classification: Option<String>,
    pub active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency_ref: Option<Ref>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Term {
    pub id: String,
    pub name: String,
    pub active: Option<bool>,
    pub due_days: Option<u32>,
}

/// What of a company's preferences decides how a Bill must look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Preferences {
    pub id: String,
    pub accounting_info_prefs: AccountingInfo,
    pub currency_prefs: CurrencyPrefs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CompanyInfo {
    pub company_name: String,
    /// ISO 3166, two letters.
    pub country: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AccountingInfo {
    /// Nothing dated up to this day can be changed.
    pub book_close_date: Option<Date>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CurrencyPrefs {
    pub multi_currency_enabled: bool,
    pub home_currency: Option<Ref>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_written_with_the_names_of_the_schema() {
        let bill = Bill {
            vendor_ref: Ref::to("56"),
            ap_account_ref: Some(Ref::to("33")),
            txn_date: Some("2026-01-31".parse().unwrap()),
            doc_number: Some("PP-1".into()),
            line: vec![BillLine::expense(Amount("-10.50".parse().unwrap()), "7", "Commissions".into())],
            ..Bill::default()
        };
        let expect = r#"{"VendorRef":{"value":"56"},"APAccountRef":{"value":"33"},"TxnDate":"2026-01-31","DocNumber":"PP-1","Line":[{"Amount":-10.50,"Description":"Commissions","DetailType":"AccountBasedExpenseLineDetail","AccountBasedExpenseLineDetail":{"AccountRef":{"value":"7"}}}]}"#;
        assert_eq!(serde_json::to_string(&bill).unwrap(), expect);
    }

    #[test]
    fn only_what_is_linked_to_a_bill_pays_it() {
        let payment: BillPayment = serde_json::from_str(
            r#"{"Id":"9","VendorRef":{"value":"56"},"PayType":"Check","TotalAmt":150,"Line":[
                {"Amount":100.0,"LinkedTxn":[{"TxnId":"1","TxnType":"Bill"}]},
                {"Amount":20,"LinkedTxn":[{"TxnId":"1","TxnType":"VendorCredit"}]},
                {"Amount":50.00,"LinkedTxn":[{"TxnId":"2","TxnType":"Bill"}]}]}"#,
        )
        .unwrap();
        assert_eq!(payment.applied_to("1"), Amount(100.into()));
        assert_eq!(payment.cash_to("1"), Amount(80.into()), "a credit is no money");
        assert_eq!(payment.bills().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn only_what_a_payment_moved_is_cash() {
        let to_bill = |amount| format!(r#"{{"Amount":{amount},"LinkedTxn":[{{"TxnId":"1","TxnType":"Bill"}}]}}"#);
        let from = |kind, amount| format!(r#"{{"Amount":{amount},"LinkedTxn":[{{"TxnId":"7","TxnType":"{kind}"}}]}}"#);
        for (total, lines, cash) in [
            ("100", vec![to_bill(100)], 100),
            ("0", vec![to_bill(100), from("VendorCredit", 100)], 0),
            ("0", vec![to_bill(100), from("JournalEntry", 100)], 0),
            ("0", vec![to_bill(100), from("Deposit", 100)], 0),
            ("0", vec![to_bill(100), from("Something new", -100)], 0),
            ("0", vec![to_bill(100), r#"{"Amount":100}"#.to_owned()], 0),
            ("40", vec![to_bill(100), from("JournalEntry", 60)], 40),
            // However its lines are told, it moved no more than its total.
            ("0", vec![to_bill(100)], 0),
            ("30", vec![to_bill(100)], 30),
            // More than its lines: a credit for another time.
            ("150", vec![to_bill(100)], 100),
            ("null", vec![to_bill(100)], 0),
        ] {
            let body = format!(
                r#"{{"Id":"9","VendorRef":{{"value":"56"}},"PayType":"Check","TotalAmt":{total},"Line":[{}]}}"#,
                lines.join(",")
            );
            let payment: BillPayment = serde_json::from_str(&body).unwrap();
            assert_eq!(payment.cash_to("1"), Amount(cash.into()), "{body}");
        }
    }
}
