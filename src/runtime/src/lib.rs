//! Drivers, sockets, byte layers, clock, metrics: the only crate that does IO.
