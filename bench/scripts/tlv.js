// What many LoRaWAN sensors send: channel, type, value, as often as there are values. Written for the bench; 11 to 33 bytes.
var TYPES = {
  0x01: { name: "battery", size: 1, scale: 1 },
  0x67: { name: "temperature", size: 2, scale: 0.1, signed: true },
  0x68: { name: "humidity", size: 1, scale: 0.5 },
  0x73: { name: "pressure", size: 2, scale: 0.1 },
  0x7d: { name: "co2", size: 2, scale: 1 },
  0x88: { name: "position", size: 9 },
};

function number(bytes, at, size, signed) {
  var value = 0;
  for (var i = 0; i < size; i++) value = value * 256 + bytes[at + i];
  var limit = Math.pow(2, 8 * size);
  return signed && value >= limit / 2 ? value - limit : value;
}

function decodeUplink(input) {
  var bytes = input.bytes;
  var data = {};
  for (var at = 0; at + 2 <= bytes.length; ) {
    var channel = bytes[at++];
    var type = TYPES[bytes[at++]];
    if (!type || at + type.size > bytes.length) {
      return { errors: ["unknown type at byte " + (at - 1)] };
    }
    var key = type.name + (channel > 1 ? "_" + channel : "");
    if (type.name === "position") {
      data[key] = {
        latitude: number(bytes, at, 3, true) / 10000,
        longitude: number(bytes, at + 3, 3, true) / 10000,
        altitude: number(bytes, at + 6, 3, true) / 100,
      };
    } else {
      data[key] = Math.round(number(bytes, at, type.size, type.signed) * type.scale * 10) / 10;
    }
    at += type.size;
  }
  return { data: data, warnings: data.battery < 10 ? ["battery is low"] : [] };
}
