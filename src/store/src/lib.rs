//! Durable tables and queues with group commit: the place is kept, nothing is stored yet.
//!
//! Sessions, queues and retained messages live in `router`'s memory and end with the process. What will make them outlive
//! it hangs on two seams that exist: the router changes a session in few functions under one lock, and a publish is
//! acknowledged through `gateway::Answer::Published`, which a driver may hand back later than it carried the publish out.
