use num_bigint::BigInt;
use proptest::prelude::*;

use super::*;
use crate::domain::chunk::{cuts, decode, encode};
use crate::domain::samples::{any_history, walk};
use crate::domain::wide::tests::{big, small};

/// The same statistics from all ticks at once, in arbitrary precision and without a shared line of code.
fn oracle(ticks: &[Tick]) -> Statistics {
    let units = |value: Decimal| BigInt::from(value.mantissa()) * BigInt::from(10).pow((value.exponent() + 18) as u32);
    let wide = |sum: BigInt| small(&sum).unwrap();
    let traded: Vec<&Tick> = ticks.iter().filter(|tick| tick.quantity.is_some_and(Decimal::is_positive)).collect();
    let quantity = |tick: &Tick| units(tick.quantity.unwrap());
    let extreme = |sign: i32| {
        let best = ticks.iter().min_by_key(|tick| (units(tick.price) * sign, tick.event_time, tick.log_seq));
        best.map(PricePoint::of)
    };
    let quantities = ticks.iter().filter_map(|tick| tick.quantity);
    let spans = ticks
        .windows(2)
        .map(|pair| units(pair[0].price) * (BigInt::from(pair[1].event_time.nanos()) - pair[0].event_time.nanos()));
    Statistics {
        totals: Totals {
            count: ticks.len() as u64,
            price_sum: wide(ticks.iter().map(|tick| units(tick.price)).sum()),
            volume_count: traded.len() as u64,
            volume: wide(traded.iter().map(|tick| quantity(tick)).sum()),
            notional: wide(traded.iter().map(|tick| units(tick.price) * quantity(tick)).sum()),
            low: extreme(1),
            high: extreme(-1),
            first: ticks.first().map(PricePoint::of),
            last: ticks.last().map(PricePoint::of),
            price_decimals: ticks.iter().map(|tick| tick.price.decimals()).max().unwrap_or(0),
            quantity_decimals: quantities.map(Decimal::decimals).max().unwrap_or(0),
        },
        integral: wide(spans.sum()),
    }
}

fn pushed(ticks: &[Tick]) -> Statistics {
    let mut statistics = Statistics::default();
    ticks.iter().for_each(|tick| statistics.push(tick));
    statistics
}

/// Splits ticks at any places.
fn parts<'a>(ticks: &'a [Tick], places: &[proptest::sample::Index]) -> Vec<&'a [Tick]> {
    let mut bounds: Vec<usize> = places.iter().map(|place| place.index(ticks.len() + 1)).collect();
    bounds.extend([0, ticks.len()]);
    bounds.sort_unstable();
    bounds.windows(2).map(|pair| &ticks[pair[0]..pair[1]]).collect()
}

fn any_places() -> impl Strategy<Value = Vec<proptest::sample::Index>> {
    proptest::collection::vec(any::<proptest::sample::Index>(), 0..6)
}

proptest! {
    #[test]
    fn parts_append_to_the_statistics_of_the_whole(ticks in any_history(60), places in any_places()) {
        let expected = oracle(&ticks);
        prop_assert_eq!(&pushed(&ticks), &expected);
        let parts: Vec<Statistics> = parts(&ticks, &places).into_iter().map(pushed).collect();
        let mut from_the_left = Statistics::default();
        parts.iter().for_each(|part| from_the_left.append(part));
        prop_assert_eq!(&from_the_left, &expected);
        let mut from_the_right = Statistics::default();
        for part in parts.iter().rev() {
            let later = std::mem::replace(&mut from_the_right, part.clone());
            from_the_right.append(&later);
        }
        prop_assert_eq!(&from_the_right, &expected);
    }

    #[test]
    fn totals_add_up_in_any_order(
        (ticks, shuffled) in any_history(60).prop_flat_map(|ticks| (Just(ticks.clone()), Just(ticks).prop_shuffle())),
        places in any_places(),
    ) {
        let mut totals = Totals::default();
        for part in parts(&shuffled, &places) {
            let mut of_part = Totals::default();
            part.iter().for_each(|tick| of_part.add(tick));
            totals.merge(&of_part);
        }
        prop_assert_eq!(totals, oracle(&ticks).totals);
    }

    #[test]
    fn columns_sum_up_like_ticks(ticks in any_history(80), bounds: (proptest::sample::Index, proptest::sample::Index)) {
        let mut whole = Statistics::default();
        for cut in cuts(&ticks, 80) {
            let ticks = &ticks[cut];
            let chunk = decode(&encode(ticks), ticks[0].instrument).unwrap();
            let (a, b) = (bounds.0.index(ticks.len() + 1), bounds.1.index(ticks.len() + 1));
            let range = a.min(b)..a.max(b);
            prop_assert_eq!(Statistics::of_range(&chunk, range.clone()), oracle(&ticks[range]));
            whole.append(&Statistics::of_chunk(&chunk));
        }
        prop_assert_eq!(whole, oracle(&ticks));
    }

    #[test]
    fn blobs_round_trip(ticks in any_history(20)) {
        let statistics = pushed(&ticks);
        prop_assert_eq!(Statistics::decode(&statistics.encode()), Ok(statistics));
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..150)) {
        prop_assert!(Statistics::decode(&bytes).is_err());
    }

    #[test]
    fn changed_blobs_under_a_right_checksum_are_plausible_or_refused(
        ticks in any_history(20),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut blob = pushed(&ticks).encode();
        blob.truncate(blob.len() - 4);
        for (index, byte) in changes {
            let index = index.index(blob.len());
            blob[index] = byte;
        }
        let checksum = crc32c::crc32c(&blob);
        blob.extend_from_slice(&checksum.to_le_bytes());
        if let Ok(statistics) = Statistics::decode(&blob) {
            // Whatever is accepted adds up without overflow.
            let mut sum = statistics.totals.clone();
            sum.merge(&statistics.totals);
            prop_assert_eq!(big(sum.notional), big(statistics.totals.notional) * 2);
        }
    }
}

#[test]
fn nothing_has_empty_statistics() {
    let nothing = Statistics::default();
    assert_eq!(oracle(&[]), nothing);
    assert_eq!(Statistics::decode(&nothing.encode()), Ok(nothing.clone()));
    let some = pushed(&walk(3, 1));
    for (mut sum, other) in [(nothing.clone(), &some), (some.clone(), &nothing)] {
        sum.append(other);
        assert_eq!(sum, some);
    }
}

#[test]
fn products_past_128_bits_are_summed_one_by_one() {
    let mut ticks = walk(3, 1);
    ticks.sort_by_key(Tick::key);
    for tick in &mut ticks {
        tick.price = Decimal::new(i64::MIN, -4).unwrap();
        tick.quantity = Some(Decimal::new(i64::MAX, -4).unwrap());
    }
    let chunk = decode(&encode(&ticks), ticks[0].instrument).unwrap();
    let sums_of_first = |count: usize| {
        let quantities = chunk.quantity_mantissas().map(|quantities| &quantities[..count]);
        let prices = &chunk.price_mantissas()[..count];
        ColumnSums::of(prices, quantities)
    };
    assert!(sums_of_first(3).is_none());
    assert!(sums_of_first(1).is_some());
    assert_eq!(Statistics::of_chunk(&chunk), oracle(&ticks));
}

#[test]
fn sums_are_right_on_both_sides_of_64_and_128_bits() {
    for price_bits in 0..64 {
        for quantity_bits in 0..64 {
            for count in [1, 2, 3, 64] {
                let price = ((1_u64 << price_bits) - 1).cast_signed();
                let quantity = ((1_u64 << quantity_bits) - 1).cast_signed();
                for prices in [vec![price; count], vec![-price - 1; count], [price, -price].repeat(count)] {
                    let quantities = vec![quantity; prices.len()];
                    let Some(sums) = ColumnSums::of(&prices, Some(&quantities)) else {
                        assert!(price_bits + quantity_bits + count.ilog2() >= 125, "{price_bits} {quantity_bits}");
                        continue;
                    };
                    let sums = sums.widen(-18, -18);
                    let (mut price_sum, mut volume, mut notional) = (I256::ZERO, I256::ZERO, I256::ZERO);
                    for &price in &prices {
                        price_sum += I256::from_i128(price.into());
                        volume += I256::from_i128(quantity.into());
                        notional += I256::product(price.into(), quantity.into());
                    }
                    assert_eq!((sums.price_sum, sums.volume, sums.notional), (price_sum, volume, notional));
                }
            }
        }
    }
}

#[test]
fn a_quantity_below_zero_counts_as_none() {
    let mut ticks = walk(4, 1);
    ticks.sort_by_key(Tick::key);
    ticks[1].quantity = Some(Decimal::new(-1_000_000, 2).unwrap());
    let chunk = decode(&encode(&ticks), ticks[0].instrument).unwrap();
    assert_eq!(Statistics::of_chunk(&chunk), oracle(&ticks));
    assert_eq!(pushed(&ticks), oracle(&ticks));
}

#[test]
fn ten_billion_worst_case_ticks_have_room() {
    let ten_billion = 10_000_000_000;
    let notional = I256::product(MAX_UNITS, -MAX_UNITS).checked_mul_u64(ten_billion).unwrap();
    assert!(notional.checked_add(notional).and_then(|sum| sum.checked_add(notional)).is_some());
    let a_lifetime = I256::product(MAX_UNITS, i64::MAX.into());
    assert!(a_lifetime.checked_mul_u64(ten_billion).is_some());
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_blob_is_detected() {
    let blob = pushed(&walk(50, 1)).encode();
    assert!(blob.len() <= 100, "{} bytes", blob.len());
    for bit in 0..blob.len() * 8 {
        let mut damaged = blob.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Statistics::decode(&damaged).is_err(), "bit {bit}");
    }
    for length in 0..blob.len() {
        assert!(Statistics::decode(&blob[..length]).is_err(), "cut at {length}");
    }
}
