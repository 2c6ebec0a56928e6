//! Sign-in as Intuit does it: codes, tokens that end, refresh tokens whose value changes, and grants that end when a former value is used.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

const CODE_MINUTES: i64 = 10;
const ACCESS_SECONDS: i64 = 3_600;
const REFRESH_SECONDS: i64 = 8_640_000;
const CONSENT_SECONDS: i64 = 157_680_000;
/// A refresh token's value changes with the first refresh after this long.
const ROTATE_HOURS: i64 = 24;

#[derive(Debug, Clone)]
struct Code {
    realm: String,
    redirect: String,
    until: Timestamp,
}

/// One consent: what it gave out, and until when.
#[derive(Debug, Clone)]
struct Grant {
    realm: String,
    refresh: String,
    /// When the refresh token got its value.
    rotated_at: Timestamp,
    refresh_until: Timestamp,
    consent_until: Timestamp,
    /// Values it had before: whoever uses one ends the grant for everybody.
    former: Vec<String>,
}

#[derive(Debug, Clone)]
struct Access {
    realm: String,
    until: Timestamp,
}

#[derive(Debug, Clone, Default)]
pub struct SignIns {
    codes: BTreeMap<String, Code>,
    grants: Vec<Grant>,
    accesses: BTreeMap<String, Access>,
    given: u64,
}

/// What an answer to a token request holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
    pub expires_in: i64,
    pub refresh_expires_in: i64,
    pub consent_expires_in: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidGrant;

/// Whether an access token opens a company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    Yes,
    /// It is unknown, ended or revoked.
    No,
    /// It is another company's.
    Elsewhere,
}

impl SignIns {
    fn fresh(&mut self, prefix: &str) -> String {
        self.given += 1;
        format!("{prefix}{:08}", self.given)
    }

    /// Somebody consented.
    pub fn consent(&mut self, realm: &str, redirect: &str, now: Timestamp) -> String {
        let code = self.fresh("AB");
        let until = now + SignedDuration::from_mins(CODE_MINUTES);
        self.codes.insert(code.clone(), Code { realm: realm.to_owned(), redirect: redirect.to_owned(), until });
        code
    }

    pub fn exchange(&mut self, code: &str, redirect: &str, now: Timestamp) -> Result<Tokens, InvalidGrant> {
        // A code is good once.
        let code = self
            .codes
            .remove(code)
            .filter(|code| code.until >= now && code.redirect == redirect)
            .ok_or(InvalidGrant)?;
        let refresh = self.fresh("RT1-");
        self.grants.push(Grant {
            realm: code.realm.clone(),
            refresh,
            rotated_at: now,
            refresh_until: now + SignedDuration::from_secs(REFRESH_SECONDS),
            consent_until: now + SignedDuration::from_secs(CONSENT_SECONDS),
            former: Vec::new(),
        });
        let last = self.grants.len() - 1;
        Ok(self.give(last, now))
    }

    pub fn refresh(&mut self, token: &str, now: Timestamp) -> Result<Tokens, InvalidGrant> {
        if let Some(reused) = self.grants.iter().position(|grant| grant.former.iter().any(|former| former == token)) {
            let Grant { realm, .. } = self.grants.remove(reused);
            self.accesses.retain(|_, access| access.realm != realm);
            return Err(InvalidGrant);
        }
        let at = self.grants.iter().position(|grant| grant.refresh == token).ok_or(InvalidGrant)?;
        if self.grants[at].refresh_until < now || self.grants[at].consent_until < now {
            return Err(InvalidGrant);
        }
        if self.grants[at].rotated_at + SignedDuration::from_hours(ROTATE_HOURS) <= now {
            let next = self.fresh("RT1-");
            let grant = &mut self.grants[at];
            grant.former.push(std::mem::replace(&mut grant.refresh, next));
            grant.rotated_at = now;
        }
        self.grants[at].refresh_until = now + SignedDuration::from_secs(REFRESH_SECONDS);
        Ok(self.give(at, now))
    }

    fn give(&mut self, grant: usize, now: Timestamp) -> Tokens {
        let access = self.fresh("eyJ");
        let Grant { realm, refresh, consent_until, .. } = self.grants[grant].clone();
        let until = now + SignedDuration::from_secs(ACCESS_SECONDS);
        self.accesses.insert(access.clone(), Access { realm, until });
        Tokens {
            access,
            refresh,
            expires_in: ACCESS_SECONDS,
            refresh_expires_in: REFRESH_SECONDS,
            consent_expires_in: (consent_until.as_second() - now.as_second()).max(0),
        }
    }

    /// Whether there was anything to revoke.
    pub fn revoke(&mut self, token: &str) -> bool {
        let realm = self
            .grants
            .iter()
            .find(|grant| grant.refresh == token)
            .map(|grant| grant.realm.clone())
            .or_else(|| self.accesses.get(token).map(|access| access.realm.clone()));
        let Some(realm) = realm else { return false };
        self.grants.retain(|grant| grant.realm != realm);
        self.accesses.retain(|_, access| access.realm != realm);
        true
    }

    /// Nothing that was given out is good any more.
    pub fn revoke_all(&mut self) {
        self.codes.clear();
        self.grants.clear();
        self.accesses.clear();
    }

    pub fn opens(&self, token: &str, realm: &str, now: Timestamp) -> Opens {
        match self.accesses.get(token) {
            Some(access) if access.until < now => Opens::No,
            Some(access) if access.realm == realm => Opens::Yes,
            Some(_) => Opens::Elsewhere,
            None => Opens::No,
        }
    }

    /// Every access token ends, and the next refresh changes the refresh token.
    pub fn expire_all(&mut self) {
        self.accesses.clear();
        for grant in &mut self.grants {
            grant.rotated_at = Timestamp::MIN;
        }
    }

    /// An access token ends.
    pub fn expire(&mut self, token: &str) {
        self.accesses.remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_changes_daily_and_what_is_revoked_opens_nothing() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut sign_ins = SignIns::default();
        let code = sign_ins.consent("1", "r", now);
        let first = sign_ins.exchange(&code, "r", now).unwrap();
        assert_eq!(sign_ins.exchange(&code, "r", now), Err(InvalidGrant), "a code is good once");
        let hour = now + SignedDuration::from_hours(1);
        let second = sign_ins.refresh(&first.refresh, hour).unwrap();
        assert_eq!(second.refresh, first.refresh);
        let day = now + SignedDuration::from_hours(24);
        let third = sign_ins.refresh(&second.refresh, day).unwrap();
        assert_ne!(third.refresh, first.refresh);
        assert_eq!(sign_ins.opens(&third.access, "1", day), Opens::Yes);
        assert_eq!(sign_ins.opens(&third.access, "2", day), Opens::Elsewhere);
        assert_eq!(sign_ins.opens(&first.access, "1", day), Opens::No);
        assert!(sign_ins.revoke(&third.refresh));
        assert_eq!(sign_ins.opens(&third.access, "1", day), Opens::No);
    }

    #[test]
    fn a_former_refresh_token_ends_the_grant() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut sign_ins = SignIns::default();
        let code = sign_ins.consent("1", "r", now);
        let first = sign_ins.exchange(&code, "r", now).unwrap();
        let day = now + SignedDuration::from_hours(24);
        let second = sign_ins.refresh(&first.refresh, day).unwrap();
        assert_eq!(sign_ins.refresh(&first.refresh, day), Err(InvalidGrant));
        assert_eq!(sign_ins.opens(&second.access, "1", day), Opens::No);
        assert_eq!(sign_ins.refresh(&second.refresh, day), Err(InvalidGrant), "the good one ended with it");
    }
}
