use tonic_types::StatusExt as _;

use super::*;
use crate::domain::{Epoch, UnixNanos};

fn cursor() -> Cursor {
    Cursor { epoch: Epoch(7), position: 42 }
}

/// One refusal for every reason of the contract.
fn all() -> Vec<Refusal> {
    let facts =
        EpochFacts { epoch: Epoch(7), fork: Some((Epoch(6), 41)), oldest: Some(cursor()), newest: Some(cursor()) };
    let violations = || {
        let mut violations = Violations::default();
        violations.add("rows.ticks[17].price", "is required");
        violations
    };
    vec![
        Refusal::field("symbol", "must not be empty"),
        Refusal::message_malformed("it is cut off"),
        Refusal::instrument_unknown("NYSE", "IBM"),
        Refusal::range_inverted(UnixNanos::MAX, UnixNanos::MIN),
        Refusal::page_token_invalid("it is broken"),
        Refusal::cursor_invalid("cursor"),
        Refusal::cursor_expired(cursor()),
        Refusal::epoch_changed(facts),
        Refusal::no_data("no tick has a quantity above zero"),
        Refusal::producer_fenced("feed-1"),
        Refusal::producer_unknown("feed-1"),
        Refusal::batch_invalid(violations(), 8),
        Refusal::batch_out_of_order(8),
        Refusal::batch_conflict(7, 8),
        Refusal::queue_full(),
        Refusal::store_unavailable(),
        Refusal::file_malformed("run-1", "the header has no price").with("line", 1),
        Refusal::import_conflict("run-1", "the same bytes are known with other options"),
        Refusal::run_exists("run-1"),
        Refusal::run_unknown("run-1"),
        Refusal::run_cancelled("run-1"),
        Refusal::action_not_supported(),
        Refusal::not_served("SubscribeBars"),
        Refusal::method_unknown("/tapefeed.v1.HistoryService/Nope"),
        Refusal::limit_exceeded("request_bytes", 65_536, Some(70_000)),
        Refusal::slow_consumer(cursor()),
        Refusal::stream_expired(Some(cursor())),
        Refusal::shutting_down(Some(cursor())),
        Refusal::deadline_exceeded("the call took longer than its deadline"),
        Refusal::cancelled(),
        Refusal::internal("SELECT secret FROM /var/lib/tapefeed.db"),
    ]
}

#[test]
fn every_status_carries_its_reason_and_what_the_contract_says() {
    let mut seen = std::collections::BTreeSet::new();
    for refusal in all() {
        let name = refusal.reason_name();
        seen.insert(name);
        let status = Status::from(refusal);
        let details = status.get_error_details();
        let info = details.error_info().expect("every status has ErrorInfo");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (name, "tapefeed"));
        assert!(is_named(&status));
        assert!(status.details().len() <= MAX_DETAILS_BYTES, "{name}");
        assert_ne!(status.code(), Code::Unknown);
        let retries = matches!(status.code(), Code::Unavailable) || name == "QUEUE_FULL";
        assert_eq!(details.retry_info().is_some(), retries, "{name}");
        let found_nothing = name.ends_with("_UNKNOWN") && status.code() == Code::NotFound;
        assert_eq!(details.resource_info().is_some(), found_nothing, "{name}");
        assert_eq!(details.quota_failure().is_some(), name == "LIMIT_EXCEEDED");
    }
    for value in 1..=33 {
        let reason = ErrorReason::try_from(value).expect("33 reasons");
        let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
        let later = ["UNAUTHENTICATED", "NOT_PERMITTED"].contains(&name);
        assert!(later || seen.contains(name), "{name} is never made");
    }
}

#[test]
fn internal_tells_an_id_and_nothing_else() {
    let status = Status::from(Refusal::internal("SELECT secret FROM /var/lib/tapefeed.db"));
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("secret"));
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.metadata.len(), 1);
    assert!(status.message().contains(&info.metadata["error_id"]));

    let corrupt = StoreError::Corrupt { table: "chunks", row: "17".into(), problem: "checksum".into() };
    let status = Status::from(Refusal::from(corrupt));
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("chunks"));
    let status = Status::from(Refusal::from(StoreError::Unavailable("disk is full".into())));
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!status.message().contains("disk"));
}

#[test]
fn cursors_in_metadata_are_base64_with_padding() {
    let status = Status::from(Refusal::cursor_expired(cursor()));
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    let bytes = BASE64.decode(&metadata["oldest_cursor"]).unwrap();
    assert_eq!(Cursor::decode(&bytes), Ok(cursor()));
    assert_eq!(metadata["oldest_log_seq"], "43");
}

#[test]
fn details_stay_small_whatever_the_input() {
    let long = "\u{e9}".repeat(4_000);
    let mut violations = Violations::default();
    for _ in 0..30 {
        violations.add(&long, &long);
    }
    let status = Status::from(Refusal::batch_invalid(violations, 1).with("echo", &long));
    assert!(status.details().len() <= MAX_DETAILS_BYTES);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["violation_count"], "30");
    assert!(!details.bad_request().unwrap().field_violations.is_empty());
    assert!(Refusal::no_data(long).message().len() <= MAX_TEXT_BYTES);
}

#[test]
fn statuses_of_the_transport_get_a_name() {
    let name = |code, message, known| Refusal::of_transport(code, message, "/tapefeed.v1.X/Y", known).reason_name();
    let decode = "failed to decode Protobuf message: invalid wire type value: 7";
    assert_eq!(name(Code::Unimplemented, "", false), "METHOD_UNKNOWN");
    assert_eq!(name(Code::Unimplemented, "", true), "NOT_SERVED");
    assert_eq!(name(Code::Internal, decode, true), "MESSAGE_MALFORMED");
    assert_eq!(name(Code::Internal, "Missing request message.", true), "MESSAGE_MALFORMED");
    assert_eq!(name(Code::Internal, "something else", true), "INTERNAL");
    assert_eq!(name(Code::Unknown, "", true), "INTERNAL");
    assert_eq!(name(Code::OutOfRange, "", true), "LIMIT_EXCEEDED");
    assert_eq!(name(Code::Cancelled, "", true), "CANCELLED");
}
