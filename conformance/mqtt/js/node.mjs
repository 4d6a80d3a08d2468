// Runs the dialogue under Node: `node node.mjs URL CA FOLDER`, with mqtt.js installed in FOLDER; prints its results as JSON.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dialogue } from './dialogue.mjs';

const [url, ca, folder] = process.argv.slice(2);
const mqtt = createRequire(`${folder}/package.json`)('mqtt');
const connect = (address, options) => mqtt.connect(address, { ca: readFileSync(ca), ...options });
console.log(JSON.stringify(await dialogue(connect, url)));
process.exit(0);
