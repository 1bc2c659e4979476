//! Venues, symbols and selectors of requests.

use crate::domain::{NameInvalid, Symbol, Venue};
use crate::grpc::proto;
use crate::grpc::violation::Violations;

/// What stands for all symbols in a selector.
const ALL: &str = "*";

/// Why a symbol of a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolInvalid {
    /// Length or alphabet.
    #[error(transparent)]
    Name(#[from] NameInvalid),
    /// `*` where one symbol is asked.
    #[error("must name one symbol: * is taken in selectors only")]
    All,
}

/// One symbol, exactly.
pub fn symbol(text: &str) -> Result<Symbol, SymbolInvalid> {
    if text == ALL {
        return Err(SymbolInvalid::All);
    }
    Ok(Symbol::new(text)?)
}

/// A venue, or `None` for all venues if the text is empty.
pub fn venue_or_all(text: &str) -> Result<Option<Venue>, NameInvalid> {
    if text.is_empty() {
        return Ok(None);
    }
    Venue::new(text).map(Some)
}

/// A symbol, or `None` for all symbols if the text is `*`.
pub fn symbol_or_all(text: &str) -> Result<Option<Symbol>, NameInvalid> {
    if text == ALL {
        return Ok(None);
    }
    Symbol::new(text).map(Some)
}

/// A venue and a symbol to match; `None` matches all.
pub type Match = (Option<Venue>, Option<Symbol>);

/// The selectors of a request, in its order, at least one and at most `max`. `None` if any is violated.
///
/// More than `max` is not a violation but a limit: the caller checks the length first.
pub fn selectors(violations: &mut Violations, selectors: &[proto::Selector]) -> Option<Vec<Match>> {
    if selectors.is_empty() {
        violations.add("selectors", "at least one: symbol * matches all instruments");
        return None;
    }
    let mut matches = Vec::with_capacity(selectors.len());
    for (index, selector) in selectors.iter().enumerate() {
        let proto::Selector { venue, symbol } = selector;
        let venue = violations.take(format_args!("selectors[{index}].venue"), venue_or_all(venue));
        let symbol = violations.take(format_args!("selectors[{index}].symbol"), symbol_or_all(symbol));
        if let (Some(venue), Some(symbol)) = (venue, symbol) {
            matches.push((venue, symbol));
        }
    }
    (matches.len() == selectors.len()).then_some(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(venue: &str, symbol: &str) -> proto::Selector {
        proto::Selector { venue: venue.into(), symbol: symbol.into() }
    }

    #[test]
    fn names_of_requests_are_one_or_all() {
        assert_eq!(venue_or_all(""), Ok(None));
        assert_eq!(venue_or_all("NYSE"), Ok(Some(Venue::new("NYSE").unwrap())));
        assert!(venue_or_all("NY/SE").is_err());
        assert_eq!(symbol("*"), Err(SymbolInvalid::All));
        assert_eq!(symbol(""), Err(SymbolInvalid::Name(NameInvalid::Empty)));
        assert_eq!(symbol("BTC/USDT"), Ok(Symbol::new("BTC/USDT").unwrap()));
        assert_eq!(symbol_or_all("*"), Ok(None));
        assert!(symbol_or_all("").is_err());
    }

    #[test]
    fn selectors_name_the_index_of_each_violation() {
        let mut violations = Violations::default();
        let wire = [selector("", "*"), selector("N YSE", ""), selector("NYSE", "IBM")];
        assert_eq!(selectors(&mut violations, &wire), None);
        let fields: Vec<_> = violations.first().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["selectors[1].venue", "selectors[1].symbol"]);

        let mut violations = Violations::default();
        assert_eq!(selectors(&mut violations, &[]), None);
        assert_eq!(violations.total(), 1);

        let mut violations = Violations::default();
        let matches = selectors(&mut violations, &[selector("", "*"), selector("NYSE", "IBM")]);
        let nyse = Some(Venue::new("NYSE").unwrap());
        let ibm = Some(Symbol::new("IBM").unwrap());
        assert_eq!(matches, Some(vec![(None, None), (nyse, ibm)]));
    }
}
