//! What `/metrics` says, series by series.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::http;

/// One scrape.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// As it was sent.
    pub text: String,
    /// Values by series, written with its labels as in the text.
    pub series: BTreeMap<String, f64>,
    /// The kind of each family, by its name.
    pub kinds: BTreeMap<String, String>,
    /// Families with words.
    pub helped: BTreeSet<String>,
}

impl Scrape {
    /// Scrapes a server in the classic text format.
    ///
    /// # Panics
    ///
    /// If that is not what it gets.
    pub async fn of(address: SocketAddr) -> Scrape {
        let answer = http::get(address, "/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", answer.head);
        Scrape::read(answer.text())
    }

    fn read(text: String) -> Scrape {
        let mut scrape =
            Scrape { text: String::new(), series: BTreeMap::new(), kinds: BTreeMap::new(), helped: BTreeSet::new() };
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').expect("a name and a kind");
                let before = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is described twice");
            } else if let Some(helped) = line.strip_prefix("# HELP ") {
                let (name, words) = helped.split_once(' ').expect("a name and words");
                assert!(words.len() > 3, "{line}");
                scrape.helped.insert(name.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                assert_eq!(scrape.series.insert(series.to_owned(), value), None, "{series} is there twice");
            }
        }
        scrape.text = text;
        scrape
    }

    /// The value of a series, written with its labels.
    ///
    /// # Panics
    ///
    /// If there is no such series.
    pub fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is missing in:\n{}", self.text))
    }

    /// The family of a series: its name, without what a histogram adds.
    pub fn family<'a>(&self, series: &'a str) -> &'a str {
        let name = series.split('{').next().unwrap_or(series);
        let parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| name.strip_suffix(suffix));
        parts.into_iter().find(|name| self.kinds.contains_key(*name)).unwrap_or(name)
    }
}
