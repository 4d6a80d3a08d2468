//! The gateways of this binary. To add one, add a folder under `gateways/` and a line here.

use std::sync::Arc;

use codecs::Library;
use gateway::Factory;
use gateway::config::Section;
use runtime::config::Carrier;

/// One gateway.
pub(crate) struct Kind {
    /// Its section in the configuration, and its protocol's name.
    pub(crate) name: &'static str,
    /// What its listeners can be; the first one is what they are without a word.
    pub(crate) carriers: &'static [Carrier],
    /// Reads what its section says beside listeners, and gives what reads its own keys of a listener.
    pub(crate) read: fn(&mut Section<'_>, &Arc<Library>) -> PerListener,
    /// Prefix of the topics of a listener that says nothing of it.
    pub(crate) mountpoint: &'static str,
}

/// What makes the machines of a listener, from its section.
pub(crate) type PerListener = Box<dyn Fn(&mut Section<'_>) -> Arc<dyn Factory>>;

/// Of a gateway whose listeners have no keys of their own.
fn same(factory: impl Factory + 'static) -> PerListener {
    let factory: Arc<dyn Factory> = Arc::new(factory);
    Box::new(move |_| factory.clone())
}

/// All of them, in the order of their sections.
pub(crate) const ALL: &[Kind] = &[
    Kind {
        name: "mqtt",
        carriers: &[Carrier::Stream],
        mountpoint: "",
        read: |s, _| same(mqtt::MqttFactory::new(mqtt::Config::read(s))),
    },
    Kind {
        name: "coap",
        carriers: &[Carrier::Datagram, Carrier::Stream],
        mountpoint: "",
        read: |s, _| same(coap::CoapFactory::new(coap::Config::read(s), crate::run::random())),
    },
    Kind {
        name: "mqtt_sn",
        carriers: &[Carrier::Datagram],
        mountpoint: "",
        read: |s, _| {
            let config = mqtt_sn::Config::read(s);
            Box::new(move |s| Arc::new(mqtt_sn::MqttSnFactory::new(config.at(s))))
        },
    },
    Kind {
        name: "tcp",
        carriers: &[Carrier::Stream, Carrier::Datagram],
        mountpoint: "tcp/",
        read: |_, library| {
            let (library, random) = (library.clone(), crate::run::random());
            Box::new(move |s| {
                let config = tcp::Config::read(s, &library);
                Arc::new(tcp::TcpFactory::new(config, library.clone(), random.clone()))
            })
        },
    },
];
