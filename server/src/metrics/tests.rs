use super::*;

#[test]
fn both_formats_say_the_same() {
    let metrics = Metrics::new();
    metrics.ingest.stored(false, 2, 30, 5_000_000_000);
    metrics.spans_dropped_are(|| 7);
    metrics.observe(|page| page.gauges("tapefeed_some", "Some", "kind", [("a", 1.5), ("b", 2.0)]));
    let open = metrics.text(Format::OpenMetrics);
    let classic = metrics.text(Format::Text);
    for text in [&open, &classic] {
        assert!(text.contains("tapefeed_ticks_appended_total{origin=\"live\"} 30\n"), "{text}");
        assert!(text.contains("tapefeed_batches_appended_total{origin=\"backfill\"} 0\n"), "{text}");
        assert!(text.contains("tapefeed_some{kind=\"a\"} 1.5\n"), "{text}");
        assert!(text.contains("tapefeed_spans_dropped_total 7\n"), "{text}");
    }
    assert!(open.contains("# TYPE tapefeed_ticks_appended counter\n"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(classic.contains("# TYPE tapefeed_ticks_appended_total counter\n"), "{classic}");
    assert!(!classic.contains("# EOF"), "{classic}");
}

#[test]
fn closing_lets_go_of_what_was_observed() {
    let metrics = Metrics::new();
    let observed = Arc::new(1);
    let (shown, own) = (observed.clone(), metrics.clone());
    metrics.observe(move |page| {
        let _ = &own;
        page.counter("tapefeed_some", "Some", *shown);
    });
    assert!(metrics.text(Format::Text).contains("tapefeed_some_total 1\n"));
    metrics.close();
    assert_eq!(metrics.text(Format::Text), "");
    assert_eq!(Arc::strong_count(&observed), 1);
}

#[test]
fn format_is_what_is_accepted() {
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::Text);
    assert_eq!(Format::accepted(""), Format::Text);
}

#[test]
fn a_group_is_measured_at_its_first_delivery_alone() {
    let metrics = Metrics::new();
    let deliveries = &metrics.ingest.deliveries;
    deliveries.begin(10, 1_000_000_000);
    deliveries.delivered(9, || panic!("it was not announced"));
    deliveries.delivered(10, || 1_250_000_000);
    deliveries.delivered(10, || panic!("it was delivered before"));
    let text = metrics.text(Format::Text);
    assert!(text.contains("tapefeed_delivery_latency_seconds_count 1\n"), "{text}");
    assert!(text.contains("tapefeed_delivery_latency_seconds_sum 0.25\n"), "{text}");
}

#[test]
fn a_reader_is_shown_as_long_as_it_lives() {
    let metrics = Metrics::new();
    let mark = metrics.live.enter(5, 100);
    mark.reached(8);
    mark.took(120);
    assert_eq!(metrics.live.readers(), [(8, 120)]);
    drop(mark);
    assert_eq!(metrics.live.readers(), []);
}

#[test]
fn silence_counts_from_the_last_append_or_the_start() {
    let metrics = Metrics::new();
    metrics.ingest.stored(false, 1, 1, 8_000_000_000);
    // A run's batch of rejected lines alone is no data.
    metrics.ingest.stored(true, 1, 0, 9_000_000_000);
    let silence = metrics.ingest.silence(4_000_000_000, 10_000_000_000);
    assert_eq!(silence, [("live", 2.0), ("backfill", 6.0)]);
}
