//! What every reader of files must hold, whatever the bytes.
