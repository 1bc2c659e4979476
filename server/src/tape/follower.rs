//! Reading the log forward from a position: from the hub, or from the store where the hub does not reach.
/// being written
#[derive(Debug)]
pub struct Follower;
/// being written
#[derive(Debug)]
pub struct FollowError;
