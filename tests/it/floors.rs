//! Imports go down only, and siblings do not import each other.
