//! Durable tables and queues with group commit.
