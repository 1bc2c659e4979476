use proptest::prelude::*;

use super::*;
use crate::domain::TimeRange;
use crate::domain::samples::{any_history, walk};
use crate::domain::statistics::Statistics;

fn round_trip(ticks: &[Tick]) -> Chunk {
    let bytes = encode(ticks);
    let chunk = decode(&bytes, ticks[0].instrument).unwrap();
    assert_eq!(chunk.ticks().collect::<Vec<_>>(), ticks);
    assert_eq!(chunk, Chunk::from_ticks(ticks));
    assert_eq!(read_back(&bytes, ticks[0].instrument, ticks), Ok(chunk.clone()));
    assert_eq!(StoredChunk::verify(bytes.clone().into()).unwrap().points().as_ref(), Ok(&**chunk.points()));
    assert_eq!(chunk.encode(), bytes);
    chunk
}

/// Bytes with the right checksum over whatever they hold.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&body);
    body.extend_from_slice(&checksum.to_le_bytes());
    body
}

/// Reads bytes under a right checksum in every way; what comes out does not matter.
fn read_everything(body: Vec<u8>) {
    let stored = StoredChunk::verify(sealed(body).into()).unwrap();
    let points = stored.points();
    let Ok(chunk) = stored.decode(InstrumentId(1)) else {
        let _ = stored.prefix(UnixNanos::new(1_700_000_000_000_000_000).unwrap());
        // What damage behind them leaves of the first columns is used.
        if let Ok(points) = points {
            let _ = (Statistics::of_chunk(&points), points.key(points.len() - 1));
        }
        return;
    };
    assert_eq!(points.as_ref(), Ok(&**chunk.points()));
    for index in (0..chunk.len()).step_by(chunk.len().div_ceil(4)) {
        let _ = (chunk.tick(index), stored.prefix(chunk.event_time(index)));
    }
    let _ = stored.prefix(UnixNanos::MAX);
}

fn history(count: usize) -> Vec<Tick> {
    let mut ticks = walk(count, 1);
    ticks.sort_by_key(Tick::key);
    ticks
}

proptest! {
    // Packing is slow without optimization, and each case packs many columns.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_ticks_survive_their_chunks(ticks in any_history(300), most in 10usize..400) {
        let ranges = cuts(&ticks, most);
        let mut covered = 0;
        for range in ranges {
            prop_assert_eq!(range.start, covered);
            prop_assert!(range.len() <= most && !range.is_empty());
            covered = range.end;
            round_trip(&ticks[range]);
        }
        prop_assert_eq!(covered, ticks.len());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes, InstrumentId(1)).is_err());
    }

    #[test]
    fn bytes_that_pass_the_checksum_decode_or_are_refused(
        version in 1u8..=2, bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut body = vec![version];
        body.extend(bytes);
        read_everything(body);
    }

    #[test]
    fn changed_bytes_under_a_right_checksum_decode_or_are_refused(
        ticks in any_history(100),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = encode(&ticks[cuts(&ticks, 100)[0].clone()]);
        body.truncate(body.len() - 4);
        for (index, byte) in changes {
            let index = index.index(body.len());
            body[index] = byte;
        }
        if let Ok(chunk) = decode(&sealed(body), InstrumentId(1)) {
            // Whatever is accepted is a chunk like any other.
            prop_assert_eq!(chunk.ticks().count(), chunk.len());
            prop_assert_eq!(decode(&chunk.encode(), InstrumentId(1)), Ok(chunk));
        }
    }

    #[test]
    fn indexes_are_those_of_a_scan(ticks in any_history(60), at in 0usize..60, offset in -1i64..2) {
        let chunk = round_trip(&ticks[cuts(&ticks, 60)[0].clone()]);
        let key = chunk.key(at % chunk.len());
        let time = UnixNanos::new(key.0.nanos().saturating_add(offset).max(0)).unwrap();
        let key = (time, key.1);
        let keys: Vec<_> = (0..chunk.len()).map(|index| chunk.key(index)).collect();
        prop_assert_eq!(chunk.index_at(time), keys.iter().filter(|each| each.0 < time).count());
        prop_assert_eq!(chunk.index_after(key), keys.iter().filter(|each| **each <= key).count());
        let range = TimeRange::new(Some(time), None).unwrap();
        prop_assert_eq!(chunk.indexes_in(range), chunk.index_at(time)..chunk.len());
        let range = TimeRange::new(None, Some(time)).unwrap();
        prop_assert_eq!(chunk.indexes_in(range), 0..chunk.index_at(time));
    }
}

#[test]
fn a_chunk_holds_no_other_ticks() {
    let mut ticks = history(40);
    ticks[20].trade_id = TradeId::Number(7);
    ticks[21].trade_id = TradeId::text("seven");
    ticks[22].trade_id = TradeId::None;
    ticks[23].quantity = None;
    let chunk = round_trip(&ticks);
    assert!(!chunk.holds(&ticks[1..]) && !chunk.holds(&[]));
    let changes: [fn(&mut Tick); 13] = [
        |tick| tick.instrument = InstrumentId(2),
        |tick| tick.log_seq += 1,
        |tick| tick.event_time = tick.event_time.saturating_add(std::time::Duration::from_nanos(1)),
        |tick| tick.receive_time = tick.receive_time.saturating_add(std::time::Duration::from_nanos(1)),
        |tick| tick.price = Decimal::new(123_456_789, -5).unwrap(),
        |tick| tick.price = Decimal::ZERO,
        |tick| tick.quantity = tick.quantity.map_or(Some(Decimal::ZERO), |_| None),
        |tick| tick.quantity = Some(Decimal::new(987_654_321, -6).unwrap()),
        |tick| tick.side = if tick.side == Side::Buy { Side::Sell } else { Side::Buy },
        |tick| tick.trade_id = if tick.trade_id == TradeId::None { TradeId::Number(0) } else { TradeId::None },
        |tick| tick.trade_id = TradeId::Number(8),
        |tick| tick.trade_id = TradeId::text("eight"),
        |tick| tick.origin = if tick.origin == Origin::Live { Origin::Backfill } else { Origin::Live },
    ];
    for at in 0..ticks.len() {
        for change in changes {
            let mut other = ticks.clone();
            change(&mut other[at]);
            assert!(other == ticks || !chunk.holds(&other), "{:?}", other[at]);
        }
    }
}

#[test]
fn full_chunks_and_thin_ones_survive() {
    for count in [1, 2, 3, 10, 16, 17, 100, 256, 257, 4_096, 10_000] {
        round_trip(&history(count));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_detected() {
    for ticks in [history(20), history(300)] {
        let bytes = encode(&ticks);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, InstrumentId(1)).is_err(), "bit {bit} of {}", bytes.len());
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], InstrumentId(1)).is_err(), "cut at {length} of {}", bytes.len());
        }
    }
}

#[test]
fn a_full_chunk_with_a_flipped_bit_is_refused() {
    let bytes = encode(&history(4_096));
    for bit in (0..bytes.len() * 8).step_by(1_009) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&damaged, InstrumentId(1)), Err(ChunkCorrupt("the checksum differs")));
    }
}

#[test]
fn every_changed_byte_under_a_right_checksum_decodes_or_is_refused() {
    let chunk = Chunk::from_ticks(&history(300));
    for bytes in [chunk.encode(), chunk.encode_in_pages(64)] {
        let body = &bytes[..bytes.len() - 4];
        for index in 0..body.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = body.to_vec();
                damaged[index] ^= change;
                read_everything(damaged);
            }
        }
    }
}

#[test]
fn a_count_past_the_bound_is_refused_before_anything_is_allocated() {
    for version in [1, 2] {
        let mut body = vec![version];
        crate::domain::varint::put(&mut body, MAX_CHUNK_TICKS as u64 + 1);
        body.extend_from_slice(&[0; 64]);
        assert_eq!(decode(&sealed(body), InstrumentId(1)), Err(ChunkCorrupt("the count of ticks is out of range")));
    }
}

#[test]
fn a_chunk_ends_where_exponents_drift_apart() {
    let mut ticks = history(6);
    for (tick, text) in ticks.iter_mut().zip(["1", "0", "100000000000000", "0.0001", "0.000001", "0"]) {
        tick.price = text.parse().unwrap();
    }
    assert_eq!(cuts(&ticks, 100), [0..4, 4..6]);
    assert_eq!(cuts(&ticks, 3), [0..3, 3..6]);
    ticks[1].quantity = Some("0.000000000000000001".parse().unwrap());
    ticks[2].quantity = Some("100".parse().unwrap());
    assert_eq!(cuts(&ticks, 100), [0..2, 2..4, 4..6]);
    assert!(cuts(&[], 10).is_empty());
    for range in cuts(&ticks, 100) {
        round_trip(&ticks[range]);
    }
}

#[test]
fn columns_that_repeat_each_other_are_stored_once() {
    let live = history(4_096);
    let mut stamped = live.clone();
    for (index, tick) in stamped.iter_mut().enumerate() {
        // An import: received and numbered in one go.
        tick.receive_time = UnixNanos::new(1_723_170_000_000_000_000).unwrap();
        tick.log_seq = 1_000 + index as u64;
    }
    let (live, stamped) = (encode(&live).len(), encode(&stamped).len());
    assert!(live <= 25_000, "{live} bytes");
    assert!(stamped <= 12_000, "{stamped} bytes");
}

/// Written by the server before pages had an index, on 22 November 2026: such chunks stay in stores for good.
#[test]
fn a_chunk_of_the_first_version_is_read() {
    let mut ticks = history(600);
    ticks[7].quantity = None;
    ticks[8].trade_id = TradeId::text("eight");
    let stored = StoredChunk::verify(include_bytes!("first_version.bin").as_slice().into()).unwrap();
    let chunk = stored.decode(ticks[0].instrument).unwrap();
    assert!(chunk.holds(&ticks));
    assert_eq!(stored.points().as_ref(), Ok(&**chunk.points()));
    for until in [UnixNanos::MIN, ticks[0].event_time, ticks[300].event_time, UnixNanos::MAX] {
        assert_eq!(stored.prefix(until).unwrap(), decoded_prefix(&chunk, until));
    }
}

/// A day with very many late ticks merges them into one chunk, longer than pco's default page.
#[test]
fn a_chunk_longer_than_a_page_of_pco_survives() {
    let ticks = history((1 << 18) + 5);
    let bytes = encode(&ticks);
    let chunk = decode(&bytes, ticks[0].instrument).unwrap();
    assert!(chunk.ticks().eq(ticks));
}

/// What [`prefix`] must say, by decoding everything.
fn decoded_prefix(chunk: &Chunk, until: UnixNanos) -> Prefix {
    use crate::domain::statistics::Sums;
    let before = chunk.index_at(until);
    let time = |index: usize| (index < chunk.len()).then(|| chunk.event_time(index));
    Prefix {
        sums: Sums::from(&Statistics::of_range(chunk, 0..before).totals),
        last_before: before.checked_sub(1).and_then(time),
        first_after: time(before),
    }
}

/// In pages of so many ticks.
fn prefixes_are_those_of_the_decoded_chunk(ticks: &[Tick], page_ticks: usize, edges: impl Iterator<Item = usize>) {
    let chunk = Chunk::from_ticks(ticks);
    let stored = StoredChunk::verify(chunk.encode_in_pages(page_ticks).into()).unwrap();
    assert_eq!(stored.decode(ticks[0].instrument).unwrap(), chunk);
    for index in edges {
        let at = ticks[index % ticks.len()].event_time.nanos();
        for until in [at.saturating_sub(1).max(0), at, at.saturating_add(1)] {
            let Ok(until) = UnixNanos::new(until) else { continue };
            assert_eq!(stored.prefix(until).unwrap(), decoded_prefix(&chunk, until), "{index} {until:?}");
        }
    }
    for until in [UnixNanos::MIN, UnixNanos::MAX] {
        assert_eq!(stored.prefix(until).unwrap(), decoded_prefix(&chunk, until));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_prefix_is_that_of_the_decoded_chunk(
        ticks in any_history(300), power in 1u32..10, edges in proptest::collection::vec(any::<usize>(), 1..8),
    ) {
        for range in cuts(&ticks, 400) {
            prefixes_are_those_of_the_decoded_chunk(&ticks[range], 1 << power, edges.iter().copied());
        }
    }
}

/// Nobody would see it by decoding.
#[test]
fn a_changed_index_or_length_of_a_page_is_not_read_back() {
    let ticks = history(300);
    let chunk = Chunk::from_ticks(&ticks);
    let bytes = chunk.encode_in_pages(64);
    let mut index = Vec::new();
    Index::put(Index::of(&chunk, 64).as_ref(), &mut index);
    let begin = bytes.windows(index.len()).position(|window| window == index).unwrap();
    // Unit, first byte, size of pages and length of the column of times stand between the index and four lengths.
    let lengths = begin + index.len() + 5;
    assert_eq!(bytes[lengths - 4..lengths - 2], [4, 64]);
    for at in (begin..begin + index.len()).chain(lengths..lengths + 4) {
        let mut body = bytes[..bytes.len() - 4].to_vec();
        body[at] ^= 1;
        assert!(read_back(&sealed(body), ticks[0].instrument, &ticks).is_err(), "byte {at}");
    }
}

#[test]
fn pages_of_which_quantities_are_absent_have_the_prefixes_of_their_ticks() {
    let mut ticks = history(CHUNK_TICKS + 300);
    for (index, tick) in ticks.iter_mut().enumerate() {
        if index % 3 == 0 || (1_000..2_500).contains(&index) {
            tick.quantity = None;
        }
    }
    for page_ticks in [64, 512, codec::PAGE_TICKS] {
        prefixes_are_those_of_the_decoded_chunk(&ticks, page_ticks, (0..ticks.len()).step_by(311));
    }
}

#[test]
fn sums_past_128_bits_have_no_index_and_the_prefixes_of_their_ticks() {
    let mut ticks = history(600);
    for (index, tick) in ticks.iter_mut().enumerate() {
        let near_the_limit = i64::MAX - (index as i64 * 7_919 % 1_000);
        tick.price = Decimal::new(near_the_limit, -4).unwrap();
        tick.quantity = Some(Decimal::new(near_the_limit - 1, -4).unwrap());
    }
    assert_eq!(Index::of(&Chunk::from_ticks(&ticks), 64), None);
    prefixes_are_those_of_the_decoded_chunk(&ticks, 64, (0..ticks.len()).step_by(97));
}

#[test]
fn a_full_chunk_has_the_prefixes_of_its_ticks() {
    let ticks = history(CHUNK_TICKS);
    prefixes_are_those_of_the_decoded_chunk(&ticks, codec::PAGE_TICKS, (0..CHUNK_TICKS).step_by(127));
    // Nobody shares an event time: the column of followers is not there.
    let mut alone = ticks.clone();
    for (index, tick) in alone.iter_mut().enumerate() {
        tick.event_time = UnixNanos::new(1_700_000_000_000_000_000 + index as i64 * 1_000_003).unwrap();
        tick.receive_time = UnixNanos::new(tick.event_time.nanos() + 700 + index as i64 % 13).unwrap();
    }
    prefixes_are_those_of_the_decoded_chunk(&alone, codec::PAGE_TICKS, (0..CHUNK_TICKS).step_by(251));
}
