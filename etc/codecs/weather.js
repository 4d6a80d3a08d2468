// A weather station that sends lines of text, and a checksum as NMEA 0183 has it:
//
//   $WS-0042,21.5,48,1013.2,3.4*0D
//    station, temperature in °C, humidity in %, pressure in hPa, wind in m/s; what is not measured is empty
//
// The listener's framing cuts the lines, takes "$" and the checksum away and refuses what was damaged on the way, so that
// here arrives `WS-0042,21.5,48,1013.2,3.4*`. This is a payload codec: codecs/README.md walks through it.

function decodeUplink(input) {
  const text = String.fromCharCode(...input.bytes);
  const fields = text.replace(/\*$/, "").split(",");
  if (fields.length !== 5) {
    return { errors: [`${fields.length} fields, and a line has 5`] };
  }
  const data = { station: fields[0] };
  const warnings = [];
  ["temperature", "humidity", "pressure", "wind"].forEach((name, i) => {
    const value = Number(fields[i + 1]);
    if (fields[i + 1] === "") warnings.push(`no ${name}`);
    else if (Number.isNaN(value)) warnings.push(`${name} is no number: ${fields[i + 1]}`);
    else data[name] = value;
  });
  return { data, warnings };
}

// {"interval": 60}: report every 60 seconds. The framing adds "$", the checksum and the line's end.
function encodeDownlink(input) {
  const seconds = input.data.interval;
  if (!Number.isInteger(seconds) || seconds < 10 || seconds > 3600) {
    return { errors: ["interval must be a whole number of seconds from 10 to 3600"] };
  }
  return { bytes: Array.from(`SET,INT,${seconds}*`, (c) => c.charCodeAt(0)), fPort: 1 };
}
