//! The exponent that many decimals can share, so that a column holds mantissas alone.

use super::Decimal;
use super::decimal::POW10;

/// The finest exponent of some decimals, and the mantissas they span there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scale {
    /// `None` while there are only zeros, which have any exponent.
    exponent: Option<i8>,
    least: i64,
    most: i64,
}

impl Scale {
    /// The scale of one decimal.
    pub(super) fn of(value: Decimal) -> Scale {
        let mut scale = Scale::default();
        let fits = scale.widen(value);
        debug_assert!(fits, "one decimal always fits its own exponent");
        scale
    }

    /// The shared exponent; 0 for zeros alone.
    pub(super) fn exponent(&self) -> i8 {
        self.exponent.unwrap_or(0)
    }

    /// Takes one more decimal in; false, with the scale unchanged, when 64 bits do not hold all of them any more.
    #[inline]
    pub(super) fn widen(&mut self, value: Decimal) -> bool {
        match self.exponent {
            Some(exponent) if exponent <= value.exponent() => match value.mantissa_at(exponent) {
                Some(mantissa) => {
                    self.least = self.least.min(mantissa);
                    self.most = self.most.max(mantissa);
                    true
                }
                None => false,
            },
            _ => self.refine(value),
        }
    }

    /// Takes a decimal in that is finer than all before.
    fn refine(&mut self, value: Decimal) -> bool {
        let mantissa = value.mantissa();
        if mantissa == 0 {
            return true;
        }
        let rescaled = match self.exponent {
            None => Some((0, 0)),
            Some(exponent) => POW10
                .get((exponent - value.exponent()) as usize)
                .and_then(|&power| self.least.checked_mul(power).zip(self.most.checked_mul(power))),
        };
        let Some((least, most)) = rescaled else {
            return false;
        };
        *self = Scale { exponent: Some(value.exponent()), least: least.min(mantissa), most: most.max(mantissa) };
        true
    }
}
