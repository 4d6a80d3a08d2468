//! Dialogue cases and tidy tests against the built binary.
