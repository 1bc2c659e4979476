//! ListMovingAverages beside the oracle: simple means over prices of ticks, or closes of final bars.
//!
//! Exponential ones need more than 128 bits, and are compared with big integers beside their code.

use std::collections::VecDeque;

use tapefeed_proto::v1 as proto;
use tapefeed_tests::exact::{half_even, of_decimal, plain, text, to_decimal};
use tapefeed_tests::values::timestamp;
use tapefeed_tests::values::unix_nano;

use super::oracle::{self, Log};
use super::questions::{position, span_of};

/// Compares the first page of an answer with the log up to its position.
pub fn check(log: &Log, request: &proto::ListMovingAveragesRequest, answer: &proto::ListMovingAveragesResponse) {
    let span = span_of(&request.start_time, &request.end_time);
    let as_of = position(&answer.as_of);
    let all = log.of(&request.venue, &request.symbol, as_of);
    // Where each price belongs in the range, when it ends, its position and itself.
    let mut prices: Vec<(i64, i64, u64, i128)> = Vec::new();
    match &request.bar_interval {
        None => prices.extend(all.iter().map(|tick| (tick.time, tick.time, tick.log_seq, tick.price))),
        Some(interval) => {
            let bars = oracle::bars(log, &all, as_of, interval.seconds * 1_000_000_000);
            for bar in bars.iter().filter(|bar| bar.state() == proto::BarState::Final) {
                let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map_or(0, unix_nano);
                let close = bar.close_price.as_ref().map_or(0, of_decimal);
                prices.push((time(&bar.start_time), time(&bar.end_time), bar.revision, close));
            }
        }
    }
    let window = request.window_count as usize;
    let (mut last, mut sum) = (VecDeque::new(), 0);
    let mut expected = Vec::new();
    for (at, end, log_seq, price) in prices {
        last.push_back(price);
        sum += price;
        if last.len() > window {
            sum -= last.pop_front().unwrap_or(0);
        }
        if last.len() == window && span.has(at) {
            expected.push(proto::MovingAveragePoint {
                end_time: Some(timestamp(end)),
                log_seq,
                average_price: text(half_even(sum, window as i128)),
                price: Some(to_decimal(price)),
            });
        }
    }
    let page_size = request.page_size as usize;
    let told = answer
        .points
        .iter()
        .map(|point| proto::MovingAveragePoint { average_price: plain(&point.average_price), ..point.clone() });
    let told: Vec<_> = told.collect();
    if answer.next_page_token.is_empty() {
        assert!(expected.len() <= page_size, "{request:?}: {} points, and no next page", expected.len());
        assert_eq!(told, expected, "{request:?}");
    } else {
        assert!(told.len() <= page_size && expected.starts_with(&told), "{request:?}");
    }
}
