//! The calendar of money: when a hold period ends, when runs happen, and how far back a run reaches.

use jiff::civil::Date;
use jiff::{SignedDuration, Span, Timestamp};

use crate::money::MoneyError;
use crate::program::{Frequency, Program, Schedule};

/// When a line may be paid at the earliest: `max(occurred + max(hold, slice) x 24 h, received + minimum hold x 24 h)`.
/// Days are 24 hours whatever the time zone, so that the date can be computed once and never moves.
pub fn due_at(
    occurred_at: Timestamp,
    received_at: Timestamp,
    hold_days: u16,
    slice_days: u16,
    min_hold_days: u16,
) -> Result<Timestamp, MoneyError> {
    let after = |start: Timestamp, days: u16| {
        start.checked_add(SignedDuration::from_hours(i64::from(days) * 24)).map_err(|_| MoneyError::Overflow)
    };
    Ok(after(occurred_at, hold_days.max(slice_days))?.max(after(received_at, min_hold_days)?))
}

/// Whether the hold period is over. The moment itself counts.
pub fn is_matured(due_at: Timestamp, now: Timestamp) -> bool {
    now >= due_at
}

/// One scheduled run: its date names the period, so that a schedule firing twice is one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledRun {
    pub date: Date,
    /// Midnight of the run date in the program's time zone.
    pub starts_at: Timestamp,
    /// The midnight after it.
    pub ends_at: Timestamp,
    /// Lines due strictly before this are within the run.
    pub cut_off: Timestamp,
    /// When its payouts are to be paid.
    pub pay_on: Date,
}

/// How far ahead a run is looked for: a year of cut-off days, and more than the rarest frequency.
const LOOK_AHEAD_DAYS: usize = 500;

impl Program {
    /// The latest scheduled run that should have started by `now`. A missed schedule catches up once: only the latest one.
    pub fn due_run(&self, now: Timestamp) -> Option<ScheduledRun> {
        let run = self.run_on(self.schedule.latest(self.date_of(now))?)?;
        (run.starts_at >= self.created_at).then_some(run)
    }

    /// The next run after today, in the program's time zone.
    pub fn next_run(&self, now: Timestamp) -> Option<ScheduledRun> {
        self.runs_after(now).next()
    }

    /// The next run that pays what is payable now and due at `due_at`.
    pub fn next_run_with(&self, due_at: Timestamp, now: Timestamp) -> Option<ScheduledRun> {
        self.runs_after(now).find(|run| due_at < run.cut_off)
    }

    /// When the payouts of a run are to be paid.
    pub fn pay_on(&self, run_date: Date) -> Option<Date> {
        run_date.checked_add(Span::new().days(i64::from(self.schedule.pay_days))).ok()
    }

    /// The day in the program's time zone.
    pub fn date_of(&self, moment: Timestamp) -> Date {
        moment.to_zoned(self.time_zone.time_zone()).date()
    }

    fn runs_after(&self, now: Timestamp) -> impl Iterator<Item = ScheduledRun> {
        let days = std::iter::successors(self.date_of(now).tomorrow().ok(), |day| day.tomorrow().ok());
        let on_schedule = days.take(LOOK_AHEAD_DAYS).filter(|day| self.schedule.latest(*day) == Some(*day));
        on_schedule.filter_map(|day| self.run_on(day))
    }

    fn run_on(&self, date: Date) -> Option<ScheduledRun> {
        let zone = self.time_zone.time_zone();
        let midnight = |date: Date| date.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
        let reach = date.checked_sub(Span::new().days(i64::from(self.schedule.cut_off_days))).ok()?;
        let ends_at = midnight(date.tomorrow().ok()?)?;
        Some(ScheduledRun {
            date,
            starts_at: midnight(date)?,
            ends_at,
            cut_off: midnight(reach)?,
            pay_on: self.pay_on(date)?,
        })
    }
}

impl Schedule {
    /// The latest run date on or before `today`. None where runs are never scheduled.
    pub fn latest(&self, today: Date) -> Option<Date> {
        match self.frequency {
            Frequency::OnDemand | Frequency::Instant => None,
            Frequency::Monthly => self.latest_in_month(today, 1),
            Frequency::Quarterly => {
                let months_past = i64::from((today.month() - 1) % 3);
                let quarter = first_of_month(today)?.checked_sub(Span::new().months(months_past)).ok()?;
                let this = self.run_date_in(quarter)?;
                if this <= today {
                    Some(this)
                } else {
                    self.run_date_in(quarter.checked_sub(Span::new().months(3)).ok()?)
                }
            }
            Frequency::SemiMonthly => {
                let day = if today.day() >= 15 { 15 } else { 1 };
                Date::new(today.year(), today.month(), day).ok()
            }
            Frequency::Weekly => {
                let back = (today.weekday().to_monday_one_offset() - self.run_day).rem_euclid(7);
                today.checked_sub(Span::new().days(i64::from(back))).ok()
            }
            Frequency::Biweekly => {
                let days = i64::from(today.since(self.anchor).ok()?.get_days());
                let back = days.rem_euclid(14);
                today.checked_sub(Span::new().days(back)).ok()
            }
        }
    }

    fn latest_in_month(&self, today: Date, months: i64) -> Option<Date> {
        let this = self.run_date_in(today)?;
        if this <= today {
            Some(this)
        } else {
            self.run_date_in(first_of_month(today)?.checked_sub(Span::new().months(months)).ok()?)
        }
    }

    /// The run date in a month; a day the month does not have becomes its last.
    fn run_date_in(&self, month: Date) -> Option<Date> {
        let day = self.run_day.clamp(1, month.days_in_month());
        Date::new(month.year(), month.month(), day).ok()
    }
}

fn first_of_month(date: Date) -> Option<Date> {
    Date::new(date.year(), date.month(), 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn schedule(frequency: Frequency, run_day: i8) -> Schedule {
        Schedule { frequency, run_day, anchor: date("2026-01-05"), cut_off_days: 0, pay_days: 0 }
    }

    #[test]
    fn a_hold_period_is_whole_days_of_24_hours() {
        let sold = at("2026-03-28T23:30:00Z");
        assert_eq!(due_at(sold, sold, 30, 0, 0).unwrap(), at("2026-04-27T23:30:00Z"));
        assert_eq!(due_at(sold, sold, 30, 60, 0).unwrap(), at("2026-05-27T23:30:00Z"));
        let late = at("2026-06-01T00:00:00Z");
        assert_eq!(due_at(sold, late, 30, 0, 14).unwrap(), at("2026-06-15T00:00:00Z"));
    }

    #[test]
    fn maturity_includes_its_own_moment() {
        let due = at("2026-04-27T23:30:00Z");
        assert!(is_matured(due, due));
        assert!(!is_matured(due, due - SignedDuration::from_nanos(1)));
    }

    #[test]
    fn run_dates_follow_the_calendar() {
        use Frequency::{Biweekly, Instant, Monthly, OnDemand, Quarterly, SemiMonthly, Weekly};
        for (frequency, run_day, today, expect) in [
            (Monthly, 1, "2026-01-31", Some("2026-01-01")),
            (Monthly, 15, "2026-03-14", Some("2026-02-15")),
            (Monthly, 31, "2026-02-28", Some("2026-02-28")),
            (Monthly, 31, "2026-03-30", Some("2026-02-28")),
            (Monthly, 31, "2024-02-29", Some("2024-02-29")),
            (SemiMonthly, 1, "2026-02-14", Some("2026-02-01")),
            (SemiMonthly, 1, "2026-02-15", Some("2026-02-15")),
            (Quarterly, 1, "2026-06-30", Some("2026-04-01")),
            (Quarterly, 31, "2026-04-29", Some("2026-01-31")),
            (Weekly, 1, "2026-11-22", Some("2026-11-16")),
            (Weekly, 7, "2026-11-22", Some("2026-11-22")),
            (Biweekly, 1, "2026-02-01", Some("2026-01-19")),
            (Biweekly, 1, "2026-02-02", Some("2026-02-02")),
            (Biweekly, 1, "2026-01-04", Some("2025-12-22")),
            (OnDemand, 1, "2026-01-31", None),
            (Instant, 1, "2026-01-31", None),
        ] {
            let got = schedule(frequency, run_day).latest(date(today));
            assert_eq!(got, expect.map(date), "{frequency:?} on {run_day}, {today}");
        }
    }

    #[test]
    fn the_cut_off_is_local_midnight() {
        let program = crate::rating::tests::program(|p| {
            p.time_zone = "America/New_York".to_owned().try_into().unwrap();
            p.schedule = Schedule { cut_off_days: 3, ..schedule(Frequency::Monthly, 1) };
            p.created_at = at("2026-01-01T12:00:00Z");
        });
        // 04:30 UTC is still October 31 in New York.
        assert_eq!(program.due_run(at("2026-11-01T03:30:00Z")).unwrap().date, date("2026-10-01"));
        let run = program.due_run(at("2026-11-01T04:00:00Z")).unwrap();
        assert_eq!((run.date, run.starts_at), (date("2026-11-01"), at("2026-11-01T04:00:00Z")));
        assert_eq!(run.cut_off, at("2026-10-29T04:00:00Z"));
        assert_eq!(program.next_run(at("2026-11-01T04:00:00Z")).unwrap().date, date("2026-12-01"));
        assert_eq!(
            program.due_run(at("2026-01-15T00:00:00Z")),
            None,
            "runs before the program existed are not caught up"
        );
    }

    #[test]
    fn a_pay_date_is_the_run_date_and_its_days() {
        let program = crate::rating::tests::program(|p| {
            p.schedule = Schedule { pay_days: 15, ..schedule(Frequency::Monthly, 31) };
            p.created_at = at("2026-01-01T00:00:00Z");
        });
        assert_eq!(program.due_run(at("2026-03-01T00:00:00Z")).unwrap().pay_on, date("2026-03-15"));
        assert_eq!(program.next_run(at("2026-03-01T00:00:00Z")).unwrap().pay_on, date("2026-04-15"));
    }

    #[test]
    fn runs_start_at_the_first_moment_of_their_day_whatever_the_clocks_do() {
        // Where the day starts at one o'clock because of daylight saving, the run does, too.
        for (zone, now, expect) in [
            ("Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-28T23:00:00Z"),
            ("Europe/Berlin", "2026-03-29T22:30:00Z", "2026-03-29T22:00:00Z"),
            ("Europe/Berlin", "2026-10-25T22:30:00Z", "2026-10-24T22:00:00Z"),
            ("Europe/Berlin", "2026-10-25T23:30:00Z", "2026-10-25T23:00:00Z"),
            ("America/Asuncion", "2023-10-01T05:00:00Z", "2023-10-01T04:00:00Z"),
            ("Pacific/Kiritimati", "2026-06-30T10:30:00Z", "2026-06-30T10:00:00Z"),
        ] {
            // A run every day: two weeks from each weekday would do, weekly on the day at hand is enough.
            let local = at(now).to_zoned(jiff::tz::TimeZone::get(zone).unwrap()).date();
            let program = crate::rating::tests::program(|p| {
                p.time_zone = zone.to_owned().try_into().unwrap();
                p.schedule = schedule(Frequency::Weekly, local.weekday().to_monday_one_offset());
                p.created_at = at("2020-01-01T00:00:00Z");
            });
            assert_eq!(program.due_run(at(now)).unwrap().starts_at, at(expect), "{zone} {now}");
        }
    }

    #[test]
    fn of_missed_schedules_only_the_latest_is_caught_up() {
        for (frequency, expect) in [
            (Frequency::Weekly, "2026-05-11"),
            (Frequency::Biweekly, "2026-05-11"),
            (Frequency::SemiMonthly, "2026-05-15"),
            (Frequency::Monthly, "2026-05-01"),
            (Frequency::Quarterly, "2026-04-01"),
        ] {
            let program = crate::rating::tests::program(|p| {
                p.schedule = schedule(frequency, 1);
                p.created_at = at("2026-01-01T00:00:00Z");
            });
            assert_eq!(program.due_run(at("2026-05-17T12:00:00Z")).unwrap().date, date(expect), "{frequency:?}");
        }
    }

    #[test]
    fn what_is_due_after_a_cut_off_waits_for_the_run_after() {
        let program = crate::rating::tests::program(|p| {
            p.schedule = Schedule { cut_off_days: 10, ..schedule(Frequency::Monthly, 1) };
        });
        for (due, expect) in [
            ("2026-01-21T23:59:59Z", Some("2026-02-01")),
            ("2026-01-22T00:00:00Z", Some("2026-03-01")),
            ("2099-01-01T00:00:00Z", None),
        ] {
            let run = program.next_run_with(at(due), at("2026-01-25T00:00:00Z"));
            assert_eq!(run.map(|run| run.date), expect.map(date), "{due}");
        }
    }
}
