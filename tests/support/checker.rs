//! Judges what a subscriber saw against what was published. It shares no code with the server.
//!
//! Trades are recognised by venue, symbol and trade id, which the publisher makes unique.

use std::collections::{HashMap, HashSet};

use tapefeed_proto::v1 as proto;

/// What names a trade: venue, symbol and trade id.
pub type TradeName = (String, String, String);

/// The name of a trade.
pub fn name(tick: &proto::Tick) -> TradeName {
    (tick.venue.clone(), tick.symbol.clone(), tick.trade_id.clone())
}

/// One thing that a subscriber was told, in the order in which it was told, over all its connections.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A tick.
    Tick(proto::Tick),
    /// The notice that positions are missing, first and last.
    Gap(u64, u64),
    /// The claim that everything up to a position has been delivered.
    Complete(u64),
}

/// What went wrong, counted. All zero is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Trades that were published and never came.
    pub lost: usize,
    /// Trades that came again.
    pub doubled: usize,
    /// Ticks that came at or below the position of the tick before.
    pub reordered: usize,
    /// Trades that came with another content than they were published with.
    pub changed: usize,
    /// Trades that nobody published.
    pub invented: usize,
    /// Positions that were passed over without a notice, though the subscription is for everything.
    pub unannounced: usize,
    /// Claims of completeness that a later tick refutes.
    pub early: usize,
}

/// What a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every entry of the log, from position 1: positions are dense.
    Everything,
    /// Some instruments.
    Some,
}

/// Judges a record. `published` holds the trades that the subscription is for.
pub fn judge(published: &[proto::Tick], seen: &[Seen], scope: Scope) -> Findings {
    let mut findings = Findings::default();
    let sent: HashMap<TradeName, &proto::Tick> = published.iter().map(|tick| (name(tick), tick)).collect();
    assert_eq!(sent.len(), published.len(), "the publisher names every trade once");
    let mut came: HashSet<TradeName> = HashSet::new();
    let mut announced: Vec<(u64, u64)> = Vec::new();
    let (mut last, mut complete) = (0, 0);
    for event in seen {
        let tick = match event {
            Seen::Gap(from, to) => {
                announced.push((*from, *to));
                continue;
            }
            Seen::Complete(position) => {
                complete = complete.max(*position);
                continue;
            }
            Seen::Tick(tick) => tick,
        };
        if tick.log_seq <= last {
            findings.reordered += 1;
        }
        if tick.log_seq <= complete {
            findings.early += 1;
        }
        if scope == Scope::Everything {
            let told = |position: &u64| announced.iter().any(|(from, to)| (from..=to).contains(&position));
            let passed = last + 1..tick.log_seq;
            findings.unannounced += passed.filter(|position| !told(position)).count();
        }
        last = last.max(tick.log_seq);
        match sent.get(&name(tick)) {
            None => findings.invented += 1,
            Some(original) => {
                findings.changed += usize::from(!same_content(original, tick));
                findings.doubled += usize::from(!came.insert(name(tick)));
            }
        }
    }
    findings.lost = sent.len() - came.len();
    findings
}

/// Whether a tick is the one that was published. What the server adds does not count.
pub fn same_content(published: &proto::Tick, seen: &proto::Tick) -> bool {
    published.venue == seen.venue
        && published.symbol == seen.symbol
        && published.event_time == seen.event_time
        && (published.receive_time.is_none() || published.receive_time == seen.receive_time)
        && published.price == seen.price
        && published.quantity == seen.quantity
        && published.side == seen.side
        && published.trade_id == seen.trade_id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Vec<proto::Tick> {
        let tick = |number: i64| proto::Tick {
            venue: "V".into(),
            symbol: "S".into(),
            event_time: Some(prost_types::Timestamp { seconds: number / 3, nanos: 7 }),
            price: Some(proto::Decimal { mantissa: number, exponent: -2 }),
            quantity: (number % 2 == 0).then_some(proto::Decimal { mantissa: 1, exponent: 0 }),
            trade_id: number.to_string(),
            ..Default::default()
        };
        (1..=9).map(tick).collect()
    }

    fn faithful() -> Vec<Seen> {
        let stamped = |(index, tick): (usize, proto::Tick)| {
            Seen::Tick(proto::Tick {
                log_seq: index as u64 + 1,
                instrument_id: 1,
                receive_time: Some(prost_types::Timestamp { seconds: 99, nanos: 0 }),
                origin: proto::Origin::Live.into(),
                action: proto::Action::New.into(),
                ..tick
            })
        };
        published().into_iter().enumerate().map(stamped).collect()
    }

    fn judged(seen: &[Seen]) -> Findings {
        judge(&published(), seen, Scope::Everything)
    }

    fn tick(seen: &mut Seen) -> &mut proto::Tick {
        match seen {
            Seen::Tick(tick) => tick,
            other => panic!("{other:?} is no tick"),
        }
    }

    #[test]
    fn a_faithful_stream_has_no_findings() {
        let mut seen = faithful();
        seen.insert(4, Seen::Complete(4));
        seen.push(Seen::Complete(9));
        assert_eq!(judged(&seen), Findings::default());
    }

    #[test]
    fn a_lost_tick_is_found() {
        let mut seen = faithful();
        seen.remove(4);
        let found = judged(&seen);
        assert_eq!(found, Findings { lost: 1, unannounced: 1, ..Default::default() });
        // Without density only the loss shows.
        let found = judge(&published(), &seen, Scope::Some);
        assert_eq!(found, Findings { lost: 1, ..Default::default() });
        // Lost at the end: nothing comes behind it.
        let found = judged(&faithful()[..8]);
        assert_eq!(found, Findings { lost: 1, ..Default::default() });
    }

    #[test]
    fn an_announced_gap_is_a_loss_but_not_a_silent_one() {
        let mut seen = faithful();
        seen.remove(4);
        seen.insert(4, Seen::Gap(5, 5));
        assert_eq!(judged(&seen), Findings { lost: 1, ..Default::default() });
    }

    #[test]
    fn a_doubled_tick_is_found() {
        let mut seen = faithful();
        seen.insert(5, seen[4].clone());
        let found = judged(&seen);
        assert_eq!(found, Findings { doubled: 1, reordered: 1, ..Default::default() });
        // Doubled under a new position.
        let mut seen = faithful();
        let mut again = seen[4].clone();
        tick(&mut again).log_seq = 10;
        seen.push(again);
        assert_eq!(judged(&seen), Findings { doubled: 1, ..Default::default() });
    }

    #[test]
    fn reordered_ticks_are_found() {
        let mut seen = faithful();
        seen.swap(3, 4);
        let found = judged(&seen);
        assert_eq!(found, Findings { reordered: 1, unannounced: 1, ..Default::default() });
    }

    #[test]
    fn changed_content_is_found() {
        let changes: &[fn(&mut proto::Tick)] = &[
            |tick| tick.price = Some(proto::Decimal { mantissa: 0, exponent: 0 }),
            |tick| tick.quantity = Some(proto::Decimal { mantissa: 9, exponent: 0 }),
            |tick| tick.quantity = None,
            |tick| tick.event_time = None,
            |tick| tick.side = proto::Side::Sell.into(),
        ];
        for change in changes {
            let mut seen = faithful();
            change(tick(&mut seen[3]));
            assert_eq!(judged(&seen), Findings { changed: 1, ..Default::default() });
        }
        let mut seen = faithful();
        tick(&mut seen[3]).symbol = "T".into();
        assert_eq!(judged(&seen), Findings { lost: 1, invented: 1, ..Default::default() });
    }

    #[test]
    fn a_claim_of_completeness_that_comes_too_early_is_found() {
        let mut seen = faithful();
        seen.insert(3, Seen::Complete(4));
        assert_eq!(judged(&seen), Findings { early: 1, ..Default::default() });
    }
}
