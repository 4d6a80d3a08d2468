//! Device languages: one file a codec.
