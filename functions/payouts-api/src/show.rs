//! How things look in answers.

use domain::balance::{Bucket, Reason};
use domain::exchange::ExchangeRate;
use domain::ids::{ConversionId, PartnerId};
use domain::journal::{Sealed, What};
use domain::line::Line;
use domain::money::{Minor, Money};
use domain::payout::Payout;
use domain::program::{Partner, PayoutMethod, Program};
use domain::rules::RuleSet;
use domain::selection::CarriedBecause;
use serde_json::{Value, json};
use store::{Decision, Exception, Link, Outcome, QuickbooksBill, Source, ToldRate, Unrewarded};
use workflows::balances::PartnerBalance;
use workflows::report::Report;
use workflows::runs::{Foreseen, Preview};

use crate::runs::Foretold;

pub fn program(program: &Program) -> Value {
    let money = |amount| Money::new(amount, program.currency);
    json!({
        "id": program.id, "name": program.name, "currency": program.currency, "timeZone": program.time_zone,
        "holdDays": program.hold_days, "minHoldDays": program.min_hold_days, "approval": program.approval,
        "minimumPayout": money(program.minimum_payout), "largePayoutLimit": money(program.large_payout_limit),
        "minimumSales": program.minimum_sales, "attribution": program.attribution, "anomalyRules": program.anomaly_rules,
        "ruleSignOff": program.rule_sign_off, "coolingOffDays": program.cooling_off_days, "schedule": program.schedule,
        "dustSweepDays": program.dust_sweep_days, "debtWriteOffDays": program.debt_write_off_days,
        "taxPayer": program.tax.map(|_| "US"), "withoutTaxNumber": program.tax.map(|tax| tax.without_number),
        "landingPage": program.landing_page, "allowedHosts": program.allowed_hosts, "createdAt": program.created_at,
    })
}

pub fn rule_set(set: &RuleSet) -> Value {
    let mut shown = json!(set);
    shown["programId"] = json!(set.program);
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("program");
    }
    shown
}

pub fn partner(partner: &Partner, program: &Program) -> Value {
    let method = |method: &PayoutMethod| {
        let mut shown = json!({"kind": method.kind, "details": method.details, "preferred": method.preferred});
        // The first details were not changed; and who gave methods finds them as they were given.
        if let Some(change) = &method.changed {
            shown["changedAt"] = json!(change.at);
        }
        shown
    };
    let methods: Vec<_> = partner.payout_methods.iter().map(method).collect();
    let suspensions = partner.suspensions.iter().map(|of| json!({"from": of.from, "until": of.until}));
    let suspensions: Vec<_> = suspensions.collect();
    json!({
        "id": partner.id, "programId": partner.program, "name": partner.name, "email": partner.email,
        "code": partner.code, "type": partner.kind, "group": partner.group, "customerId": partner.customer_id,
        "country": partner.country,
        "minimumPayout": partner.minimum_payout.map(|amount| Money::new(amount, program.currency)),
        "payoutCurrency": partner.payout_currency, "trusted": partner.trusted, "status": partner.status,
        "suspensions": suspensions, "payoutMethods": methods, "createdAt": partner.created_at,
    })
}

/// `per` of the one currency are `rate` of the other.
pub fn rate(rate: &ExchangeRate) -> Value {
    json!({
        "from": rate.from, "to": rate.to, "rate": rate.rate.normalize(), "per": rate.per.normalize(),
        "source": rate.source, "date": rate.date,
    })
}

pub fn told_rate(told: &ToldRate) -> Value {
    let mut shown = rate(&told.rate);
    shown["toldBy"] = json!(told.told_by);
    shown["toldAt"] = json!(told.told_at);
    shown
}

pub fn link(link: &Link) -> Value {
    json!({
        "code": link.code, "url": format!("/r/{}", link.code.as_str()), "programId": link.program,
        "partnerId": link.partner, "campaign": link.campaign, "channel": link.channel,
        "destination": link.destination, "createdAt": link.created_at,
    })
}

pub fn source(source: &Source) -> Value {
    json!({
        "id": source.id, "programId": source.program, "kind": source.kind, "name": source.name,
        "url": format!("/webhooks/{}", source.id), "createdAt": source.created_at,
    })
}

/// `reason`: why it is not paid yet.
pub fn line(line: &Line, reason: Option<&Reason>) -> Value {
    json!({
        "id": line.id, "conversionId": line.conversion, "orderId": line.order, "productIds": line.products,
        "programId": line.program, "partnerId": line.partner, "kind": line.kind, "state": line.state.name(),
        "amount": line.amount_money(), "net": Money::new(line.net().unwrap_or_default(), line.currency),
        "occurredAt": line.occurred_at, "dueAt": line.due_at, "approvedAt": line.approved_at, "paidAt": line.paid_at,
        "payoutId": line.payout().map(|(payout, _)| payout), "reason": line.reason(), "version": line.version,
        "notPayableBecause": reason,
    })
}

/// Who approved it is for staff, and so is what it is in QuickBooks.
pub fn payout(payout: &Payout, bill: Option<&QuickbooksBill>, for_staff: bool) -> Value {
    let approvals = if for_staff { payout.approvals.as_slice() } else { &[] };
    let money = |amount| Money::new(amount, payout.currency);
    let pays = payout.pays().unwrap_or_else(|_| payout.money());
    json!({
        "id": payout.id, "number": payout.id.number(), "programId": payout.program, "partnerId": payout.partner,
        "runId": payout.run, "state": payout.state, "amount": payout.money(),
        "gross": money(payout.gross().unwrap_or_default()), "withheld": money(payout.withheld), "pays": pays,
        "exchangeRate": payout.conversion.as_ref().map(rate),
        "paid": Money::new(payout.paid, payout.paid_in()), "lineCount": payout.line_count,
        "linesHash": payout.lines_hash, "version": payout.content_version, "method": payout.method,
        "belowMinimum": payout.below_minimum, "payOn": payout.pay_on,
        "approvals": approvals, "createdAt": payout.created_at, "approvedAt": payout.approved_at,
        "submittedAt": payout.submitted_at, "paidAt": payout.paid_at, "reference": payout.reference,
        "exportId": payout.export, "quickbooks": bill.filter(|_| for_staff).and_then(there),
    })
}

/// Once the Bill is known to be there.
fn there(bill: &QuickbooksBill) -> Option<Value> {
    let id = bill.bill.as_ref()?;
    Some(json!({"billId": id, "vendorId": bill.vendor}))
}

pub fn balance(partner: &Partner, program: &Program, of: &PartnerBalance) -> Value {
    let money = |amount: Minor| Money::new(amount, program.currency);
    let bucket = |bucket| money(of.balance.amount(bucket));
    json!({
        "partnerId": partner.id, "programId": program.id, "currency": program.currency,
        "pending": bucket(Bucket::Pending), "approved": bucket(Bucket::Approved), "payable": bucket(Bucket::Payable),
        "held": bucket(Bucket::Held), "inPayout": bucket(Bucket::InPayout), "paid": bucket(Bucket::Paid),
        "reversed": bucket(Bucket::Reversed), "rejected": bucket(Bucket::Rejected),
        "withheld": bucket(Bucket::Withheld),
        "earned": money(of.balance.earned().unwrap_or_default()),
        "reserve": money(of.balance.reserve().and_then(|sum| sum.plus(of.blocked)).unwrap_or_default()),
        "due": money(of.balance.due().and_then(|sum| sum.minus(of.blocked)).unwrap_or_default()),
        "notPayableBecause": of.not_payable_because,
    })
}

pub fn unrewarded(conversion: &Unrewarded) -> Value {
    json!({
        "id": conversion.conversion, "state": conversion.because, "programId": conversion.program,
        "sourceId": conversion.source, "orderId": conversion.order,
        "total": Money::new(conversion.total, conversion.currency), "occurredAt": conversion.occurred_at,
    })
}

pub fn run(report: &Report) -> Value {
    let mut shown = run_in_numbers(report);
    let payouts = report.payouts.iter();
    let payouts = payouts.map(|(id, amount)| json!({"id": id, "partnerId": id.partner(), "amount": amount}));
    let carried = report.carried.iter().map(|of| carried(&of.partner, of.because, of.payable));
    shown["payouts"] = payouts.collect();
    shown["carried"] = carried.collect();
    let failed = report.failed.iter();
    let failed = failed.map(|of| json!({"partnerId": of.partner, "reason": of.why, "at": of.at}));
    shown["failed"] = failed.collect();
    shown
}

fn carried(partner: &PartnerId, because: CarriedBecause, payable: Money) -> Value {
    json!({"partnerId": partner, "reason": because, "payable": payable})
}

pub fn run_in_numbers(report: &Report) -> Value {
    let (run, summary) = (&report.run, &report.summary);
    let money = |amount| Money::new(amount, report.currency);
    let carried = summary.carried.iter();
    let carried =
        carried.map(|sum| json!({"reason": sum.because, "partners": sum.partners, "payable": money(sum.payable)}));
    json!({
        "id": run.id, "programId": run.program, "kind": run.kind, "period": run.period, "state": report.state,
        "cutOff": run.cut_off, "plannedAt": run.planned_at, "payableBy": run.payable_by, "payOn": run.pay_on,
        "createdBy": run.created_by, "partners": run.asked,
        "summary": {
            "asked": run.asked, "decided": summary.decided(), "undecided": report.undecided(),
            "payouts": summary.payouts, "drafting": summary.drafting, "amount": money(summary.amount),
            "carried": carried.collect::<Vec<_>>(), "failed": summary.failed,
        },
    })
}

pub fn decision(decision: &Decision) -> Value {
    let mut shown = match &decision.outcome {
        Outcome::Payout { payout, amount, drafting } => {
            json!({"outcome": "payout", "payoutId": payout, "amount": amount, "drafting": drafting})
        }
        Outcome::Carried { because, payable, payout } => {
            json!({"outcome": "carried", "reason": because, "payable": payable, "payoutId": payout})
        }
        Outcome::Failed { why } => json!({"outcome": "failed", "reason": why}),
    };
    shown["partnerId"] = json!(decision.partner);
    shown["at"] = json!(decision.at);
    shown
}

pub fn preview(seen: &Preview) -> Value {
    let run = &seen.run;
    let (mut would_pay, mut carried_over) = (Vec::new(), Vec::new());
    for (partner, foreseen) in &seen.decisions {
        match foreseen {
            Foreseen::Paid(amount) => would_pay.push(json!({"partnerId": partner, "amount": amount})),
            Foreseen::Carried { because, payable } => carried_over.push(carried(partner, *because, *payable)),
        }
    }
    json!({
        "id": Value::Null, "programId": run.program, "kind": run.kind, "state": "preview", "cutOff": run.cut_off,
        "plannedAt": run.planned_at, "createdBy": run.created_by, "payouts": [], "wouldPay": would_pay,
        "carried": carried_over,
    })
}

pub fn foreseen((partner, foreseen): &(PartnerId, Foreseen)) -> Value {
    match foreseen {
        Foreseen::Paid(amount) => json!({"partnerId": partner, "outcome": "payout", "amount": amount}),
        Foreseen::Carried { because, payable } => {
            json!({"partnerId": partner, "outcome": "carried", "reason": because, "payable": payable})
        }
    }
}

pub fn foretold(so_far: Foretold, program: &Program) -> Value {
    json!({
        "partners": so_far.partners, "payouts": so_far.payouts,
        "amount": Money::new(so_far.amount, program.currency),
    })
}

pub fn exception(exception: &Exception) -> Value {
    json!({
        "id": exception.id, "code": exception.code, "detail": exception.detail, "programId": exception.program,
        "sourceId": exception.source, "orderId": exception.order, "status": exception.status,
        "receivedAt": exception.received_at, "createdAt": exception.created_at, "resolvedAt": exception.resolved_at, "resolvedBy": exception.resolved_by,
        "resolution": exception.resolution,
    })
}

pub fn conversion(id: &ConversionId, chain: &[Sealed]) -> Value {
    let events: Vec<_> = chain
        .iter()
        .map(|sealed| {
            let entry = &sealed.entry;
            json!({
                "position": entry.position, "what": entry.what, "at": entry.at, "by": entry.by, "note": entry.note,
                "why": entry.why, "event": entry.event, "commissions": entry.lines.iter().map(|line| &line.id).collect::<Vec<_>>(),
            })
        })
        .collect();
    let has = |what| chain.iter().any(|sealed| sealed.entry.what == what);
    let note = chain.iter().find_map(|sealed| sealed.entry.note.clone());
    let state = match (has(What::Accrue), has(What::Attribute)) {
        (false, _) => "awaiting_sale".to_owned(),
        (true, true) => "accrued".to_owned(),
        (true, false) => note.unwrap_or_else(|| "accrued".to_owned()),
    };
    json!({"id": id, "state": state, "events": events})
}
