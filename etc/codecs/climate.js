// A LoRaWAN sensor of temperature and humidity, in the convention of the LoRa Alliance (TS013) that The Things Network and
// ChirpStack have too: codecs that were published for these run as they are.
//
//   FPort 2, a measurement: battery in 10 mV above 2 V (1), temperature in 0.1 °C, signed (2), humidity in % (1)
//   FPort 3, its settings: interval in minutes (2)
//   to the sensor on FPort 10: interval in minutes (2)

function decodeUplink(input) {
  const b = input.bytes;
  if (input.fPort === 2 && b.length === 4) {
    const data = {
      battery: (200 + b[0]) / 100,
      temperature: (((b[1] << 24) >> 16) | b[2]) / 10,
      humidity: b[3],
    };
    return { data, warnings: data.battery < 2.4 ? ["the battery is low"] : [] };
  }
  if (input.fPort === 3 && b.length === 2) {
    return { data: { interval: (b[0] << 8) | b[1] } };
  }
  return { errors: [`${b.length} bytes on FPort ${input.fPort} mean nothing`] };
}

// The names of TS013's normalised payload, the same for every manufacturer's sensor.
function normalizeUplink(input) {
  if (input.data.temperature === undefined) return { data: {} };
  return {
    data: {
      air: { temperature: input.data.temperature, relativeHumidity: input.data.humidity },
      battery: input.data.battery,
    },
  };
}

function encodeDownlink(input) {
  const minutes = input.data.interval;
  if (!Number.isInteger(minutes) || minutes < 1 || minutes > 1440) {
    return { errors: ["interval must be a whole number of minutes from 1 to 1440"] };
  }
  return { bytes: [minutes >> 8, minutes & 0xff], fPort: 10 };
}

function decodeDownlink(input) {
  return { data: { interval: (input.bytes[0] << 8) | input.bytes[1] } };
}
