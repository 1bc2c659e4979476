//! What every call passes before it reaches a service, and every answer on its way out.
//!
//! From the outside in: [`cors`] for pages on this machine, gRPC-Web, [`measure`] for the metrics, then the [`guard`],
//! which holds each call to the limits of its [`method`](methods) and gives every status its reason.

pub mod cors;
pub mod guard;
pub mod measure;
pub mod methods;
mod request;
mod response;
mod span;

#[cfg(test)]
mod tests;
