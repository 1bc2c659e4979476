//! What every writing function of the database is told beside its subject.

use std::sync::{Arc, Mutex};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::rows::to_sql;
use crate::domain::{Clock, Epoch};

/// The first three parameters of a writing function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Whether the database's identity is compared with the epoch's.
    pub(super) check_identity: bool,
    /// The name of the epoch that begins if they differ.
    pub(super) new_epoch: i64,
    /// The time to go by; `None` for the database's own.
    pub(super) now: Option<i64>,
}

/// Where terms come from.
#[derive(Debug)]
pub(super) struct TermsSource {
    pub(super) check_identity: bool,
    clock: Option<Arc<dyn Clock>>,
    /// Locked for one number.
    random: Mutex<SmallRng>,
}

impl TermsSource {
    pub(super) fn new(clock: Option<Arc<dyn Clock>>, seed: u64) -> TermsSource {
        TermsSource { check_identity: false, clock, random: Mutex::new(SmallRng::seed_from_u64(seed)) }
    }

    pub(super) fn now(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.now().nanos())
    }

    /// Terms for a writing that begins now.
    pub(super) fn terms(&self) -> Terms {
        let new_epoch = self.random.lock().expect("no code panics while it draws").random_range(1..=u64::MAX);
        Terms { check_identity: self.check_identity, new_epoch: to_sql(new_epoch), now: self.now() }
    }

    /// Terms for an epoch that begins by request.
    pub(super) fn terms_of(&self, epoch: Epoch) -> Terms {
        Terms { new_epoch: to_sql(epoch.0), ..self.terms() }
    }
}
