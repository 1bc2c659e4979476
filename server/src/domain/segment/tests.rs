use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::domain::correction::Values;
use crate::domain::samples::{any_decimal, any_log, any_quantity, any_time, any_trade_id, walk};
use crate::domain::source::{Detail, GapCause, Scope, Source, SourceGap, SourceGapFilled, SourceSeqs, SourceStatus};
use crate::domain::varint;
use crate::domain::{Correction, Decimal, InstrumentId, Side, Symbol, TimeRange, TradeId, UnixNanos, Venue};

fn any_detail() -> impl Strategy<Value = Detail> {
    "[a-zé ]{0,40}".prop_map(|text| Detail::new(&text).unwrap())
}

fn any_scope() -> impl Strategy<Value = Scope> {
    ("[a-z_-]{1,20}", "[A-Z]{1,32}", vec("[A-Z/]{1,64}", 0..4)).prop_map(|(source, venue, symbols)| Scope {
        source: Source::new(&source).unwrap(),
        venue: Venue::new(&venue).unwrap(),
        symbols: symbols.iter().map(|symbol| Symbol::new(symbol).unwrap()).collect(),
    })
}

fn any_extent() -> impl Strategy<Value = (TimeRange, SourceSeqs)> {
    let times = (option::of(any_time()), option::of(any_time()));
    let range = times.prop_map(|(a, b)| TimeRange::new(a, b).or_else(|_| TimeRange::new(b, a)).unwrap());
    let seqs = (option::of(any::<u64>()), option::of(any::<u64>()));
    (range, seqs.prop_map(|(first, last)| SourceSeqs { first, last }))
}

fn any_source_event() -> impl Strategy<Value = Control> {
    let gap = (any_scope(), any_extent(), 0u8..5, any::<bool>(), any_detail()).prop_map(
        |(scope, (range, seqs), cause, recoverable, detail)| {
            let cause = GapCause::from_code(cause).unwrap();
            Control::SourceGap(SourceGap { scope, range, seqs, cause, recoverable, detail })
        },
    );
    let filled =
        (any_scope(), any_extent(), option::of(any::<u64>())).prop_map(|(scope, (range, seqs), gap_log_seq)| {
            Control::SourceGapFilled(SourceGapFilled { scope, range, seqs, gap_log_seq })
        });
    let status = (any_scope(), any::<bool>(), option::of(any_time()), any_detail()).prop_map(
        |(scope, up, change_time, detail)| Control::SourceStatus(SourceStatus { scope, up, change_time, detail }),
    );
    prop_oneof![gap, filled, status]
}

fn any_control() -> impl Strategy<Value = Control> {
    let values = option::of((any_decimal(), any_quantity(), 0u8..3)).prop_map(|values| {
        values.map(|(price, quantity, side)| Values { price, quantity, side: Side::from_code(side).unwrap() })
    });
    let named = any_trade_id().prop_filter("a correction names its trade", |id| *id != TradeId::None);
    let correction = (any::<u32>(), named, (any_time(), any_time()), values).prop_map(
        |(instrument, trade_id, (event_time, receive_time), values)| {
            let instrument = InstrumentId(instrument);
            Control::Correction(Correction { instrument, trade_id, event_time, receive_time, values })
        },
    );
    prop_oneof![
        3 => any_source_event(),
        1 => ("[A-Z]{1,32}", any_time())
            .prop_map(|(venue, time)| Control::Watermark { venue: Venue::new(&venue).unwrap(), time }),
        1 => correction,
        1 => (10u8.., vec(any::<u8>(), 0..40)).prop_map(|(kind, bytes)| Control::Unknown { kind, bytes }),
        1 => (0u8..4, vec(any::<u8>(), 0..4)).prop_map(|(kind, bytes)| Control::Unknown { kind, bytes }),
    ]
}

/// Ticks and other entries, shuffled into dense positions.
fn any_entries(first_seq: u64) -> impl Strategy<Value = Entries> {
    (any_log(first_seq, 60), vec((any_control(), any::<proptest::sample::Index>()), 0..8)).prop_map(
        move |(mut ticks, controls)| {
            let total = ticks.len() + controls.len();
            let mut places: Vec<(usize, Control)> =
                controls.into_iter().map(|(control, place)| (place.index(total), control)).collect();
            places.sort_by_key(|(place, _)| *place);
            // Places that collide move up; the last ones move down again where they leave the range.
            for index in 1..places.len() {
                places[index].0 = places[index].0.max(places[index - 1].0 + 1);
            }
            let mut bound = total;
            for (place, _) in places.iter_mut().rev() {
                bound = (*place).min(bound - 1);
                *place = bound;
            }
            let mut next = 0;
            let taken: Vec<usize> = places.iter().map(|(place, _)| *place).collect();
            for tick in &mut ticks {
                while taken.contains(&next) {
                    next += 1;
                }
                tick.log_seq = first_seq + next as u64;
                next += 1;
            }
            let controls = places.into_iter().map(|(place, control)| (first_seq + place as u64, control)).collect();
            Entries { ticks, controls }
        },
    )
}

fn plain(count: usize) -> Entries {
    let scope = Scope {
        source: Source::new("sim").unwrap(),
        venue: Venue::new("XTST").unwrap(),
        symbols: [Symbol::new("A").unwrap(), Symbol::new("B").unwrap()].into(),
    };
    let mut ticks = walk(count, 3);
    for tick in &mut ticks[count / 2..] {
        tick.log_seq += 1;
    }
    let detail = Detail::new("connection reset").unwrap();
    let change_time = Some(UnixNanos::new(1_723_161_255_000_000_000).unwrap());
    let status = Control::SourceStatus(SourceStatus { scope, up: false, change_time, detail });
    Entries { ticks, controls: vec![(1 + count as u64 / 2, status)] }
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(&bytes);
    bytes[1..5].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A segment whose body is stored as it is, under a right checksum.
fn stored(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![VERSION, 0, 0, 0, 0];
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    sealed(bytes)
}

proptest! {
    #[test]
    fn any_entries_survive(entries in any_entries(1_000), moved in 0u64..1 << 50) {
        let bytes = encode(&entries, 1_000);
        let origin = entries.ticks.first().map_or(Origin::Live, |tick| tick.origin);
        prop_assert_eq!(&decode(&bytes, 1_000, origin).unwrap(), &entries);
        // The bytes hold no absolute position: elsewhere the same entries come out, moved.
        let elsewhere = decode(&bytes, 1_000 + moved, origin).unwrap();
        prop_assert_eq!(elsewhere.len(), entries.len());
        for (here, there) in entries.ticks.iter().zip(&elsewhere.ticks) {
            prop_assert_eq!(here.log_seq + moved, there.log_seq);
        }
        prop_assert_eq!(encode(&elsewhere, 1_000 + moved), bytes);
    }

    #[test]
    fn any_bytes_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes, 1, Origin::Live).is_err());
    }

    #[test]
    fn bodies_that_pass_the_checksum_decode_or_are_refused(body in vec(any::<u8>(), 0..200), first_seq: u64) {
        let _ = decode(&stored(&body), first_seq, Origin::Live);
    }

    #[test]
    fn packed_bodies_that_pass_the_checksum_decode_or_are_refused(packed in vec(any::<u8>(), 0..200), length: u32) {
        let mut bytes = vec![VERSION, 0, 0, 0, 0];
        bytes.extend_from_slice(&(length % (1 << 20)).to_le_bytes());
        bytes.extend_from_slice(&packed);
        let _ = decode(&sealed(bytes), 1, Origin::Live);
    }

    #[test]
    fn changed_bodies_under_a_right_checksum_decode_or_are_refused(
        entries in any_entries(5),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        first_seq in prop_oneof![Just(1), Just(u64::MAX), Just(u64::MAX - 30), any::<u64>()],
    ) {
        let mut body = Vec::new();
        ticks::put(&mut body, &entries.ticks);
        controls::put(&mut body, &entries.controls, 5);
        for (index, byte) in changes {
            let index = index.index(body.len());
            body[index] = byte;
        }
        let _ = decode(&stored(&body), first_seq, Origin::Live);
    }
}

#[test]
fn segments_of_every_size_survive() {
    assert_eq!(decode(&encode(&Entries::default(), 1), 1, Origin::Live), Ok(Entries::default()));
    for count in [1, 2, 3, 10, 100, 1_000, 20_000] {
        let entries = plain(count);
        assert_eq!(decode(&encode(&entries, 1), 1, Origin::Live), Ok(entries));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_detected() {
    for entries in [plain(2), plain(40)] {
        let bytes = encode(&entries, 1);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, 1, Origin::Live).is_err(), "bit {bit} of {}", bytes.len());
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], 1, Origin::Live).is_err(), "cut at {length} of {}", bytes.len());
        }
    }
    let bytes = encode(&plain(5_000), 1);
    for bit in (0..bytes.len() * 8).step_by(1_009) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&damaged, 1, Origin::Live), Err(SegmentCorrupt("the checksum differs")));
    }
}

#[test]
fn entries_of_a_later_version_are_kept_and_skipped() {
    let unknown = |kind, bytes: &[u8]| Control::Unknown { kind, bytes: bytes.to_vec() };
    let mut entries = plain(4);
    entries.controls = vec![(1, unknown(200, b"later")), (2, unknown(201, b"")), (7, unknown(202, &[0; 300]))];
    for (tick, log_seq) in entries.ticks.iter_mut().zip(3..) {
        tick.log_seq = log_seq;
    }
    assert_eq!(decode(&encode(&entries, 1), 1, Origin::Live), Ok(entries));
}

/// What the code before the wider forms encoded at position 1: a gap, its filling and a status, kinds 1 to 3.
const FIRST_FORMS: &[u8] = &[
    0, // no ticks
    3, // other entries
    0, 1, 8, 3, b's', b'i', b'm', 3, 1, 7, 9, // a gap of "sim" from 7 to 9
    0, 2, 6, 3, b's', b'i', b'm', 0, 0, // filled
    0, 3, 8, 3, b's', b'i', b'm', 1, 2, b'u', b'p', // up
];

#[test]
fn source_entries_of_the_first_form_are_read_and_kept() {
    // Whatever their bytes say, their positions count, and they are written again as they were.
    let entries = decode(&stored(FIRST_FORMS), 1, Origin::Live).unwrap();
    let kinds: Vec<_> = entries
        .controls
        .iter()
        .map(|(log_seq, control)| match control {
            Control::Unknown { kind, .. } => (*log_seq, *kind),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(encode(&entries, 1), stored(FIRST_FORMS));
}

#[test]
fn the_bytes_of_source_entries_are_pinned() {
    // Logs hold these bytes: a change needs a new kind.
    let Entries { controls, .. } = plain(2);
    let (kind, bytes) = control_bytes(&controls[0].1);
    let mut expected = b"\x03sim\x04XTST\x02\x01A\x01B\x00\x01".to_vec();
    varint::put(&mut expected, 1_723_161_255_000_000_000);
    expected.extend_from_slice(b"\x10connection reset");
    assert_eq!((kind, bytes), (8, expected));
}

#[test]
fn the_bytes_of_corrections_are_pinned() {
    let time = |nanos| UnixNanos::new(nanos).unwrap();
    let values = Values { price: "1.5".parse().unwrap(), quantity: None, side: Side::Sell };
    let (instrument, trade_id) = (InstrumentId(3), TradeId::Number(7));
    let (event_time, receive_time) = (time(5), time(6));
    let mut correction = Correction { instrument, trade_id, event_time, receive_time, values: Some(values) };
    let bytes = |correction: &Correction| control_bytes(&Control::Correction(correction.clone()));
    assert_eq!(bytes(&correction), (9, vec![3, 1, 7, 5, 6, 1, 2, 0xff, 30]));
    correction.values = Some(Values { quantity: Some(Decimal::ZERO), ..values });
    assert_eq!(bytes(&correction), (9, vec![3, 1, 7, 5, 6, 2, 2, 0xff, 30, 0, 0]));
    correction.values = None;
    assert_eq!(bytes(&correction), (9, vec![3, 1, 7, 5, 6, 0]));
}

#[test]
fn counts_past_their_bounds_are_refused_before_anything_is_allocated() {
    let mut body = Vec::new();
    crate::domain::varint::put(&mut body, MAX_SEGMENT_ENTRIES as u64 + 1);
    assert!(decode(&stored(&body), 1, Origin::Live).is_err());
    let mut body = Vec::new();
    crate::domain::varint::put(&mut body, MAX_SEGMENT_ENTRIES as u64);
    body.extend_from_slice(&[0; 100]);
    assert!(decode(&stored(&body), 1, Origin::Live).is_err());
    let mut bytes = vec![VERSION, 0, 0, 0, 0];
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&sealed(bytes), 1, Origin::Live), Err(SegmentCorrupt("the body is too long")));
}

#[test]
fn the_chain_covers_its_predecessor_and_every_field() {
    let link = Link {
        epoch: Epoch(1),
        first_seq: 2,
        entry_count: 3,
        tick_count: 4,
        append_time: 5,
        backfill: false,
        bytes: b"bytes",
    };
    let base = chain(&[0; 16], link);
    let variants = [
        chain(&[1; 16], link),
        chain(&[0; 16], Link { epoch: Epoch(2), ..link }),
        chain(&[0; 16], Link { first_seq: 3, ..link }),
        chain(&[0; 16], Link { entry_count: 4, ..link }),
        chain(&[0; 16], Link { tick_count: 5, ..link }),
        chain(&[0; 16], Link { append_time: 6, ..link }),
        chain(&[0; 16], Link { backfill: true, ..link }),
        chain(&[0; 16], Link { bytes: b"bites", ..link }),
        chain(&[0; 16], Link { bytes: b"", ..link }),
    ];
    assert_eq!(base, chain(&[0; 16], link));
    for variant in variants {
        assert_ne!(variant, base);
    }
    // Stored chains must stay valid: this value is pinned.
    assert_eq!(base, [18, 240, 163, 20, 75, 62, 251, 30, 232, 224, 205, 44, 105, 195, 255, 2]);
}
