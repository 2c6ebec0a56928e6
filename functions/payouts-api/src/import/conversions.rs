//! Conversions from a file. A row is one event in our own form, with one item at most, and is booked as if it were reported by
//! itself.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use storefronts::standard;
use workflows::ingest::Ingested;

use super::sheet::{Columns, Csv, Row, rows};
use super::{Report, Wanted};
use crate::caller::Caller;
use crate::conversions::{book, refused};
use crate::extract::Filter;
use crate::problem::{Answer, Problem};
use crate::{Shared, programs};

const COLUMNS: Columns = Columns {
    needed: &["id", "type", "occurredAt"],
    known: &[
        "partnerId",
        "partnerCode",
        "coupon",
        "clickId",
        "visitorId",
        "customerId",
        "customerEmailHash",
        "customerNew",
        "total",
        "tax",
        "shipping",
        "discount",
        "storeCredit",
        "currency",
        "sku",
        "product",
        "category",
        "quantity",
        "channel",
        "campaign",
        "country",
        "conversion",
        "refund",
        "reason",
    ],
    prefix: Some("metadata"),
};

pub async fn import(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(wanted): Filter<Wanted>,
    csv: Csv,
) -> Answer<Json<Report>> {
    caller.must_be(&[])?;
    let program = programs::required(&shared, &wanted.program_id, "/programId").await?;
    let context = wanted.context(&shared.context);
    let mut report = Report::new(wanted.dry_run);
    for (line, row) in rows(csv, &COLUMNS)? {
        report.rows += 1;
        let booked = match row.and_then(|row| event(&row)) {
            Ok(event) => match standard::parse(event.as_bytes()) {
                Ok(parsed) => book(&context, &program, &parsed.event, &event).await,
                Err(unreadable) => Err(refused(unreadable)),
            },
            Err(problem) => Err(problem),
        };
        match booked {
            Ok((_, Ingested::Applied { .. })) => report.applied += 1,
            Ok((_, Ingested::AlreadyApplied)) => report.already_applied += 1,
            Ok((_, Ingested::AwaitingSale)) => report.awaiting_sale += 1,
            Ok((_, Ingested::Unattributed)) => report.unattributed += 1,
            // Only what contradicts an event with the same id is a conflict.
            Err(problem) if problem.status == 409 => report.refuse(line, problem, |_| "id".to_owned())?,
            Err(problem) => report.refuse(line, problem, column)?,
        }
    }
    Ok(Json(report))
}

/// A row as our own event, which has all the rules.
fn event(row: &Row) -> Answer<String> {
    let picked = |fields: &[(&str, &str)]| {
        let given = fields.iter().filter_map(|(name, column)| Some(((*name).to_owned(), json!(row.get(column)?))));
        given.collect::<Map<String, Value>>()
    };
    let same = |names: &[&str]| picked(&names.iter().map(|name| (*name, *name)).collect::<Vec<_>>());
    let mut event = same(&[
        "id",
        "type",
        "occurredAt",
        "coupon",
        "clickId",
        "visitorId",
        "channel",
        "campaign",
        "country",
        "conversion",
        "refund",
        "reason",
    ]);
    let mut customer = picked(&[("id", "customerId"), ("emailHash", "customerEmailHash")]);
    if let Some(new) = row.flag("customerNew")? {
        customer.insert("new".to_owned(), json!(new));
    }
    event.insert("partner".to_owned(), json!(picked(&[("id", "partnerId"), ("code", "partnerCode")])));
    event.insert("customer".to_owned(), json!(customer));
    event
        .insert("amount".to_owned(), json!(same(&["total", "tax", "shipping", "discount", "storeCredit", "currency"])));
    event.insert("metadata".to_owned(), json!(row.under("metadata")));
    let mut item = same(&["sku", "product", "category", "quantity"]);
    if !item.is_empty() {
        item.insert("amount".to_owned(), json!(goods(row)?));
        event.insert("items".to_owned(), json!([item]));
    }
    Ok(Value::Object(event).to_string())
}

/// What the one item of a row was charged: the total without tax and shipping. Of a refund they must be told to know it, since
/// a blank cell says there that they are not known.
fn goods(row: &Row) -> Answer<Option<String>> {
    let Some(total) = row.get("total") else { return Ok(None) };
    let is_return = matches!(row.get("type"), Some("refund" | "chargeback"));
    // What is no amount is refused where amounts are.
    let Ok(mut goods) = domain::money::parse_decimal(total) else { return Ok(Some(total.to_owned())) };
    for column in ["tax", "shipping"] {
        let part = match row.get(column) {
            None if is_return => {
                let why = "is needed where a refund names an item: 0 if there is none";
                return Err(Problem::invalid_field(format!("/amount/{column}"), why));
            }
            None => continue,
            Some(part) => domain::money::parse_decimal(part).unwrap_or_default(),
        };
        goods = goods.checked_sub(part).unwrap_or_default();
    }
    if goods.is_sign_negative() {
        return Err(Problem::invalid_field("/amount/total", "is less than tax and shipping"));
    }
    Ok(Some(goods.to_string()))
}

/// The column that a field of the event comes from.
fn column(pointer: &str) -> String {
    match pointer {
        "/partner/id" => "partnerId",
        "/partner/code" | "/partner" => "partnerCode",
        "/customer/id" => "customerId",
        "/customer/emailHash" => "customerEmailHash",
        "/customer/new" => "customerNew",
        "/amount" | "/items" | "/items/0/amount" => "total",
        other => other.rsplit('/').next().unwrap_or_default(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_by_column() {
        for (pointer, expect) in [
            ("/id", "id"),
            ("/amount/total", "total"),
            ("/amount/currency", "currency"),
            ("/items/0/amount", "total"),
            ("/items/0/quantity", "quantity"),
            ("/partner/code", "partnerCode"),
            ("/customer/emailHash", "customerEmailHash"),
            ("/metadata", "metadata"),
            ("", ""),
        ] {
            assert_eq!(column(pointer), expect);
        }
    }
}
