// What is tried with mqtt.js, the same under Node and in a browser: `connect(url, options)` comes from where it runs.
// Each test is a sentence; it throws when it fails.

export async function dialogue(connect, url) {
  const tests = {
    'every quality of service arrives once and in order': async (use) => {
      const [pub, sub] = [await use(), await use()];
      for (const qos of [0, 1, 2]) {
        await sub.client.subscribeAsync(`js/${qos}/+`, { qos });
        for (let i = 0; i < 100; i++) await pub.client.publishAsync(`js/${qos}/a`, `${i}`, { qos });
        const got = await sub.take(100);
        equal(got.map((m) => m.text), Array.from({ length: 100 }, (_, i) => `${i}`));
        equal(new Set(got.map((m) => m.packet.qos)), new Set([qos]));
      }
    },
    'a retained message waits for a subscriber': async (use) => {
      const [pub, sub] = [await use(), await use()];
      await pub.client.publishAsync('js/kept', 'value', { qos: 1, retain: true });
      await sub.client.subscribeAsync('js/kept', { qos: 1 });
      const [message] = await sub.take(1);
      equal([message.text, message.packet.retain], ['value', true]);
      await pub.client.publishAsync('js/kept', '', { qos: 1, retain: true });
    },
    'bytes and properties arrive as they were': async (use) => {
      const [pub, sub] = [await use(), await use()];
      await sub.client.subscribeAsync('js/props', { qos: 1 });
      const bytes = Uint8Array.from({ length: 70000 }, (_, i) => i % 251);
      const properties = { contentType: 'application/octet-stream', responseTopic: 'js/answer',
        userProperties: { a: '1' } };
      // mqtt.js takes a Buffer, which a browser lacks: what was received is one.
      await sub.client.publishAsync('js/props', 'x');
      const Buffer = (await sub.take(1))[0].payload.constructor;
      await pub.client.publishAsync('js/props', Buffer.from(bytes), { qos: 1, properties });
      const [message] = await sub.take(1);
      equal(Array.from(message.payload), Array.from(bytes));
      const found = message.packet.properties;
      equal([found.contentType, found.responseTopic, found.userProperties.a],
        [properties.contentType, properties.responseTopic, '1']);
    },
    'a session resumes with what came meanwhile': async (use) => {
      const kept = { clientId: `js-${Math.random()}`, clean: false, properties: { sessionExpiryInterval: 60 } };
      const pub = await use();
      const first = await use(kept);
      await first.client.subscribeAsync('js/resume', { qos: 1 });
      await first.client.endAsync();
      await pub.client.publishAsync('js/resume', 'waited', { qos: 1 });
      const second = await use(kept);
      equal(second.connack.sessionPresent, true);
      equal((await second.take(1))[0].text, 'waited');
    },
    'a will is sent for who is cut off': async (use) => {
      const sub = await use();
      await sub.client.subscribeAsync('js/will', { qos: 1 });
      const device = await use({ will: { topic: 'js/will', payload: 'gone', qos: 1 } });
      device.client.stream.destroy();
      device.client.end(true);
      equal((await sub.take(1))[0].text, 'gone');
    },
    'version 3.1.1 works as well': async (use) => {
      const one = await use({ protocolVersion: 4 });
      await one.client.subscribeAsync('js/old', { qos: 2 });
      await one.client.publishAsync('js/old', 'text', { qos: 2 });
      equal((await one.take(1))[0].text, 'text');
    },
  };
  const results = {};
  for (const [name, test] of Object.entries(tests)) {
    const opened = [];
    const use = async (options = {}) => {
      const device = await open(connect, url, options);
      opened.push(device);
      return device;
    };
    try {
      await within(20000, test(use), name);
      results[name] = 'ok';
    } catch (error) {
      results[name] = `${error.message ?? error}`;
    }
    for (const device of opened) device.client.end(true);
  }
  return results;
}

// A connected client with a queue of its messages.
function open(connect, url, options) {
  return within(10000, new Promise((resolve, reject) => {
    const client = connect(url, { protocolVersion: 5, reconnectPeriod: 0, connectTimeout: 9000, ...options });
    const waiting = [];
    let wake = () => {};
    client.on('message', (topic, payload, packet) => {
      waiting.push({ topic, payload, text: payload.toString(), packet });
      wake();
    });
    const take = async (count) => {
      while (waiting.length < count) await new Promise((done) => { wake = done; });
      return waiting.splice(0, count);
    };
    client.once('connect', (connack) => resolve({ client, connack, take }));
    client.once('error', reject);
    client.once('close', () => reject(new Error('closed before CONNACK')));
  }), `connect ${url}`);
}

function within(ms, promise, what) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms));
  return Promise.race([promise, late]);
}

function equal(found, wanted) {
  const text = (value) => JSON.stringify(value instanceof Set ? [...value] : value);
  if (text(found) !== text(wanted)) throw new Error(`${text(found).slice(0, 300)} in place of ${text(wanted).slice(0, 300)}`);
}
