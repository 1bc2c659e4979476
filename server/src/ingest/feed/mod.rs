//! Feeds: sources of ticks inside the server.

pub mod demo;
