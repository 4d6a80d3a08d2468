// One request with the package coap: `node client.mjs FOLDER '{"method": …, "host": …, "port": …, "pathname": …}'`, the package
// installed in FOLDER. The payload is read from standard input. Prints each response, and each notification, as a line of JSON.

import { createRequire } from 'node:module';

const [folder, words] = process.argv.slice(2);
const coap = createRequire(`${folder}/package.json`)('coap');
const { count = 1, ...options } = JSON.parse(words);
const { observe } = options;

const pieces = [];
for await (const piece of process.stdin) pieces.push(piece);

const print = (response, payload) => console.log(JSON.stringify({
  code: response.code,
  format: response.headers['Content-Format'] ?? null,
  payload: payload.toString('base64'),
}));

const request = coap.request(options);
const body = Buffer.concat(pieces);
// Block 0 of 1,024 bytes; it does the rest then.
if (body.length > 1024) request.setOption('Block1', Buffer.from([6]));
request.on('error', (error) => { console.error(error); process.exit(1); });
request.on('response', (response) => {
  if (!observe) {
    print(response, response.payload);
    // Not before all of it was written.
    process.stdout.write('', () => process.exit(0));
    return;
  }
  let seen = 0;
  response.on('data', (payload) => {
    print(response, payload);
    seen += 1;
    if (seen === count) {
      response.close(true);
      setTimeout(() => process.exit(0), 500);
    }
  });
});
request.end(body);
