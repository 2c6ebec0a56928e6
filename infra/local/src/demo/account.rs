//! A partner's account, readable.

use std::io::{Result, Write};

use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Lines oldest first, then what they add up to, and why what is not paid is not.
pub fn print(out: &mut impl Write, partner: &Value, balance: &Value, lines: &Value) -> Result<()> {
    writeln!(out, "\n  {} ({})", text(&partner["name"]), text(&partner["code"]))?;
    writeln!(out, "    {:<10}  {:<10}  {:<10}  {:>9}  {:>9}  state", "date", "order", "kind", "amount", "left")?;
    for line in lines.as_array().into_iter().flatten().rev() {
        writeln!(
            out,
            "    {:<10}  {:<10}  {:<10}  {:>9}  {:>9}  {}",
            text(&line["occurredAt"]).get(..10).unwrap_or_default(),
            text(&line["orderId"]),
            text(&line["kind"]),
            text(&line["amount"]["amount"]),
            text(&line["net"]["amount"]),
            text(&line["state"]),
        )?;
    }
    let money = |bucket: &str| text(&balance[bucket]["amount"]).to_owned();
    writeln!(
        out,
        "    earned {}, paid {}, due {}, reserve {}",
        money("earned"),
        money("paid"),
        money("due"),
        money("reserve")
    )?;
    for reason in balance["notPayableBecause"].as_array().into_iter().flatten() {
        let until = reason["until"].as_str().map(|until| format!(", until {until}")).unwrap_or_default();
        let missing =
            reason["missing"]["amount"].as_str().map(|more| format!(", {more} more needed")).unwrap_or_default();
        writeln!(
            out,
            "    {} not paid yet: {}{until}{missing}",
            text(&reason["amount"]["amount"]),
            text(&reason["code"]).replace('_', " "),
        )?;
    }
    Ok(())
}
