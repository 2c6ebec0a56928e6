//! One company's books: entities, what may be done to them, and what that changes elsewhere.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::fault::Refusal;
use crate::query::{Query, compare, text_of};

/// Changes are told this far back.
const CDC_DAYS: i64 = 30;
const CDC_MAX: usize = 1_000;
/// Entities with a list of names: deleted by being made inactive, and found inactive only when asked for.
const NAME_LISTS: [&str; 5] = ["Account", "Vendor", "Customer", "Employee", "Term"];
const KNOWN: [&str; 11] = [
    "Account",
    "Vendor",
    "Customer",
    "Employee",
    "Term",
    "Bill",
    "BillPayment",
    "VendorCredit",
    "JournalEntry",
    "CompanyInfo",
    "Preferences",
];

/// What a payment's lines may be linked to.
const PAID_WITH: [&str; 3] = ["Bill", "VendorCredit", "JournalEntry"];

/// What a change is told as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    pub entity: &'static str,
    pub id: String,
    pub operation: &'static str,
    pub at: Timestamp,
    /// The entity that went into this one.
    pub merged: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Company {
    pub realm: String,
    pub currency: String,
    /// Nothing dated up to this day changes any more.
    pub books_closed: Option<Date>,
    /// Whether a document number stands for one Bill.
    pub unique_numbers: bool,
    /// Whether there are vendors and Bills in other currencies.
    pub multi_currency: bool,
    /// The subscription has ended: whatever is asked is refused.
    pub suspended: bool,
    entities: BTreeMap<&'static str, BTreeMap<u64, Value>>,
    /// What was deleted, by kind: id and when.
    deleted: Vec<(&'static str, String, Timestamp)>,
    next: u64,
    pub happened: Vec<Happened>,
}

/// Accounts that every company has here.
pub const EXPENSE_ACCOUNT: &str = "7";
pub const WITHHOLDING_ACCOUNT: &str = "8";
pub const PAYABLE_ACCOUNT: &str = "33";
pub const BANK_ACCOUNT: &str = "35";

pub(crate) fn name_of(entity: &str) -> Result<&'static str, Refusal> {
    let found = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(entity));
    found.copied().ok_or_else(|| Refusal::unsupported(entity))
}

pub fn amount(value: &Value) -> Option<Decimal> {
    let text = text_of(value)?;
    Decimal::from_str_exact(&text).or_else(|_| Decimal::from_scientific(&text)).ok()
}

/// Amounts have so few digits that their shortest text as a number is exact.
pub fn number(amount: Decimal) -> Value {
    serde_json::from_str(&amount.round_dp(5).normalize().to_string()).unwrap_or_default()
}

/// A list, told as such or as its one member, or left out.
fn members(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn is_blank(value: &Value) -> bool {
    value.is_null() || value == "" || value.as_object().is_some_and(Map::is_empty)
}

/// Clients send many fields as null or as empty text; they mean nothing.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null() && **value != "");
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

impl Company {
    pub fn new(realm: &str, currency: &str, now: Timestamp) -> Self {
        let mut company = Self {
            realm: realm.to_owned(),
            currency: currency.to_owned(),
            books_closed: None,
            unique_numbers: true,
            multi_currency: false,
            suspended: false,
            entities: BTreeMap::new(),
            deleted: Vec::new(),
            next: 100,
            happened: Vec::new(),
        };
        let account = |name: &str, kind: &str, class: &str| json!({"Name": name, "FullyQualifiedName": name, "AccountType": kind, "Classification": class, "Active": true, "CurrencyRef": {"value": currency}});
        for (id, entity, body) in [
            (EXPENSE_ACCOUNT, "Account", account("Commissions", "Expense", "Expense")),
            (WITHHOLDING_ACCOUNT, "Account", account("Tax withheld", "Other Current Liability", "Liability")),
            (PAYABLE_ACCOUNT, "Account", account("Accounts Payable (A/P)", "Accounts Payable", "Liability")),
            (BANK_ACCOUNT, "Account", account("Checking", "Bank", "Asset")),
            ("3", "Term", json!({"Name": "Net 30", "Active": true, "Type": "STANDARD", "DueDays": 30})),
            ("1", "CompanyInfo", json!({"CompanyName": "A company", "Country": "US"})),
        ] {
            company.put(entity, id, body, now);
        }
        company
    }

    /// The books, to be opened again.
    pub(crate) fn kept(&self) -> Value {
        let entities: Map<_, _> = self
            .entities
            .iter()
            .map(|(name, all)| ((*name).to_owned(), all.values().cloned().collect::<Value>()))
            .collect();
        let deleted: Vec<_> = self.deleted.iter().map(|(name, id, at)| json!([name, id, at.to_string()])).collect();
        json!({
            "realm": self.realm, "currency": self.currency, "booksClosed": self.books_closed.map(|date| date.to_string()),
            "multiCurrency": self.multi_currency, "suspended": self.suspended, "entities": entities, "deleted": deleted, "next": self.next,
        })
    }

    /// `None` where these are no books.
    pub(crate) fn opened(kept: &Value, now: Timestamp) -> Option<Self> {
        let mut company = Self::new(kept["realm"].as_str()?, kept["currency"].as_str()?, now);
        company.books_closed = kept["booksClosed"].as_str().and_then(|date| date.parse().ok());
        company.multi_currency = kept["multiCurrency"] == true;
        company.suspended = kept["suspended"] == true;
        company.next = kept["next"].as_u64()?;
        for (name, all) in kept["entities"].as_object()? {
            let name = name_of(name).ok()?;
            let all = all.as_array()?.iter();
            let all = all.map(|one| Some((text_of(&one["Id"])?.parse().ok()?, one.clone())));
            company.entities.insert(name, all.collect::<Option<_>>()?);
        }
        for gone in kept["deleted"].as_array()? {
            let at = gone[2].as_str()?.parse().ok()?;
            company.deleted.push((name_of(gone[0].as_str()?).ok()?, gone[1].as_str()?.to_owned(), at));
        }
        Some(company)
    }

    fn put(&mut self, entity: &'static str, id: &str, mut body: Value, now: Timestamp) {
        body["Id"] = json!(id);
        body["SyncToken"] = json!("0");
        body["domain"] = json!("QBO");
        body["sparse"] = json!(false);
        body["MetaData"] = json!({"CreateTime": shown(now), "LastUpdatedTime": shown(now)});
        self.entities.entry(entity).or_default().insert(id.parse().unwrap_or_default(), body);
    }

    fn tell(&mut self, entity: &'static str, id: &str, operation: &'static str, at: Timestamp) {
        self.happened.push(Happened { entity, id: id.to_owned(), operation, at, merged: None });
    }

    fn find(&self, entity: &str, id: &str) -> Option<&Value> {
        self.entities.get(entity)?.get(&id.parse::<u64>().ok()?)
    }

    fn find_mut(&mut self, entity: &str, id: &str) -> Option<&mut Value> {
        self.entities.get_mut(entity)?.get_mut(&id.parse::<u64>().ok()?)
    }

    pub fn all(&self, entity: &str) -> impl Iterator<Item = &Value> {
        self.entities.get(entity).into_iter().flat_map(BTreeMap::values)
    }

    /// Accounting preferences, as they are asked for.
    fn preferences(&self) -> Value {
        let mut accounting = json!({"FirstMonthOfFiscalYear": "January", "UseAccountNumbers": false});
        if let Some(closed) = self.books_closed {
            accounting["BookCloseDate"] = json!(closed.to_string());
        }
        json!({
            "Id": "1", "SyncToken": "0", "domain": "QBO", "sparse": false, "AccountingInfoPrefs": accounting,
            "CurrencyPrefs": {"MultiCurrencyEnabled": self.multi_currency, "HomeCurrency": {"value": self.currency}},
        })
    }

    pub fn read(&self, entity: &str, id: &str) -> Result<Value, Refusal> {
        let name = name_of(entity)?;
        let found = if name == "Preferences" { Some(self.preferences()) } else { self.find(name, id).cloned() };
        Ok(json!({name: found.ok_or_else(Refusal::gone)?}))
    }

    // --- Writing --------------------------------------------------------------------------------------------------

    /// Creates, updates, deletes or voids, as body and operation say.
    pub fn write(
        &mut self,
        entity: &str,
        body: &Value,
        operation: Option<&str>,
        include: Option<&str>,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let name = name_of(entity)?;
        let body = without_nulls(body);
        if !body.is_object() {
            return Err(Refusal::missing(name));
        }
        let voids = include == Some("void") || operation == Some("void");
        match (operation, body.get("Id").filter(|id| !is_blank(id))) {
            (Some("delete"), Some(_)) => self.delete(name, &body, now),
            (_, Some(_)) if voids && name == "BillPayment" => self.void(&body, now),
            (None | Some("update"), Some(_)) => self.update(name, body, now),
            (None, None) => self.create(name, body, include, now),
            _ => Err(Refusal::unsupported("operation")),
        }
    }

    fn create(
        &mut self,
        name: &'static str,
        body: Value,
        include: Option<&str>,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let body = match name {
            "Vendor" | "Customer" | "Employee" => self.named(name, body, None)?,
            "Bill" => self.bill(body, None, include, now)?,
            "BillPayment" => self.payment(body, now)?,
            "Account" | "Term" => body,
            _ => return Err(Refusal::unsupported(name)),
        };
        self.next += 1;
        let id = self.next.to_string();
        self.put(name, &id, body, now);
        if name == "BillPayment" {
            self.apply(&id, now);
        }
        self.tell(name, &id, "Create", now);
        Ok(json!({name: self.find(name, &id)}))
    }

    fn current(&self, name: &str, body: &Value) -> Result<Value, Refusal> {
        let id = text_of(&body["Id"]).unwrap_or_default();
        let current = self.find(name, &id).cloned().ok_or_else(Refusal::gone)?;
        let token = text_of(&body["SyncToken"]).ok_or_else(|| Refusal::missing("SyncToken"))?;
        if Some(token) == text_of(&current["SyncToken"]) { Ok(current) } else { Err(Refusal::stale()) }
    }

    fn update(&mut self, name: &'static str, body: Value, now: Timestamp) -> Result<Value, Refusal> {
        let current = self.current(name, &body)?;
        let id = text_of(&current["Id"]).unwrap_or_default();
        let sparse = body["sparse"] == true && matches!(name, "Vendor" | "Customer" | "Employee");
        let mut next = if sparse { current.clone() } else { json!({}) };
        if let (Some(next), Some(body)) = (next.as_object_mut(), body.as_object()) {
            next.extend(body.clone());
        }
        let mut next = match name {
            "Vendor" | "Customer" | "Employee" => self.named(name, next, Some(&current))?,
            "Bill" => self.bill(next, Some(&current), None, now)?,
            _ => return Err(Refusal::unsupported("operation")),
        };
        next["Id"] = current["Id"].clone();
        next["domain"] = json!("QBO");
        next["sparse"] = json!(false);
        next["MetaData"] = current["MetaData"].clone();
        *self.find_mut(name, &id).ok_or_else(Refusal::gone)? = next;
        self.touch(name, &id, now);
        self.tell(name, &id, "Update", now);
        Ok(json!({name: self.find(name, &id)}))
    }

    /// A change that is no client's raises the token, too.
    fn touch(&mut self, name: &'static str, id: &str, now: Timestamp) {
        if let Some(entity) = self.find_mut(name, id) {
            let token: u64 = text_of(&entity["SyncToken"]).and_then(|token| token.parse().ok()).unwrap_or_default();
            entity["SyncToken"] = json!((token + 1).to_string());
            entity["MetaData"]["LastUpdatedTime"] = json!(shown(now));
        }
    }

    fn delete(&mut self, name: &'static str, body: &Value, now: Timestamp) -> Result<Value, Refusal> {
        let current = self.current(name, body)?;
        let id = text_of(&current["Id"]).unwrap_or_default();
        self.check_open(&current)?;
        match name {
            "Bill" if !members(&current["LinkedTxn"]).is_empty() => {
                return Err(Refusal::business(
                    "This transaction is linked to others. Are you sure you want to modify it?",
                ));
            }
            "Bill" => {}
            "BillPayment" => self.unapply(&id, now),
            _ => return Err(Refusal::unsupported("operation")),
        }
        self.remove(name, &id, now);
        Ok(json!({name: {"status": "Deleted", "domain": "QBO", "Id": id}}))
    }

    fn remove(&mut self, name: &'static str, id: &str, now: Timestamp) {
        if let (Some(all), Ok(number)) = (self.entities.get_mut(name), id.parse::<u64>()) {
            all.remove(&number);
        }
        self.deleted.push((name, id.to_owned(), now));
        self.tell(name, id, "Delete", now);
    }

    fn void(&mut self, body: &Value, now: Timestamp) -> Result<Value, Refusal> {
        let current = self.current("BillPayment", body)?;
        let id = text_of(&current["Id"]).unwrap_or_default();
        self.check_open(&current)?;
        self.void_payment(&id, now);
        Ok(json!({"BillPayment": self.find("BillPayment", &id)}))
    }

    /// The total becomes zero, and the links are lost.
    pub fn void_payment(&mut self, id: &str, now: Timestamp) -> bool {
        if self.find("BillPayment", id).is_none() {
            return false;
        }
        self.unapply(id, now);
        if let Some(payment) = self.find_mut("BillPayment", id) {
            payment["TotalAmt"] = json!(0);
            payment["Line"] = json!([]);
            let note = payment["PrivateNote"].as_str().unwrap_or_default();
            payment["PrivateNote"] = json!(format!("Voided{}{note}", if note.is_empty() { "" } else { " - " }));
        }
        self.touch("BillPayment", id, now);
        self.tell("BillPayment", id, "Void", now);
        true
    }

    fn check_open(&self, transaction: &Value) -> Result<(), Refusal> {
        let date = transaction["TxnDate"].as_str().and_then(|date| date.parse::<Date>().ok());
        match (self.books_closed, date) {
            (Some(closed), Some(date)) if date <= closed => Err(Refusal::books_closed()),
            _ => Ok(()),
        }
    }

    /// A vendor, customer or employee: their names are unique among all three.
    fn named(&self, name: &'static str, mut body: Value, current: Option<&Value>) -> Result<Value, Refusal> {
        let display = match body["DisplayName"].as_str() {
            Some(display) if !display.is_empty() => display.to_owned(),
            _ => {
                let parts = ["Title", "GivenName", "MiddleName", "FamilyName", "Suffix"];
                parts.iter().filter_map(|part| body[*part].as_str()).collect::<Vec<_>>().join(" ")
            }
        };
        if display.trim().is_empty() {
            return Err(Refusal::missing("DisplayName"));
        }
        if display.contains([':', '\t', '\n']) {
            return Err(Refusal::invalid("DisplayName", "has a colon, tab or new line"));
        }
        for (field, max) in [
            ("DisplayName", 500),
            ("CompanyName", 100),
            ("GivenName", 100),
            ("FamilyName", 100),
            ("AcctNum", 100),
            ("PrintOnCheckName", 110),
            ("Notes", 4_000),
        ] {
            if body[field].as_str().is_some_and(|text| text.chars().count() > max) {
                return Err(Refusal::length(field, max));
            }
        }
        let address = body["PrimaryEmailAddr"]["Address"].as_str().unwrap_or_default();
        let is_address = address.contains('@') && address.contains('.');
        if !(address.is_empty() || is_address) {
            return Err(Refusal::email(address));
        }
        if address.chars().count() > 100 {
            return Err(Refusal::length("Address", 100));
        }
        let own = current.map(|current| current["Id"].clone());
        let same = |other: &&Value| {
            let other_name = other["DisplayName"].as_str().unwrap_or_default();
            other_name.eq_ignore_ascii_case(&display) && own.as_ref() != Some(&other["Id"])
        };
        for kind in ["Vendor", "Customer", "Employee"] {
            if let Some(other) = self.all(kind).find(|other| {
                same(other)
                    || (kind != name
                        && other["DisplayName"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(&display)))
            }) {
                return Err(Refusal::duplicate_name(&text_of(&other["Id"]).unwrap_or_default()));
            }
        }
        let currency = body["CurrencyRef"]["value"].as_str().unwrap_or(&self.currency).to_owned();
        if currency != self.currency && !self.multi_currency {
            return Err(Refusal::business("Multicurrency is not enabled for this company"));
        }
        if let Some(before) = current
            && before["CurrencyRef"]["value"] != currency.as_str()
        {
            return Err(Refusal::business("The currency of a vendor cannot be changed"));
        }
        body["DisplayName"] = json!(display);
        body["CurrencyRef"] = json!({"value": currency});
        if body["Active"].is_null() {
            body["Active"] = json!(true);
        }
        let was_active = current.is_none_or(|current| current["Active"] != false);
        if body["Active"] == false && was_active {
            body["DisplayName"] = json!(format!("{display} (deleted)"));
        }
        if body["PrintOnCheckName"].is_null() {
            body["PrintOnCheckName"] = json!(display);
        }
        body["Balance"] = json!(0);
        body["Vendor1099"] = json!(body["Vendor1099"] == true);
        Ok(body)
    }

    /// A reference to something that is there and active.
    fn refers(&self, parameter: &str, entity: &str, reference: &Value) -> Result<&Value, Refusal> {
        let id = text_of(&reference["value"]).ok_or_else(|| Refusal::missing(parameter))?;
        let found = self.find(entity, &id).ok_or_else(|| Refusal::reference(parameter, &id))?;
        if found["Active"] == false { Err(Refusal::inactive()) } else { Ok(found) }
    }

    fn bill(
        &self,
        mut body: Value,
        current: Option<&Value>,
        include: Option<&str>,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        for (field, max) in [("DocNumber", 21), ("PrivateNote", 4_000)] {
            if body[field].as_str().is_some_and(|text| text.chars().count() > max) {
                return Err(Refusal::length(field, max));
            }
        }
        let vendor = self.refers("VendorRef", "Vendor", &body["VendorRef"])?;
        let payable = if is_blank(&body["APAccountRef"]) {
            json!({"value": PAYABLE_ACCOUNT})
        } else {
            body["APAccountRef"].clone()
        };
        let account = self.refers("APAccountRef", "Account", &payable)?;
        if account["AccountType"] != "Accounts Payable" {
            return Err(Refusal::business("You must specify an accounts payable account"));
        }
        if self.multi_currency && is_blank(&body["CurrencyRef"]) {
            return Err(Refusal::missing("CurrencyRef"));
        }
        let currency = body["CurrencyRef"]["value"].as_str().unwrap_or(&self.currency).to_owned();
        if currency != self.currency && !self.multi_currency {
            return Err(Refusal::business("Multicurrency is not enabled for this company"));
        }
        if vendor["CurrencyRef"]["value"] != currency.as_str() {
            return Err(Refusal::business("You can only use one foreign currency per transaction"));
        }
        let vendor_ref = json!({"value": vendor["Id"], "name": vendor["DisplayName"]});
        if !is_blank(&body["SalesTermRef"]) {
            self.refers("SalesTermRef", "Term", &body["SalesTermRef"])?;
        }
        let date = match body["TxnDate"].as_str() {
            None => now.to_zoned(TimeZone::UTC).date(),
            Some(date) => date
                .get(..10)
                .and_then(|date| date.parse().ok())
                .ok_or_else(|| Refusal::invalid("TxnDate", "is no date"))?,
        };
        body["TxnDate"] = json!(date.to_string());
        self.check_open(&body)?;
        if let Some(current) = current {
            self.check_open(current)?;
        }
        if is_blank(&body["DueDate"]) {
            body["DueDate"] = body["TxnDate"].clone();
        }
        let lines = members(&body["Line"]);
        if lines.is_empty() {
            return Err(Refusal::missing("Line"));
        }
        let mut total = Decimal::ZERO;
        let mut kept = Vec::with_capacity(lines.len());
        for (n, mut line) in lines.into_iter().enumerate() {
            let of_line = amount(&line["Amount"]).ok_or_else(|| Refusal::missing("Amount"))?;
            if line["DetailType"] != "AccountBasedExpenseLineDetail" {
                return Err(Refusal::invalid("DetailType", "only account based lines are taken here"));
            }
            let account = self.refers("AccountRef", "Account", &line["AccountBasedExpenseLineDetail"]["AccountRef"])?;
            line["AccountBasedExpenseLineDetail"]["AccountRef"] =
                json!({"value": account["Id"], "name": account["Name"]});
            if line["Description"].as_str().is_some_and(|text| text.chars().count() > 4_000) {
                return Err(Refusal::length("Description", 4_000));
            }
            line["Id"] = json!((n + 1).to_string());
            line["LineNum"] = json!(n + 1);
            line["Amount"] = number(of_line);
            total += of_line;
            kept.push(line);
        }
        if total.is_sign_negative() && !total.is_zero() {
            return Err(Refusal::business("Transaction amount must not be negative"));
        }
        if let Some(document) = body["DocNumber"].as_str().filter(|number| !number.is_empty())
            && self.unique_numbers
            && include != Some("allowduplicatedocnum")
        {
            let own = current.map(|current| &current["Id"]);
            let same = |other: &&Value| other["DocNumber"].as_str() == Some(document) && Some(&other["Id"]) != own;
            if let Some(other) = self.all("Bill").find(same) {
                return Err(Refusal::duplicate_number(document, &text_of(&other["Id"]).unwrap_or_default()));
            }
        }
        let linked = current.map(|current| members(&current["LinkedTxn"])).unwrap_or_default();
        let was = current.and_then(|current| Some(amount(&current["TotalAmt"])? - amount(&current["Balance"])?));
        body["Line"] = json!(kept);
        body["VendorRef"] = vendor_ref;
        body["APAccountRef"] = json!({"value": account["Id"], "name": account["Name"]});
        body["CurrencyRef"] = json!({"value": currency});
        body["TotalAmt"] = number(total);
        body["Balance"] = number((total - was.unwrap_or_default()).max(Decimal::ZERO));
        body["LinkedTxn"] = json!(linked);
        Ok(body)
    }

    fn payment(&self, mut body: Value, now: Timestamp) -> Result<Value, Refusal> {
        let vendor = self.refers("VendorRef", "Vendor", &body["VendorRef"])?;
        let vendor_id = vendor["Id"].clone();
        let vendor_ref = json!({"value": vendor["Id"], "name": vendor["DisplayName"]});
        let currency = vendor["CurrencyRef"].clone();
        let (detail, account) = match body["PayType"].as_str() {
            Some("Check") => ("CheckPayment", "BankAccountRef"),
            Some("CreditCard") => ("CreditCardPayment", "CCAccountRef"),
            _ => return Err(Refusal::invalid("PayType", "is Check or CreditCard")),
        };
        self.refers(account, "Account", &body[detail][account])?;
        let total = amount(&body["TotalAmt"]).ok_or_else(|| Refusal::missing("TotalAmt"))?;
        if body["TxnDate"].is_null() {
            body["TxnDate"] = json!(now.to_zoned(TimeZone::UTC).date().to_string());
        }
        self.check_open(&body)?;
        let (mut applied, mut credits) = (Decimal::ZERO, Decimal::ZERO);
        let lines = members(&body["Line"]);
        for line in &lines {
            let part = amount(&line["Amount"]).ok_or_else(|| Refusal::missing("Amount"))?;
            let linked = members(&line["LinkedTxn"]).into_iter().next().unwrap_or_default();
            let id = text_of(&linked["TxnId"]).unwrap_or_default();
            let kind = linked["TxnType"].as_str().unwrap_or_default();
            if !PAID_WITH.contains(&kind) {
                return Err(Refusal::invalid(
                    "TxnType",
                    "only Bills are paid here, with money and with what vendors owe",
                ));
            }
            let of = self.find(kind, &id).ok_or_else(|| Refusal::reference("TxnId", &id))?;
            if of["VendorRef"]["value"] != vendor_id {
                return Err(Refusal::business("The transaction is of another vendor"));
            }
            if part > amount(&of["Balance"]).unwrap_or_default() {
                return Err(Refusal::business("You can't pay more than the amount of the transaction"));
            }
            *(if kind == "Bill" { &mut applied } else { &mut credits }) += part;
        }
        let applied = (applied - credits).max(Decimal::ZERO);
        if total < applied {
            return Err(Refusal::business("The total is less than what is applied"));
        }
        body["VendorRef"] = vendor_ref;
        body["TotalAmt"] = number(total);
        body["CurrencyRef"] = currency;
        Ok(body)
    }

    /// What a payment is linked to: kind, id and how much.
    fn parts(&self, payment: &str) -> Vec<(&'static str, String, Decimal)> {
        let lines = self.find("BillPayment", payment).map(|payment| members(&payment["Line"])).unwrap_or_default();
        let part = |line: Value| {
            let linked = members(&line["LinkedTxn"]).into_iter().next()?;
            let kind = name_of(linked["TxnType"].as_str()?).ok()?;
            Some((kind, text_of(&linked["TxnId"])?, amount(&line["Amount"])?))
        };
        lines.into_iter().filter_map(part).collect()
    }

    fn apply(&mut self, payment: &str, now: Timestamp) {
        for (kind, id, part) in self.parts(payment) {
            if let Some(of) = self.find_mut(kind, &id) {
                let left = amount(&of["Balance"]).unwrap_or_default() - part;
                of["Balance"] = number(left);
                let mut linked = members(&of["LinkedTxn"]);
                linked.push(json!({"TxnId": payment, "TxnType": "BillPaymentCheck"}));
                of["LinkedTxn"] = json!(linked);
            }
            self.touch(kind, &id, now);
            self.tell(kind, &id, "Update", now);
        }
    }

    fn unapply(&mut self, payment: &str, now: Timestamp) {
        for (kind, id, part) in self.parts(payment) {
            if let Some(of) = self.find_mut(kind, &id) {
                let left = amount(&of["Balance"]).unwrap_or_default() + part;
                of["Balance"] = number(left);
                let linked = members(&of["LinkedTxn"]).into_iter().filter(|linked| linked["TxnId"] != payment);
                of["LinkedTxn"] = linked.collect();
            }
            self.touch(kind, &id, now);
            self.tell(kind, &id, "Update", now);
        }
    }

    // --- What people do in QuickBooks ---------------------------------------------------------------------------

    /// Somebody presses "pay": all that is open, or a part. The payment's id.
    pub fn pay(&mut self, bill: &str, part: Option<Decimal>, now: Timestamp) -> Result<String, Refusal> {
        let found = self.find("Bill", bill).ok_or_else(Refusal::gone)?;
        let part = part.or_else(|| amount(&found["Balance"])).unwrap_or_default();
        let body = json!({
            "VendorRef": {"value": found["VendorRef"]["value"]}, "PayType": "Check", "TotalAmt": number(part),
            "CheckPayment": {"BankAccountRef": {"value": BANK_ACCOUNT}},
            "Line": [{"Amount": number(part), "LinkedTxn": [{"TxnId": bill, "TxnType": "Bill"}]}],
        });
        let made = self.create("BillPayment", body, None, now)?;
        Ok(text_of(&made["BillPayment"]["Id"]).unwrap_or_default())
    }

    /// Somebody enters that a vendor owes something: a vendor credit or a journal entry against what is payable. Its id.
    pub fn owe(&mut self, kind: &'static str, vendor: &str, how_much: Decimal, now: Timestamp) -> String {
        self.next += 1;
        let id = self.next.to_string();
        let body = json!({
            "VendorRef": {"value": vendor}, "TotalAmt": number(how_much), "Balance": number(how_much), "LinkedTxn": [],
            "TxnDate": now.to_zoned(TimeZone::UTC).date().to_string(),
        });
        self.put(kind, &id, body, now);
        self.tell(kind, &id, "Create", now);
        id
    }

    /// Somebody pays a Bill with money, which may be none, and with so much of what its vendor owes. The payment's id.
    pub fn settle(
        &mut self,
        bill: &str,
        cash: Decimal,
        (kind, owed, credit): (&'static str, &str, Decimal),
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let vendor = self.find("Bill", bill).ok_or_else(Refusal::gone)?["VendorRef"]["value"].clone();
        let line =
            |amount, id: &str, kind| json!({"Amount": number(amount), "LinkedTxn": [{"TxnId": id, "TxnType": kind}]});
        let body = json!({
            "VendorRef": {"value": vendor}, "PayType": "Check", "TotalAmt": number(cash),
            "CheckPayment": {"BankAccountRef": {"value": BANK_ACCOUNT}},
            "Line": [line(cash + credit, bill, "Bill"), line(credit, owed, kind)],
        });
        let made = self.create("BillPayment", body, None, now)?;
        Ok(text_of(&made["BillPayment"]["Id"]).unwrap_or_default())
    }

    /// Deletes a Bill with whatever paid it.
    pub fn delete_bill(&mut self, id: &str, now: Timestamp) -> bool {
        if self.find("Bill", id).is_none() {
            return false;
        }
        let pays = |payment: &&Value| {
            members(&payment["Line"])
                .iter()
                .any(|line| members(&line["LinkedTxn"]).iter().any(|linked| linked["TxnId"] == id))
        };
        let payments: Vec<_> =
            self.all("BillPayment").filter(pays).filter_map(|payment| text_of(&payment["Id"])).collect();
        for payment in payments {
            self.unapply(&payment, now);
            self.remove("BillPayment", &payment, now);
        }
        self.remove("Bill", id, now);
        true
    }

    /// One vendor goes into another of the same currency: its Bills are the other's from now on.
    pub fn merge_vendors(&mut self, from: &str, into: &str, now: Timestamp) -> bool {
        let (Some(one), Some(other)) = (self.find("Vendor", from), self.find("Vendor", into)) else { return false };
        if from == into || one["CurrencyRef"] != other["CurrencyRef"] {
            return false;
        }
        let name = other["DisplayName"].clone();
        for kind in ["Bill", "BillPayment", "VendorCredit", "JournalEntry"] {
            for entity in self.entities.get_mut(kind).into_iter().flat_map(BTreeMap::values_mut) {
                if entity["VendorRef"]["value"] == from {
                    entity["VendorRef"] = json!({"value": into, "name": name});
                }
            }
        }
        if let (Some(vendors), Ok(number)) = (self.entities.get_mut("Vendor"), from.parse::<u64>()) {
            vendors.remove(&number);
        }
        self.deleted.push(("Vendor", from.to_owned(), now));
        self.touch("Vendor", into, now);
        self.happened.push(Happened {
            entity: "Vendor",
            id: into.to_owned(),
            operation: "Merge",
            at: now,
            merged: Some(from.to_owned()),
        });
        true
    }

    /// Somebody makes a vendor inactive.
    pub fn deactivate(&mut self, id: &str, now: Timestamp) -> bool {
        let Some(vendor) = self.find("Vendor", id).cloned() else { return false };
        let body = json!({"Id": id, "SyncToken": vendor["SyncToken"], "sparse": true, "Active": false});
        self.update("Vendor", body, now).is_ok()
    }

    /// Somebody changes what a Bill is about: its first line's amount.
    pub fn edit_bill(&mut self, id: &str, to: Decimal, now: Timestamp) -> bool {
        let Some(mut bill) = self.find("Bill", id).cloned() else { return false };
        if let Some(lines) = bill["Line"].as_array_mut() {
            lines.truncate(1);
            for line in lines {
                line["Amount"] = number(to);
            }
        }
        self.update("Bill", bill, now).is_ok()
    }

    // --- Reading --------------------------------------------------------------------------------------------------

    pub fn query(&self, text: &str) -> Result<Value, Refusal> {
        let query = Query::parse(text)?;
        let name = name_of(&query.entity)
            .map_err(|_| Refusal::query_value(format!("Entity {} is not known", query.entity)))?;
        let preferences = (name == "Preferences").then(|| self.preferences());
        let active_only = NAME_LISTS.contains(&name) && !query.asks_for_active();
        let mut found: Vec<&Value> = self
            .all(name)
            .chain(&preferences)
            .filter(|entity| !active_only || entity["Active"] != false)
            .filter(|entity| query.conditions.iter().all(|condition| condition.fits(entity)))
            .collect();
        if let Some((field, descending)) = &query.order {
            found.sort_by(|a, b| {
                let text = |entity: &Value| text_of(&entity[field]).unwrap_or_default();
                let order = compare(&text(a), &text(b));
                if *descending { order.reverse() } else { order }
            });
        }
        if query.count {
            return Ok(json!({"QueryResponse": {"totalCount": found.len()}}));
        }
        let page: Vec<_> = found.into_iter().skip(query.start - 1).take(query.max).collect();
        if page.is_empty() {
            return Ok(json!({"QueryResponse": {}}));
        }
        Ok(json!({"QueryResponse": {name: page, "startPosition": query.start, "maxResults": page.len()}}))
    }

    /// What changed since a moment, what is gone after what is there.
    pub fn changes(&self, entities: &str, since: &str, now: Timestamp) -> Result<Value, Refusal> {
        let since = moment(since).ok_or_else(|| Refusal::invalid("changedSince", "is no moment"))?;
        if since < now - SignedDuration::from_hours(24 * CDC_DAYS) {
            return Err(Refusal::invalid("changedSince", "is more than 30 days ago"));
        }
        let mut parts = Vec::new();
        for entity in entities.split(',') {
            let name = name_of(entity.trim())?;
            let changed = |entity: &&Value| {
                entity["MetaData"]["LastUpdatedTime"].as_str().and_then(moment).is_some_and(|at| at >= since)
            };
            let mut found: Vec<Value> = self.all(name).filter(changed).cloned().collect();
            found.extend(self.deleted.iter().filter(|(kind, _, at)| *kind == name && *at >= since).map(|(_, id, at)| {
                json!({"status": "Deleted", "domain": "QBO", "Id": id, "MetaData": {"LastUpdatedTime": shown(*at)}})
            }));
            found.truncate(CDC_MAX);
            parts.push(if found.is_empty() {
                json!({})
            } else {
                json!({name: found, "startPosition": 1, "maxResults": found.len()})
            });
        }
        Ok(json!({"CDCResponse": [{"QueryResponse": parts}]}))
    }
}

pub fn shown(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn moment(text: &str) -> Option<Timestamp> {
    text.parse()
        .ok()
        .or_else(|| Some(text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()))
}
