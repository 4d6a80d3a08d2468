//! CoAP gateway: RFC 7252 message layer, Observe, /ps and /mqtt resources.
