use super::*;

fn wire() -> proto::SourceGap {
    proto::SourceGap {
        source: "feed-1".into(),
        venue: "XTST".into(),
        symbols: vec!["A".into(), "B/C".into()],
        start_time: Some(prost_types::Timestamp { seconds: 5, nanos: 1 }),
        end_time: Some(prost_types::Timestamp { seconds: 6, nanos: 2 }),
        first_source_seq: Some(7),
        last_source_seq: Some(9),
        cause: proto::SourceGapCause::Overload.into(),
        recoverable: true,
        detail: "queue full".into(),
        log_seq: 0,
    }
}

fn violated(result: Result<Batch, Violations>) -> Vec<String> {
    let violations = result.expect_err("breaks a rule");
    violations.first().iter().map(|violation| violation.field.clone()).collect()
}

#[test]
fn source_events_come_back_as_they_were_sent() {
    let gap = gap("gap", wire()).unwrap();
    let [Control::SourceGap(stored)] = gap.controls.as_slice() else { panic!("{gap:?}") };
    assert_eq!(wire_gap(12, stored), proto::SourceGap { log_seq: 12, ..wire() });

    let sent = proto::SourceGapFilled {
        source: "feed-1".into(),
        venue: "XTST".into(),
        symbols: vec![],
        start_time: wire().start_time,
        end_time: None,
        first_source_seq: Some(7),
        last_source_seq: None,
        gap_log_seq: Some(12),
        log_seq: 0,
    };
    let filled = gap_filled("filled", sent.clone()).unwrap();
    let [Control::SourceGapFilled(stored)] = filled.controls.as_slice() else { panic!("{filled:?}") };
    assert_eq!(wire_gap_filled(13, stored), proto::SourceGapFilled { log_seq: 13, ..sent });

    for state in [proto::SourceState::Up, proto::SourceState::Down] {
        let sent = proto::SourceStatus {
            source: "feed-1".into(),
            venue: "XTST".into(),
            symbols: vec!["A".into()],
            state: state.into(),
            change_time: wire().start_time,
            detail: "maintenance".into(),
            log_seq: 0,
        };
        let status = status("status", sent.clone()).unwrap();
        let [Control::SourceStatus(stored)] = status.controls.as_slice() else { panic!("{status:?}") };
        assert_eq!(wire_status(14, stored), proto::SourceStatus { log_seq: 14, ..sent });
    }
}

#[test]
fn every_broken_field_is_named() {
    let broken = proto::SourceGap {
        source: "a b".into(),
        venue: String::new(),
        symbols: vec!["A".into(), "*".into()],
        start_time: Some(prost_types::Timestamp { seconds: 5, nanos: -1 }),
        last_source_seq: Some(6),
        cause: 99,
        detail: "x".repeat(257),
        ..wire()
    };
    let fields = ["source", "venue", "symbols[1]", "start_time", "last_source_seq", "cause", "detail"];
    assert_eq!(violated(gap("gap", broken)), fields.map(|field| format!("gap.{field}")));

    let inverted = proto::SourceGap { end_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }), ..wire() };
    assert_eq!(violated(gap("gap", inverted)), ["gap.end_time"]);
    let alone = proto::SourceGap { first_source_seq: None, ..wire() };
    assert_eq!(violated(gap("gap", alone)), ["gap.last_source_seq"]);
    let many = proto::SourceGap { symbols: vec!["A".into(); 1_001], ..wire() };
    assert_eq!(violated(gap("gap", many)), ["gap.symbols"]);
    assert!(gap("gap", proto::SourceGap { symbols: vec!["A".into(); 1_000], ..wire() }).is_ok());
    let untold = proto::SourceStatus { source: "s".into(), venue: "V".into(), ..proto::SourceStatus::default() };
    assert_eq!(violated(status("status", untold)), ["status.state"]);
    let zero = proto::SourceGapFilled {
        source: "s".into(),
        venue: "V".into(),
        gap_log_seq: Some(0),
        ..proto::SourceGapFilled::default()
    };
    assert_eq!(violated(gap_filled("filled", zero)), ["filled.gap_log_seq"]);
}

#[test]
fn watermarks_name_a_venue_and_a_time_that_is_not_far_ahead() {
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 5 });
    let wire = |venue: &str, complete_time| proto::Watermark { venue: venue.into(), complete_time };
    let limit = UnixNanos::new(10_000_000_005).ok();
    let taken = watermark("watermark", wire("XTST", at(10)), limit).unwrap();
    let [Control::Watermark { venue, time }] = taken.controls.as_slice() else { panic!("{taken:?}") };
    assert_eq!((venue.as_str(), time.nanos()), ("XTST", 10_000_000_005));
    assert!(watermark("watermark", wire("XTST", at(11)), None).is_ok());
    let cases = [
        (wire("", at(1)), "watermark.venue"),
        (wire("XTST", None), "watermark.complete_time"),
        (wire("XTST", at(-1)), "watermark.complete_time"),
        (wire("XTST", at(11)), "watermark.complete_time"),
    ];
    for (wire, field) in cases {
        assert_eq!(violated(watermark("watermark", wire.clone(), limit)), [field], "{wire:?}");
    }
}
