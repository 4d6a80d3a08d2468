//! Embedded MQTT router: topic trie, retained messages, sessions, fan-out; synchronous, no task.
