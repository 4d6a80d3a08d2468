//! The gateways of this binary. To add one, add a folder under `gateways/` and a line here.

use std::sync::Arc;

use gateway::Factory;
use gateway::config::Section;
use runtime::config::Carrier;

/// One gateway.
pub(crate) struct Kind {
    /// Its section in the configuration, and its protocol's name.
    pub(crate) name: &'static str,
    /// What its listeners can be; the first one is what they are without a word.
    pub(crate) carriers: &'static [Carrier],
    /// Reads what its section says beside listeners.
    pub(crate) read: fn(&mut Section<'_>) -> Arc<dyn Factory>,
}

/// All of them, in the order of their sections.
pub(crate) const ALL: &[Kind] = &[
    Kind {
        name: "mqtt",
        carriers: &[Carrier::Stream],
        read: |s| Arc::new(mqtt::MqttFactory::new(mqtt::Config::read(s))),
    },
    Kind {
        name: "coap",
        carriers: &[Carrier::Datagram, Carrier::Stream],
        read: |s| Arc::new(coap::CoapFactory::new(coap::Config::read(s), crate::run::random())),
    },
    Kind {
        name: "mqtt_sn",
        carriers: &[Carrier::Datagram],
        read: |s| Arc::new(mqtt_sn::MqttSnFactory::new(mqtt_sn::Config::read(s))),
    },
];
