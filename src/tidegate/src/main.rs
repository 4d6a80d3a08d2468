//! The Tidegate IoT gateway.
fn main() {}
