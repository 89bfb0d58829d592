//! What the metrics page promises.

use std::time::Duration;

use super::*;
use crate::telemetry::Finished;

const OK: Finished = Finished {
    status: 200,
    total: Duration::from_millis(3),
    upstream: Some(Duration::from_millis(2)),
    upstream_outcome: "answered",
    denial: "",
    request_bytes: 10,
    response_bytes: 1000,
};

fn has(page: &str, line: &str) -> bool {
    page.lines().any(|found| found == line)
}

fn series(page: &str) -> usize {
    page.lines()
        .filter(|line| line.starts_with("tollgate_"))
        .count()
}

#[test]
fn a_finished_request_is_on_the_page() {
    let metrics = Metrics::new();
    let operation = metrics.operation("shop", "listBooks", "GET");
    operation.start();
    assert!(has(
        &metrics.render(),
        r#"tollgate_requests_in_flight{api="shop"} 1"#
    ));
    operation.finish(&OK);
    let page = metrics.render();
    for line in [
        r#"tollgate_requests_total{api="shop",operation="listBooks",method="GET",status_class="2xx"} 1"#,
        r#"tollgate_request_duration_seconds_bucket{api="shop",operation="listBooks",le="0.0025"} 0"#,
        r#"tollgate_request_duration_seconds_bucket{api="shop",operation="listBooks",le="0.005"} 1"#,
        r#"tollgate_request_duration_seconds_bucket{api="shop",operation="listBooks",le="+Inf"} 1"#,
        r#"tollgate_request_duration_seconds_sum{api="shop",operation="listBooks"} 0.003000000"#,
        r#"tollgate_request_duration_seconds_count{api="shop",operation="listBooks"} 1"#,
        r#"tollgate_upstream_duration_seconds_count{api="shop",operation="listBooks"} 1"#,
        r#"tollgate_request_bytes{api="shop",operation="listBooks"} 10"#,
        r#"tollgate_response_bytes{api="shop",operation="listBooks"} 1000"#,
        r#"tollgate_requests_in_flight{api="shop"} 0"#,
        r#"tollgate_upstream_outcomes_total{api="shop",outcome="answered"} 1"#,
        r#"tollgate_access_log_dropped_total 0"#,
        "# TYPE tollgate_request_duration_seconds histogram",
    ] {
        assert!(has(&page, line), "{line}\nnot in\n{page}");
    }
    assert!(page.contains("tollgate_build_info{version="));
    assert!(page.contains("process_cpu_seconds_total"));
}

#[test]
fn refusals_are_counted_by_cause() {
    let metrics = Metrics::new();
    let operation = metrics.operation("shop", "", "");
    operation.start();
    operation.finish(&Finished {
        status: 404,
        denial: "unknown_operation",
        upstream: None,
        upstream_outcome: "",
        ..OK
    });
    metrics.malformed("malformed");
    let page = metrics.render();
    assert!(has(
        &page,
        r#"tollgate_denials_total{api="shop",operation="unmatched",cause="unknown_operation"} 1"#
    ));
    assert!(has(
        &page,
        r#"tollgate_denials_total{api="none",operation="unmatched",cause="malformed"} 1"#
    ));
    assert!(has(
        &page,
        r#"tollgate_requests_total{api="shop",operation="unmatched",method="other",status_class="4xx"} 1"#
    ));
}

#[test]
fn asking_again_returns_the_same_series_and_strange_methods_share_one() {
    let metrics = Metrics::new();
    for number in 0..1000 {
        let operation = metrics.operation("", "", &format!("METHOD{number}"));
        operation.start();
        operation.finish(&OK);
    }
    let page = metrics.render();
    assert!(has(
        &page,
        r#"tollgate_requests_total{api="none",operation="unmatched",method="other",status_class="2xx"} 1000"#
    ));
    let again = metrics.operation("", "", "get");
    again.start();
    again.finish(&Finished { status: 999, ..OK });
    assert_eq!(
        series(&metrics.render()),
        series(&page) + 1,
        "one more class, nothing else"
    );
}

#[test]
fn methods_of_one_operation_share_its_histogram() {
    let metrics = Metrics::new();
    for method in ["GET", "POST"] {
        let operation = metrics.operation("shop", "any", method);
        operation.start();
        operation.finish(&OK);
    }
    let page = metrics.render();
    let count = r#"tollgate_request_duration_seconds_count{api="shop",operation="any"} 2"#;
    assert_eq!(page.lines().filter(|line| *line == count).count(), 1);
}

#[test]
fn no_series_stands_twice_on_the_page() {
    let metrics = Metrics::new();
    for (api, operation) in [
        ("", ""),
        ("none", "unmatched"),
        ("shop", ""),
        ("shop", "unmatched"),
    ] {
        let handle = metrics.operation(api, operation, "GET");
        handle.start();
        handle.finish(&Finished {
            denial: "overloaded",
            ..OK
        });
    }
    let page = metrics.render();
    let mut seen = std::collections::HashSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.rsplit_once(' ').map(|(name, _)| name);
        assert!(seen.insert(name), "{line}");
    }
}

#[test]
fn an_unused_operation_has_no_series() {
    let metrics = Metrics::new();
    let before = series(&metrics.render());
    let _held: Vec<_> = (0..1000)
        .map(|n| metrics.operation("shop", &format!("op{n}"), "GET"))
        .collect();
    assert_eq!(
        series(&metrics.render()),
        before + 1,
        "only the API's in-flight gauge"
    );
}

#[test]
fn a_forgotten_api_leaves_no_series_and_late_requests_bring_none_back() {
    let metrics = Metrics::new();
    let operation = metrics.operation("shop", "listBooks", "GET");
    operation.start();
    metrics.reloaded("shop", true, 1);
    metrics.reloaded("shop", false, 1);
    let page = metrics.render();
    assert!(has(&page, r#"tollgate_api_generation{api="shop"} 1"#));
    assert!(has(&page, r#"tollgate_api_reload_failed{api="shop"} 1"#));
    assert!(has(
        &page,
        r#"tollgate_api_reloads_total{api="shop",result="failed"} 1"#
    ));
    metrics.forget_api("shop");
    operation.finish(&OK);
    assert!(!metrics.render().contains("shop"));
}

#[test]
fn operations_that_left_the_file_leave_the_page() {
    let metrics = Metrics::new();
    let (old, kept) = (
        metrics.operation("a", "old", "GET"),
        metrics.operation("a", "kept", "GET"),
    );
    for operation in [&old, &kept] {
        operation.start();
        operation.finish(&OK);
    }
    metrics.reloaded("a", true, 2);
    assert!(
        metrics.render().contains("\"old\""),
        "a snapshot still holds it"
    );
    drop(old);
    metrics.reloaded("a", true, 3);
    let page = metrics.render();
    assert!(!page.contains("\"old\""));
    assert!(page.contains("\"kept\""));
}

#[test]
fn names_with_quotes_and_breaks_are_escaped() {
    let metrics = Metrics::new();
    let operation = metrics.operation("shop", "GET /a\"b\\c\nd", "GET");
    operation.start();
    operation.finish(&OK);
    assert!(metrics.render().contains(r#"operation="GET /a\"b\\c\nd""#));
}

#[test]
fn more_causes_than_places_are_counted_as_other() {
    let metrics = Metrics::new();
    for number in 0..40 {
        metrics.malformed(Box::leak(format!("cause{number}").into_boxed_str()));
    }
    assert!(metrics.render().contains(r#"cause="other"} 8"#));
}

#[test]
fn threads_that_meet_at_the_first_request_lose_no_count() {
    let metrics = Metrics::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let operation = metrics.operation("shop", "op", "GET");
                for _ in 0..1000 {
                    operation.start();
                    operation.finish(&OK);
                }
            });
        }
    });
    assert!(metrics.render().contains(r#"status_class="2xx"} 4000"#));
}

#[test]
fn connections_are_counted_per_listener() {
    let metrics = Metrics::new();
    metrics.connection_opened("0.0.0.0:8080");
    metrics.connection_opened("0.0.0.0:8080");
    metrics.connection_closed("0.0.0.0:8080");
    metrics.connection_refused("0.0.0.0:8080", "permits");
    let page = metrics.render();
    assert!(has(
        &page,
        r#"tollgate_connections{listener="0.0.0.0:8080"} 1"#
    ));
    assert!(has(
        &page,
        r#"tollgate_connections_total{listener="0.0.0.0:8080"} 2"#
    ));
    assert!(has(
        &page,
        r#"tollgate_connections_refused_total{cause="permits",listener="0.0.0.0:8080"} 1"#
    ));
}
