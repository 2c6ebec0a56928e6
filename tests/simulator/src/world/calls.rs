//! What people say about commissions and conversions: of one, or of several in one call, some of which must be refused.

use http::Method;
use local::HttpAnswer;
use serde_json::{Value, json};
use workflows::Clock;

use super::{Job, Outcome, PEOPLE, World, api_event, text};
use crate::chance::Chance;
use crate::shop;
use crate::told::{Asked, Call, Said};

/// What there is to say of commissions, and in which states that means something.
const VERDICTS: [(&str, &[&str]); 6] = [
    ("approve", &["pending"]),
    ("approve", &["pending"]),
    ("hold", &["pending", "approved", "payable", "in_payout"]),
    ("release", &["held"]),
    ("reject", &["pending", "approved", "payable", "held", "in_payout"]),
    ("reinstate", &["rejected"]),
];
/// An amount with more decimals than any currency has.
const NO_AMOUNT: &str = "1.2345";

impl World {
    /// Tells the auditor of a call, and makes it. Every call says why in words of its own, so that what it does can be told from what others do.
    fn call(
        &mut self,
        chance: &mut Chance,
        verb: &'static str,
        asked: Vec<Asked>,
        atomic: bool,
        request: impl FnOnce(&[Asked], &str) -> (String, Value),
    ) -> Outcome {
        let by = chance.pick(&PEOPLE).copied().unwrap_or("ann").to_owned();
        let reason = format!("the seed says so, {}", self.told.calls.len());
        let (path, body) = request(&asked, &reason);
        self.note(|| format!("  {by}: {path} {body}"));
        let event = api_event(&by, "admin", &Method::POST, &path, Some(&body))?;
        let (at, since) = (self.clock.now(), self.told.tick);
        self.told.calls.push(Call { by, verb, asked, atomic, reason, at, since, said: None });
        self.http(chance, Job::Call(self.told.calls.len() - 1), event);
        Ok(())
    }

    /// What was answered: with a result for each, or of the one that was asked.
    pub(super) fn said(&mut self, n: usize, answer: &HttpAnswer) {
        let (status, call) = (answer.status.as_u16(), &mut self.told.calls[n]);
        if status >= 500 || status == 429 {
            return;
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let of_problem = |id: String, status: u16, problem: &Value| Said { id, status, why: text(&problem["detail"]) };
        let of_result = |result: &Value| {
            let status = result["problem"]["status"].as_u64().and_then(|status| status.try_into().ok());
            let status = if result["ok"] == true { 200 } else { status.unwrap_or_default() };
            of_problem(text(&result["id"]), status, &result["problem"])
        };
        call.said = Some(match body["results"].as_array() {
            Some(results) => results.iter().map(of_result).collect(),
            None => call.asked.iter().map(|asked| of_problem(asked.id.clone(), status, &body)).collect(),
        });
    }

    /// One verdict about some commissions.
    pub(super) fn judge(&mut self, chance: &mut Chance, verb: &'static str, ids: Vec<String>, atomic: bool) -> Outcome {
        let asked = ids.into_iter().map(Asked::about).collect();
        let in_query = atomic && chance.percent(50);
        self.call(chance, verb, asked, atomic, |asked, reason| {
            let ids: Vec<_> = asked.iter().map(|asked| &asked.id).collect();
            let query = if in_query { "?atomic=true" } else { "" };
            let body = json!({"ids": ids, "reason": reason, "atomic": atomic && !in_query});
            (format!("/commissions/{verb}{query}"), body)
        })
    }

    pub(super) fn review(&mut self, chance: &mut Chance) -> Outcome {
        let (verb, from) = *chance.pick(&VERDICTS).unwrap_or(&VERDICTS[0]);
        let anything = chance.percent(10);
        let mut lines = self.items.lines();
        lines.retain(|line| anything || from.iter().any(|state| line["state"] == *state));
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..=chance.below(5) {
            if let Some(id) = chance.pick(&lines).map(|line| text(&line["id"]))
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        if chance.percent(15) {
            let place = chance.below(ids.len() + 1);
            ids.insert(place, self.nothings(chance, &ids));
        }
        let atomic = chance.percent(30);
        self.judge(chance, verb, ids, atomic)
    }

    /// The id of nothing, or of what is named already, or of something in any state.
    fn nothings(&self, chance: &mut Chance, named: &[String]) -> String {
        match chance.below(4) {
            0 => "nonsense".to_owned(),
            1 => named.first().map(|id| another(id)).unwrap_or_default(),
            2 => chance.pick(named).cloned().unwrap_or_default(),
            _ => chance.pick(&self.items.lines()).map(|line| text(&line["id"])).unwrap_or_default(),
        }
    }

    /// A new gross amount, for some line.
    fn adjustment(&self, chance: &mut Chance, line: &Value) -> Asked {
        let before = line["amount"].as_i64().unwrap_or_default();
        let amount = match chance.below(6) {
            0 => 0,
            1 => before.abs(),
            2 | 3 => before.abs() + chance.from(1, 3_000),
            _ => chance.from(0, before.abs()),
        };
        Asked { amount: Some(amount), exponent: self.exponent_of(line), ..Asked::about(text(&line["id"])) }
    }

    pub(super) fn adjust(&mut self, chance: &mut Chance) -> Outcome {
        let lines = self.items.lines();
        let Some(line) = chance.pick(&lines) else { return Ok(()) };
        let asked = self.adjustment(chance, line);
        self.call(chance, "adjust", vec![asked], false, |asked, reason| {
            (
                "/commissions/adjust".to_owned(),
                asked.first().map(|asked| adjustment_body(asked, reason)).unwrap_or_default(),
            )
        })
    }

    /// A conversion is given to somebody by hand.
    fn attribution(&self, chance: &mut Chance, conversion: &str, program: usize) -> Option<Asked> {
        let partners = self.partners_of(program);
        let first = chance.pick(&partners)?;
        let second = chance.pick(&partners).filter(|second| second.id != first.id && chance.percent(70));
        let shares = match second {
            Some(second) => {
                let share = *chance.pick(&[5_000, 3_333, 6_000, 9_999]).unwrap_or(&5_000);
                vec![(first.id.clone(), share), (second.id.clone(), 10_000 - share)]
            }
            None => vec![(first.id.clone(), 10_000)],
        };
        let outright = shares.len() == 1 && chance.percent(70);
        Some(Asked { shares, outright, ..Asked::about(conversion.to_owned()) })
    }

    pub(super) fn attribute(&mut self, chance: &mut Chance) -> Outcome {
        let conversions = self.auditor.conversions_of(&self.told, chance.percent(50));
        let Some((conversion, program)) = chance.pick(&conversions).cloned() else { return Ok(()) };
        let Some(asked) = self.attribution(chance, &conversion, program) else { return Ok(()) };
        self.call(chance, "attribute", vec![asked], false, |asked, reason| {
            let body = asked.first().map(|asked| attribution_body(asked, reason)).unwrap_or_default();
            (format!("/conversions/{conversion}/attribute"), body)
        })
    }

    // --- Several at once ------------------------------------------------------------------------------------------

    /// Several changes in one call, each its own; mostly all of them or none.
    pub(super) fn together(&mut self, chance: &mut Chance) -> Outcome {
        let atomic = chance.percent(65);
        match chance.below(10) {
            0..5 => self.adjust_together(chance, atomic),
            5..8 => self.attribute_together(chance, atomic),
            _ => self.judge_together(chance, atomic),
        }
    }

    fn adjust_together(&mut self, chance: &mut Chance, atomic: bool) -> Outcome {
        let mut lines = self.items.lines();
        lines.retain(|line| {
            let fits = line["kind"] == "commission" || line["kind"] == "bonus";
            fits && line["state"] != "rejected" && line["state"] != "reversed"
        });
        let mut asked: Vec<Asked> = Vec::new();
        for _ in 0..=1 + chance.below(4) {
            let Some(line) = chance.pick(&lines) else { break };
            let one = self.adjustment(chance, line);
            let same = one.amount.map(i128::from) == line["amount"].as_i64().map(i128::from);
            if !same && asked.iter().all(|other| other.id != one.id) {
                asked.push(one);
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        if chance.percent(40) {
            let ids: Vec<_> = asked.iter().map(|asked| asked.id.clone()).collect();
            let place = chance.below(asked.len());
            if chance.percent(30) {
                asked[place].senseless = true;
            } else {
                let id = self.nothings(chance, &ids);
                let exponent =
                    self.items.lines().iter().find(|line| line["id"] == id.as_str()).map(|line| self.exponent_of(line));
                let amount = Some(chance.from(0, 5_000));
                asked.insert(place, Asked { amount, exponent: exponent.unwrap_or_default(), ..Asked::about(id) });
            }
        }
        self.all_at_once(chance, "adjust", ("/commissions/adjust", "adjustments"), asked, atomic, adjustment_body)
    }

    fn attribute_together(&mut self, chance: &mut Chance, atomic: bool) -> Outcome {
        let conversions = self.auditor.conversions_of(&self.told, chance.percent(30));
        let mut asked: Vec<Asked> = Vec::new();
        for _ in 0..=1 + chance.below(3) {
            let Some((conversion, program)) = chance.pick(&conversions) else { break };
            if asked.iter().all(|other| other.id != *conversion) {
                asked.extend(self.attribution(chance, conversion, *program));
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        if chance.percent(40) {
            let place = chance.below(asked.len());
            let (id, partner) = (asked[place].id.clone(), chance.pick(&self.told.partners).cloned());
            let waiting = self.auditor.without_sale();
            let unfit = match chance.below(6) {
                0 => Asked { senseless: true, ..asked[place].clone() },
                1 => Asked { id: another(&id), ..asked[place].clone() },
                2 => Asked { id: "nonsense".to_owned(), ..asked[place].clone() },
                3 => {
                    Asked { id: chance.pick(&waiting).cloned().unwrap_or_else(|| another(&id)), ..asked[place].clone() }
                }
                4 => Asked {
                    shares: partner.into_iter().map(|partner| (partner.id, 10_000)).collect(),
                    ..asked[place].clone()
                },
                _ => asked[place].clone(),
            };
            if unfit.senseless || unfit.shares != asked[place].shares {
                asked[place] = unfit;
            } else {
                asked.push(unfit);
            }
        }
        let path = ("/conversions/attribute", "conversions");
        self.all_at_once(chance, "attribute", path, asked, atomic, attribution_body)
    }

    fn judge_together(&mut self, chance: &mut Chance, atomic: bool) -> Outcome {
        let (verb, from) = *chance.pick(&VERDICTS).unwrap_or(&VERDICTS[0]);
        let mut lines = self.items.lines();
        lines.retain(|line| from.iter().any(|state| line["state"] == *state));
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..=1 + chance.below(8) {
            let id = chance.pick(&lines).map(|line| text(&line["id"]));
            ids.extend(id.filter(|id| !ids.contains(id)));
        }
        if chance.percent(40) {
            let place = chance.below(ids.len() + 1);
            ids.insert(place, self.nothings(chance, &ids));
        }
        if ids.is_empty() { Ok(()) } else { self.judge(chance, verb, ids, atomic) }
    }

    fn all_at_once(
        &mut self,
        chance: &mut Chance,
        verb: &'static str,
        (path, field): (&str, &str),
        asked: Vec<Asked>,
        atomic: bool,
        body: impl Fn(&Asked, &str) -> Value,
    ) -> Outcome {
        let in_query = atomic && chance.percent(50);
        self.call(chance, verb, asked, atomic, |asked, reason| {
            let each: Vec<_> = asked.iter().map(|asked| body(asked, reason)).collect();
            let query = if in_query { "?atomic=true" } else { "" };
            (format!("{path}{query}"), json!({field: each, "atomic": atomic && !in_query}))
        })
    }
}

/// An id like this one, of nothing.
fn another(id: &str) -> String {
    let (kept, last) = id.split_at(id.len().saturating_sub(1));
    format!("{kept}{}", if last == "0" { "1" } else { "0" })
}

fn adjustment_body(asked: &Asked, reason: &str) -> Value {
    let amount = shop::decimal(asked.amount.unwrap_or_default(), asked.exponent);
    let amount = if asked.senseless { NO_AMOUNT.to_owned() } else { amount };
    json!({"id": asked.id, "amount": amount, "reason": reason})
}

fn attribution_body(asked: &Asked, reason: &str) -> Value {
    let mut body = json!({"id": asked.id, "reason": reason});
    match asked.shares.as_slice() {
        [(partner, _)] if asked.outright => body["partnerId"] = json!(partner),
        shares => {
            let one = |(id, share): &(String, u32)| {
                // What does not come to a hundred percent shares out nothing.
                let share = if asked.senseless { share / 2 } else { *share };
                json!({"partnerId": id, "percent": shop::percent(share)})
            };
            body["shares"] = shares.iter().map(one).collect();
        }
    }
    if asked.senseless {
        body["reason"] = json!("");
    }
    body
}
