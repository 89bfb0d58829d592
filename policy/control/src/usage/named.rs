//! What totals come to by name: cost units by the name of their meter, money by its currency, as it is shown.
//!
//! Promises: what stands under a name and what stands under none make up the total. Not here: where they are kept (`write`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sqlx::Row as _;
use tollgate_proto::Meters;

use super::query::{read_sum, sum_of};
use super::totals::{MONEY, Meter, Totals, UNITS};
use crate::store::{Row, StoreError};

/// Columns, members and fields of [`Named`].
pub(crate) const NAMED: [&str; 2] = ["units_by_name", "money_by_currency"];

/// The code that ISO 4217 has for no currency: nobody said in which it is.
const NO_CURRENCY: &str = "XXX";

/// Amounts by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    units: BTreeMap<String, u64>,
    money: BTreeMap<String, u64>,
}

impl Named {
    /// Kind, name and sum of an amount, of rows `t` of the amounts and `m` of the meters.
    pub(super) fn columns() -> String {
        format!(
            "m.kind AS meter_kind, m.name AS meter_name, {}",
            sum_of("amount")
        )
    }

    /// The tables of them.
    pub(super) const TABLES: &str = "usage_amounts t JOIN usage_keys k ON k.id = t.key_id
         JOIN usage_meters m ON m.id = t.meter_id";

    /// Adds a row of [`Self::columns`].
    pub(super) fn read(&mut self, row: &Row) -> Result<(), StoreError> {
        let (kind, name): (&str, &str) = (row.try_get("meter_kind")?, row.try_get("meter_name")?);
        let amounts = match kind {
            Meter::UNITS => &mut self.units,
            Meter::MONEY => &mut self.money,
            other => {
                let what = format!("usage is kept of the unknown kind {other}");
                return Err(StoreError::Strange(what));
            }
        };
        more(amounts, name, read_sum(row, "amount")?);
        Ok(())
    }

    /// The same, and under the names for it what of the totals has no other.
    pub(super) fn complete(mut self, totals: &Totals) -> Self {
        let (units, money) = (totals[UNITS], totals[MONEY]);
        let left = |all: u64, amounts: &BTreeMap<String, u64>| {
            let named = amounts
                .values()
                .fold(0, |sum: u64, it| sum.saturating_add(*it));
            all.saturating_sub(named)
        };
        let (unnamed, nowhere) = (left(units, &self.units), left(money, &self.money));
        more(&mut self.units, Meters::UNNAMED, unnamed);
        more(&mut self.money, NO_CURRENCY, nowhere);
        self
    }

    /// Adds all of another.
    pub(super) fn add(&mut self, other: &Self) {
        for (sums, amounts) in [
            (&mut self.units, &other.units),
            (&mut self.money, &other.money),
        ] {
            for (name, amount) in amounts {
                more(sums, name, *amount);
            }
        }
    }

    /// As members of an object.
    pub(super) fn show(&self, shown: &mut Map<String, Value>) {
        for (member, amounts) in NAMED.into_iter().zip([&self.units, &self.money]) {
            let object = |(name, amount): (&String, &u64)| (name.clone(), (*amount).into());
            let object: Map<String, Value> = amounts.iter().map(object).collect();
            shown.insert(member.to_owned(), Value::Object(object));
        }
    }

    /// As cells of a table, each with pairs of name and amount.
    pub(super) fn cells(&self) -> [String; 2] {
        [&self.units, &self.money].map(|amounts| {
            let pairs = amounts
                .iter()
                .map(|(name, amount)| format!("{name}={amount}"));
            pairs.collect::<Vec<_>>().join(" ")
        })
    }
}

fn more(sums: &mut BTreeMap<String, u64>, name: &str, amount: u64) {
    if amount == 0 {
        return;
    }
    let sum = sums.entry(name.to_owned()).or_default();
    *sum = sum.saturating_add(amount);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_stands_under_the_name_for_it() {
        let mut named = Named::default();
        more(&mut named.units, "tokens", 5);
        more(&mut named.money, "EUR", 7);
        let mut totals = Totals::default();
        totals[UNITS] = 9;
        totals[MONEY] = 7;
        let shown = named.clone().complete(&totals).cells();
        assert_eq!(shown, ["tokens=5 units=4", "EUR=7"]);
        // Sums that stopped at the largest number say less than their parts.
        let shown = named.complete(&Totals::default()).cells();
        assert_eq!(shown, ["tokens=5", "EUR=7"]);
        totals[MONEY] = 1;
        let shown = Named::default().complete(&totals).cells();
        assert_eq!(shown, ["units=9", "XXX=1"]);
    }

    #[test]
    fn two_of_them_add_up_by_name() {
        let mut totals = Totals::default();
        totals[UNITS] = 2;
        let mut all = Named::default().complete(&totals);
        let mut other = Named::default();
        more(&mut other.units, "tokens", u64::MAX);
        all.add(&other);
        all.add(&other);
        assert_eq!(
            all.cells(),
            [format!("tokens={} units=2", u64::MAX), String::new()]
        );
    }
}
