//! One access record as one line of JSON.
//!
//! Promises: valid JSON on one line whatever the fields hold; no character in it breaks a line or commands a terminal;
//! every text is cut, so that a line has a greatest length.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::access_log::AccessRecord;
use super::digits::{decimal, padded, socket_address, thousandths};
use super::request_id::hex_digit;

/// More steps than a request has.
const STEPS: usize = 16;

/// Appends the record and a line feed.
pub(super) fn write_line(out: &mut Vec<u8>, record: &AccessRecord<'_>, now: SystemTime) {
    out.extend_from_slice(b"{\"time\":\"");
    write_time(out, now);
    out.push(b'"');
    text(out, b",\"request_id\":\"", record.request_id, 64);
    text(out, b",\"trace_id\":\"", record.trace_id, 32);
    if let Some(client) = record.client {
        out.extend_from_slice(b",\"client\":\"");
        socket_address(out, client);
        out.push(b'"');
    }
    text(out, b",\"protocol\":\"", record.protocol, 16);
    flag(out, b",\"tls\":", record.tls);
    text(out, b",\"method\":\"", record.method, 16);
    text(out, b",\"host\":\"", record.host, 255);
    text(out, b",\"path\":\"", record.path, 512);
    text(out, b",\"api\":\"", record.api, 64);
    text(out, b",\"operation\":\"", record.operation, 255);
    text(out, b",\"consumer\":\"", record.consumer, 128);
    text(out, b",\"credential\":\"", record.credential, 128);
    text(out, b",\"plan\":\"", record.plan, 128);
    if let Some(id) = record.source_workload {
        text(out, b",\"source_workload\":\"", id.kind().as_str(), 16);
        out.pop();
        text(out, b"/", id.name(), 64);
    }
    number(out, b",\"status\":", record.status.into());
    text(out, b",\"denial\":\"", record.denial, 64);
    text(out, b",\"reason\":\"", &record.reason, 512);
    text(out, b",\"upstream\":\"", record.upstream, 255);
    let outcome = record.upstream_outcome;
    text(out, b",\"upstream_outcome\":\"", outcome, 64);
    number(out, b",\"attempts\":", record.attempts.into());
    number(out, b",\"request_bytes\":", record.request_bytes);
    number(out, b",\"response_bytes\":", record.response_bytes);
    steps(out, record.steps);
    out.extend_from_slice(b",\"total_ms\":");
    thousandths(out, record.total.as_micros());
    flag(out, b",\"aborted\":", record.aborted);
    out.extend_from_slice(b"}\n");
}

fn steps(out: &mut Vec<u8>, steps: &[(&'static str, Duration)]) {
    out.extend_from_slice(b",\"steps\":{");
    for (number, (name, time)) in steps.iter().take(STEPS).enumerate() {
        out.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
        escape(out, cut(name, 32));
        out.extend_from_slice(b"_us\":");
        thousandths(out, time.as_nanos());
    }
    out.push(b'}');
}

/// `begin` is the field's name with all that belongs before the value.
fn text(out: &mut Vec<u8>, begin: &[u8], value: &str, longest: usize) {
    out.extend_from_slice(begin);
    escape(out, cut(value, longest));
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, begin: &[u8], value: u64) {
    out.extend_from_slice(begin);
    decimal(out, value);
}

fn flag(out: &mut Vec<u8>, begin: &[u8], value: bool) {
    out.extend_from_slice(begin);
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// At most `longest` bytes, ending between two characters.
fn cut(value: &str, longest: usize) -> &str {
    value
        .get(..value.floor_char_boundary(longest))
        .unwrap_or_default()
}

/// Escapes what JSON demands, and beyond that DEL, the C1 controls and U+2028/2029: terminals obey some of them, and
/// some readers take others for the end of a line.
fn escape(out: &mut Vec<u8>, value: &str) {
    // All bytes, not up to the first that is not plain: without a way out the compiler looks at sixteen at once.
    if value
        .bytes()
        .fold(true, |so_far, byte| so_far & plain(byte))
    {
        return out.extend_from_slice(value.as_bytes());
    }
    for character in value.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let code = u32::from(c);
                out.extend_from_slice(b"\\u");
                out.extend([12, 8, 4, 0].map(|shift| {
                    hex_digit(u8::try_from((code >> shift) & 0xf).unwrap_or_default())
                }));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// RFC 3339 in UTC with milliseconds. Days to date after Howard Hinnant's `civil_from_days`.
pub(super) fn write_time(out: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months are counted from March, so that the leap day is the last of the year.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    padded::<4>(out, year);
    for (before, value) in [
        (b'-', month),
        (b'-', day),
        (b'T', hour),
        (b':', minute),
        (b':', second),
    ] {
        out.push(before);
        padded::<2>(out, value);
    }
    out.push(b'.');
    padded::<3>(out, millis.into());
    out.push(b'Z');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, expected) in table {
            let mut out = Vec::new();
            write_time(&mut out, UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn naughty_strings_survive_in_every_field_on_one_line() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../shared/vectors/blns/blns.json"
        );
        let mut naughty: Vec<String> = vec![
            "\n\r\0\u{1b}[31m\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\"\\".into(),
            "é".repeat(400),
        ];
        match std::fs::read(file) {
            Ok(bytes) => naughty.extend(serde_json::from_slice::<Vec<String>>(&bytes).unwrap()),
            Err(_) => println!("skipped: {file} is absent"),
        }
        for value in &naughty {
            let record = AccessRecord {
                request_id: value,
                trace_id: value,
                method: value,
                host: value,
                path: value,
                api: value,
                operation: value,
                consumer: value,
                credential: value,
                plan: value,
                reason: value.as_str().into(),
                upstream: value,
                ..AccessRecord::default()
            };
            let mut out = Vec::new();
            write_line(&mut out, &record, SystemTime::now());
            let line = String::from_utf8(out).unwrap();
            let breaks = line
                .chars()
                .filter(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
            assert_eq!(breaks.count(), 1, "the line feed at the end: {line}");
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
            let limits = [
                ("request_id", 64),
                ("trace_id", 32),
                ("method", 16),
                ("host", 255),
                ("path", 512),
                ("api", 64),
                ("operation", 255),
                ("consumer", 128),
                ("credential", 128),
                ("plan", 128),
                ("reason", 512),
                ("upstream", 255),
            ];
            for (name, longest) in limits {
                assert_eq!(
                    parsed[name].as_str().unwrap(),
                    cut(value, longest),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_process_that_was_verified_is_named_with_its_kind() {
        let id = "spiffe://shop.example/gateway/edge-1".parse().unwrap();
        let record = AccessRecord {
            source_workload: Some(&id),
            ..AccessRecord::default()
        };
        let mut out = Vec::new();
        write_line(&mut out, &record, UNIX_EPOCH);
        let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(parsed["source_workload"], "gateway/edge-1");
    }

    #[test]
    fn a_whole_line_reads_as_documented() {
        let record = AccessRecord {
            request_id: "0123456789abcdef",
            client: Some(([192, 0, 2, 1], 5000).into()),
            protocol: "HTTP/1.1",
            method: "GET",
            path: "/books",
            status: 200,
            steps: &[
                ("classify", Duration::from_nanos(700)),
                ("forward", Duration::from_micros(1500)),
            ],
            total: Duration::from_micros(1_600),
            ..AccessRecord::default()
        };
        let mut out = Vec::new();
        write_line(&mut out, &record, UNIX_EPOCH);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000Z","request_id":"0123456789abcdef","trace_id":"","client":"192.0.2.1:5000","#,
                r#""protocol":"HTTP/1.1","tls":false,"method":"GET","host":"","path":"/books","api":"","operation":"","#,
                r#""consumer":"","credential":"","plan":"","status":200,"#,
                r#""denial":"","reason":"","upstream":"","upstream_outcome":"","attempts":0,"request_bytes":0,"response_bytes":0,"#,
                r#""steps":{"classify_us":0.700,"forward_us":1500.000},"total_ms":1.600,"aborted":false}"#,
                "\n"
            )
        );
    }
}
