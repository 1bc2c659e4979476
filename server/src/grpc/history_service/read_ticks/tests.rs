//! What is written is what was stored, in every encoding, however it is cut and resumed.

use std::sync::Arc;

use futures_util::StreamExt as _;
use proptest::prelude::*;
use prost::Message as _;

use super::{MAX_MESSAGE_BYTES, read_ticks};
use crate::domain::{Decimal, InstrumentId, Origin, Side, Tick, TradeId};
use crate::grpc::proto;
use crate::query::Query;
use crate::query::tests::world::{World, at, tick};

/// The bytes before each message.
const PREFIX: usize = 5;

const NAMES: [(&str, &str); 2] = [("A", "X"), ("B", "X")];

fn request(columns: bool, page_token: &str) -> proto::ReadTicksRequest {
    let encoding = if columns { proto::Encoding::Columns } else { proto::Encoding::Rows };
    let page_token = page_token.to_owned();
    proto::ReadTicksRequest { symbol: "X".into(), encoding: encoding.into(), page_token, ..Default::default() }
}

/// All messages after a token, each checked for its frame, its size, and for being what prost would write.
async fn read(query: &Arc<Query>, columns: bool, token: &str) -> Vec<proto::ReadTicksResponse> {
    let stream = read_ticks(query.clone(), request(columns, token)).await.unwrap();
    let messages: Vec<_> = stream.map(Result::unwrap).collect().await;
    let messages = messages.into_iter().map(|bytes| {
        assert_eq!(bytes[..PREFIX], [&[0][..], &((bytes.len() - PREFIX) as u32).to_be_bytes()].concat());
        assert!(bytes.len() - PREFIX <= MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
        let message = proto::ReadTicksResponse::decode(&bytes[PREFIX..]).unwrap();
        assert_eq!(message.encode_to_vec(), bytes[PREFIX..], "what prost writes");
        message
    });
    messages.collect()
}

/// The ticks of a message.
fn ticks(message: &proto::ReadTicksResponse) -> Vec<Tick> {
    use proto::read_ticks_response::Ticks;
    match &message.ticks {
        None => Vec::new(),
        Some(Ticks::Rows(batch)) => batch.ticks.iter().map(of_row).collect(),
        Some(Ticks::Columns(columns)) => of_columns(columns),
    }
}

fn of_row(row: &proto::Tick) -> Tick {
    let decimal = |wire: &proto::Decimal| Decimal::new(wire.mantissa, wire.exponent).unwrap();
    assert_eq!((row.venue.as_str(), row.symbol.as_str()), NAMES[row.instrument_id as usize - 1]);
    Tick {
        instrument: InstrumentId(row.instrument_id),
        log_seq: row.log_seq,
        event_time: row.event_time.unwrap().try_into().unwrap(),
        receive_time: row.receive_time.unwrap().try_into().unwrap(),
        price: decimal(row.price.as_ref().unwrap()),
        quantity: row.quantity.as_ref().map(decimal),
        side: Side::from_code(row.side as u8).unwrap(),
        trade_id: TradeId::new(&row.trade_id).unwrap(),
        origin: if row.origin() == proto::Origin::Backfill { Origin::Backfill } else { Origin::Live },
    }
}

/// Reads columns as their comments say, and nothing else.
fn of_columns(columns: &proto::TickColumns) -> Vec<Tick> {
    let count = columns.instrument_index.len();
    let required = [
        columns.event_time_unix_nano_delta.len(),
        columns.receive_time_unix_nano_delta.len(),
        columns.price_mantissa.len(),
        columns.log_seq_delta.len(),
    ];
    assert!(count > 0 && required.iter().all(|&length| length == count));
    let optional = [
        columns.quantity.len(),
        columns.side.len(),
        columns.trade_id.len(),
        columns.origin.len(),
        columns.trade_number_delta.len(),
    ];
    assert!(optional.iter().all(|&length| length == count || length == 0));
    assert!(columns.trade_id.is_empty() || columns.trade_number_delta.is_empty());
    let (mut event, mut receive, mut seq, mut number) = (0i64, 0i64, 0i64, 0i64);
    let mut prices = vec![0i64; columns.instruments.len()];
    let tick = |index: usize| {
        let entry_index = columns.instrument_index[index] as usize;
        let entry = &columns.instruments[entry_index];
        assert_eq!((entry.venue.as_str(), entry.symbol.as_str()), NAMES[entry.instrument_id as usize - 1]);
        event = event.wrapping_add(columns.event_time_unix_nano_delta[index]);
        receive = receive.wrapping_add(columns.receive_time_unix_nano_delta[index]);
        seq = seq.wrapping_add(columns.log_seq_delta[index]);
        prices[entry_index] = prices[entry_index].wrapping_add(columns.price_mantissa[index]);
        let quantity = columns.quantity.get(index).copied().unwrap_or(0).checked_sub(1);
        let trade_id = match columns.trade_number_delta.get(index) {
            Some(delta) => {
                number = number.wrapping_add(*delta);
                TradeId::Number(number.cast_unsigned())
            }
            None => TradeId::new(columns.trade_id.get(index).map_or("", |id| id)).unwrap(),
        };
        let backfill = columns.origin.get(index) == Some(&proto::Origin::Backfill.into());
        Tick {
            instrument: InstrumentId(entry.instrument_id),
            log_seq: seq.cast_unsigned(),
            event_time: at(event),
            receive_time: at(receive),
            price: Decimal::new(prices[entry_index], entry.price_exponent).unwrap(),
            quantity: quantity.map(|mantissa| Decimal::new(mantissa as i64, entry.quantity_exponent).unwrap()),
            side: Side::from_code(columns.side.get(index).copied().unwrap_or(0) as u8).unwrap(),
            trade_id,
            origin: if backfill { Origin::Backfill } else { Origin::Live },
        }
    };
    (0..count).map(tick).collect()
}

fn sorted(mut ticks: Vec<Tick>) -> Vec<Tick> {
    ticks.sort_by_key(Tick::key);
    ticks
}

async fn check(world: World) {
    let expected = sorted(world.ticks.clone());
    let position = world.ticks.len() as u64;
    let query = world.stop();
    for columns in [false, true] {
        let messages = read(&query, columns, "").await;
        let found: Vec<Tick> = messages.iter().flat_map(ticks).collect();
        assert_eq!(found, expected);
        let (last, others) = messages.split_last().unwrap();
        assert!(others.iter().all(|message| message.as_of.is_empty() && message.now.is_none()));
        let as_of = crate::domain::Cursor::decode(&last.as_of).unwrap();
        assert_eq!((as_of.position, last.now.is_some()), (position, true));
        // Each token goes on right after its message, in either encoding.
        let mut behind = 0;
        for message in &messages {
            behind += ticks(message).len();
            let rest = read(&query, !columns, &message.page_token).await;
            let rest: Vec<Tick> = rest.iter().flat_map(ticks).collect();
            assert_eq!(rest, expected[behind..]);
        }
    }
}

const PRICES: [&str; 6] = ["100.25", "100.5", "0", "-3.75", "0.000000000000000001", "999999999999999"];

fn any_tick() -> impl Strategy<Value = Tick> {
    let quantity =
        prop::sample::select(&[None, Some("0"), Some("1"), Some("0.000000000000000001"), Some("123456789012345")][..]);
    let id = prop_oneof![
        2 => Just(TradeId::None),
        4 => any::<u64>().prop_map(TradeId::Number),
        1 => "[a-z\u{e4}]{1,32}".prop_map(|text| TradeId::new(&text).unwrap())
    ];
    let side = prop::sample::select(&[Side::Unspecified, Side::Buy, Side::Sell][..]);
    let price = prop::sample::select(&PRICES[..]);
    (0usize..2, 0i64..1 << 40, price, quantity, id, side).prop_map(|(index, time, price, quantity, trade_id, side)| {
        Tick { trade_id, side, receive_time: at(time ^ 0xff), ..tick(index, time, price, quantity) }
    })
}

/// Ticks of few kinds, so that columns are also absent.
fn any_ticks() -> impl Strategy<Value = Vec<Tick>> {
    let plain = (any::<bool>(), any::<bool>(), any::<bool>());
    (prop::collection::vec(any_tick(), 0..400), plain).prop_map(|(mut ticks, (ids, sides, quantities))| {
        for (index, tick) in ticks.iter_mut().enumerate() {
            if ids {
                tick.trade_id = TradeId::Number(index as u64 * 7);
            }
            if sides {
                tick.side = Side::Unspecified;
            }
            if quantities {
                tick.quantity = None;
            }
        }
        ticks
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streams_hold_what_was_stored(
        ticks in any_ticks(),
        cuts in prop::collection::vec((0u32..2, 1usize..200, 1usize..150), 0..4),
        repeat in 1usize..6,
        backfill: u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(&NAMES, 1 << 50).await;
            for round in 0..repeat {
                let origin = if backfill >> round & 1 == 1 { Origin::Backfill } else { Origin::Live };
                world.append(ticks.iter().map(|tick| Tick { origin, ..tick.clone() }).collect()).await;
            }
            for (index, take, most) in cuts {
                world.cut(InstrumentId(index + 1), take, most).await;
            }
            world.publish().await;
            check(world).await;
        });
    }
}

#[tokio::test]
async fn an_empty_range_is_one_message_without_ticks() {
    let world = World::new(&NAMES, 50).await;
    let query = world.stop();
    let messages = read(&query, true, "").await;
    assert_eq!(messages.len(), 1);
    assert!(messages[0].ticks.is_none() && !messages[0].as_of.is_empty() && !messages[0].page_token.is_empty());
    assert_eq!(read(&query, false, &messages[0].page_token).await.len(), 1);
}

#[tokio::test]
async fn a_reader_that_pauses_goes_on_at_its_position_whatever_became_of_the_chunks() {
    let mut world = World::new(&NAMES, 1 << 50).await;
    world.append((0..200_000).map(|n| tick(0, n, "1.5", Some("2"))).collect()).await;
    world.cut(InstrumentId(1), 150_000, 1_000).await;
    world.publish().await;
    let expected = world.ticks.clone();
    tokio::time::pause();
    let stream = read_ticks(world.query.clone(), request(false, "")).await.unwrap();
    let mut stream = std::pin::pin!(stream);
    let mut found = Vec::new();
    let mut messages = 0;
    while let Some(message) = stream.next().await {
        let message = proto::ReadTicksResponse::decode(&message.unwrap()[PREFIX..]).unwrap();
        found.extend(ticks(&message));
        messages += 1;
        if messages % 40 == 0 {
            // Longer than the server keeps things at hand, and everything that it looked at goes away.
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            world.append(vec![tick(0, 5, "9", None)]).await;
            world.tidy(InstrumentId(1), 700 + messages).await;
            world.publish().await;
            world.sweep().await;
        }
    }
    assert!(messages > 100, "{messages} messages");
    assert_eq!(found, expected);
}
