"""Who uses the devices by MQTT: hears all that they say, and tells them what to do."""

import json
import threading

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import harness


class Watch:
    """A client with a session that outlives the gateway. `heard(topic levels, value)` is called with what comes."""

    def __init__(self, port, heard):
        self.heard, self.ready = heard, threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, "watch", protocol=paho.MQTTv5)
        self.client.reconnect_delay_set(1, 1)
        self.client.max_inflight_messages_set(1000)
        self.client.on_message = self.on_message
        self.client.on_connect = lambda c, *a: c.subscribe("tcp/+/up/#", 1)
        self.client.on_subscribe = lambda *a: self.ready.set()
        expiry = Properties(PacketTypes.CONNECT)
        expiry.SessionExpiryInterval = 600
        self.client.connect(harness.HOST, port, clean_start=False, properties=expiry)
        self.client.loop_start()
        assert self.ready.wait(10), "the subscription is not answered"

    def on_message(self, _client, _data, message):
        levels = message.topic.split("/")
        self.heard(levels[1], levels[3], json.loads(message.payload), message)

    def tell(self, device, kind, value):
        """Publishes a command with QoS 1."""
        payload = value if isinstance(value, str) else json.dumps(value)
        return self.client.publish(f"tcp/{device}/dn/{kind}", payload, 1)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()
