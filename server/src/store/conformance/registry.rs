//! Instruments.

use std::collections::BTreeMap;

use super::*;
use crate::domain::{Instrument, InstrumentId, Symbol, Venue};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("ids are dense from 1, stay, and come back in the order asked", dense_ids),
        case("concurrent registrations agree", concurrent_registrations),
    ]
}

fn name(venue: &str, symbol: &str) -> (Venue, Symbol) {
    (Venue::new(venue).unwrap(), Symbol::new(symbol).unwrap())
}

fn ids(instruments: &[Instrument]) -> Vec<u32> {
    instruments.iter().map(|instrument| instrument.id.0).collect()
}

async fn dense_ids(fixture: Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.register(&[]).await.unwrap(), []);
    assert_eq!(store.instruments(InstrumentId(0)).await.unwrap(), []);
    let first = store.register(&[name("V", "A"), name("V", "B"), name("V", "A"), name("W", "A")]).await.unwrap();
    assert_eq!(ids(&first), [1, 2, 1, 3]);
    let more = store.register(&[name("W", "A"), name("v", "a"), name("V", "B"), name("W", "B")]).await.unwrap();
    assert_eq!(ids(&more), [3, 4, 2, 5]);
    assert_eq!((more[1].venue.as_str(), more[1].symbol.as_str()), ("v", "a"));
    let store = fixture.reopen(store).await;
    assert_eq!(ids(&store.instruments(InstrumentId(0)).await.unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(store.instruments(InstrumentId(3)).await.unwrap(), [more[1].clone(), more[3].clone()]);
    assert_eq!(store.instruments(InstrumentId(5)).await.unwrap(), []);
    assert_eq!(store.instruments(InstrumentId(u32::MAX)).await.unwrap(), []);
    assert_eq!(ids(&store.register(&[name("X", "X"), name("V", "A")]).await.unwrap()), [6, 1]);
}

async fn concurrent_registrations(fixture: Fixture) {
    let store = fixture.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8_usize {
        let store = store.clone();
        tasks.spawn(async move {
            let mut known = Vec::new();
            for number in 0..10 {
                let names: Vec<_> =
                    (0..5).map(|next| name("V", &format!("S{}", (number * 3 + next * task) % 40))).collect();
                known.extend(store.register(&names).await.unwrap());
            }
            known
        });
    }
    let mut by_id = BTreeMap::new();
    for instrument in tasks.join_all().await.concat() {
        let known = by_id.entry(instrument.id).or_insert_with(|| instrument.clone());
        assert_eq!(*known, instrument);
    }
    let listed = store.instruments(InstrumentId(0)).await.unwrap();
    assert_eq!(ids(&listed), (1..=listed.len() as u32).collect::<Vec<_>>());
    assert_eq!(listed, by_id.into_values().collect::<Vec<_>>());
}
