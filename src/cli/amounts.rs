//! What usage came to by name, in the words of a table: `pages=3 tokens=900`, `1.20 EUR`.

use serde_json::Value;

/// Micro-units of a unit of money.
const MICRO: u64 = 1_000_000;

/// The rows of usage, with texts instead of numbers in `units` and `money`. Of a control plane that tells no names apart, and of a row
/// that has none, the numbers stay.
pub(super) fn told_apart(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        for (member, names, pair) in [
            ("units", "units_by_name", unit as fn(&str, u64) -> String),
            ("money", "money_by_currency", money),
        ] {
            let amounts = row.get(names).and_then(Value::as_object);
            let amounts = amounts.into_iter().flatten();
            let pairs = amounts.map(|(name, amount)| pair(name, amount.as_u64().unwrap_or(0)));
            let pairs: Vec<String> = pairs.collect();
            if let Some(cell) = row.get_mut(member).filter(|_| !pairs.is_empty()) {
                *cell = Value::String(pairs.join(" "));
            }
        }
    }
    rows
}

fn unit(name: &str, amount: u64) -> String {
    format!("{name}={amount}")
}

fn money(currency: &str, micros: u64) -> String {
    let fraction = format!("{:06}", micros % MICRO);
    let digits = fraction.trim_end_matches('0');
    format!("{}.{digits:0<2} {currency}", micros / MICRO)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_told_apart_by_name() {
        let rows = told_apart(vec![
            json!({
                "units": 903,
                "units_by_name": { "pages": 3, "tokens": 900 },
                "money": 1_200_001,
                "money_by_currency": { "CHF": 1, "EUR": 1_200_000 },
            }),
            json!({ "units": 0, "units_by_name": {}, "money": 0, "money_by_currency": {} }),
            json!({ "units": 7, "money": 8 }),
        ]);
        assert_eq!(rows[0]["units"], "pages=3 tokens=900");
        assert_eq!(rows[0]["money"], "0.000001 CHF 1.20 EUR");
        assert_eq!(
            (&rows[1]["units"], &rows[1]["money"]),
            (&json!(0), &json!(0))
        );
        assert_eq!(
            (&rows[2]["units"], &rows[2]["money"]),
            (&json!(7), &json!(8))
        );
    }
}
