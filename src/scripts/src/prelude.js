// What a script finds beside ECMAScript: Buffer, TextEncoder, TextDecoder, console, module and exports. atob and btoa are the
// engine's. Evaluated once in each context, before the script; gives what the engine calls itself, which a script cannot
// replace. `write` takes a line for the log.
(function (write) {
  "use strict";
  const { apply } = Reflect;
  const { min } = Math;
  const stringify = JSON.stringify;
  const Time = Date;
  const { freeze, isFrozen, getOwnPropertyDescriptor } = Object;
  const { ownKeys } = Reflect;

  // Text <-> bytes.

  function utf8(text) {
    const out = [];
    for (let i = 0; i < text.length; i++) {
      // A lone half of a surrogate pair is no character (U+FFFD).
      let c = text.codePointAt(i);
      if (c > 0xffff) i++;
      else if (c >= 0xd800 && c < 0xe000) c = 0xfffd;
      if (c < 0x80) out.push(c);
      else if (c < 0x800) out.push(0xc0 | (c >> 6), 0x80 | (c & 63));
      else if (c < 0x10000) out.push(0xe0 | (c >> 12), 0x80 | ((c >> 6) & 63), 0x80 | (c & 63));
      else out.push(0xf0 | (c >> 18), 0x80 | ((c >> 12) & 63), 0x80 | ((c >> 6) & 63), 0x80 | (c & 63));
    }
    return out;
  }

  // The Encoding Standard's UTF-8 decoder: each part that cannot be one is U+FFFD, or an error if `fatal`.
  function fromUtf8(bytes, fatal) {
    let out = "", need = 0, point = 0, lower = 0x80, upper = 0xbf;
    const bad = () => {
      if (fatal) throw new TypeError("these bytes are no UTF-8");
      out += "\ufffd";
    };
    for (let i = 0; i < bytes.length; i++) {
      const b = bytes[i];
      if (need === 0) {
        if (b < 0x80) out += String.fromCharCode(b);
        else if (b >= 0xc2 && b <= 0xdf) { need = 1; point = b & 31; }
        else if (b >= 0xe0 && b <= 0xef) {
          if (b === 0xe0) lower = 0xa0;
          if (b === 0xed) upper = 0x9f;
          need = 2;
          point = b & 15;
        } else if (b >= 0xf0 && b <= 0xf4) {
          if (b === 0xf0) lower = 0x90;
          if (b === 0xf4) upper = 0x8f;
          need = 3;
          point = b & 7;
        } else bad();
        continue;
      }
      if (b < lower || b > upper) {
        need = 0;
        lower = 0x80;
        upper = 0xbf;
        bad();
        i--;
        continue;
      }
      lower = 0x80;
      upper = 0xbf;
      point = (point << 6) | (b & 63);
      if (--need === 0) out += String.fromCodePoint(point);
    }
    if (need > 0) bad();
    return out;
  }

  function units(text, size) {
    const out = [];
    for (let i = 0; i < text.length; i++) {
      const c = text.charCodeAt(i);
      out.push(c & 0xff);
      if (size === 2) out.push(c >> 8);
    }
    return out;
  }

  function hex(text) {
    const out = [];
    for (let i = 0; i + 1 < text.length; i += 2) {
      const pair = text.slice(i, i + 2);
      // As Node: what follows the first pair that is no hexadecimal is ignored.
      if (!/^[0-9a-fA-F]{2}$/.test(pair)) break;
      out.push(parseInt(pair, 16));
    }
    return out;
  }

  function base64(text) {
    const clean = text.replace(/-/g, "+").replace(/_/g, "/").replace(/[^A-Za-z0-9+/]/g, "");
    return units(atob(clean.length % 4 === 1 ? clean.slice(0, -1) : clean), 1);
  }

  function encode(text, encoding) {
    switch (String(encoding ?? "utf8").toLowerCase()) {
      case "utf8": case "utf-8": return utf8(text);
      case "hex": return hex(text);
      case "base64": case "base64url": return base64(text);
      case "ascii": case "latin1": case "binary": return units(text, 1);
      case "ucs2": case "ucs-2": case "utf16le": case "utf-16le": return units(text, 2);
      default: throw new TypeError("Unknown encoding: " + encoding);
    }
  }

  function latin1(bytes, mask) {
    let out = "";
    for (let i = 0; i < bytes.length; i++) out += String.fromCharCode(bytes[i] & mask);
    return out;
  }

  function decode(bytes, encoding) {
    switch (String(encoding ?? "utf8").toLowerCase()) {
      case "utf8": case "utf-8": return fromUtf8(bytes, false);
      case "hex": {
        let out = "";
        for (let i = 0; i < bytes.length; i++) out += (bytes[i] < 16 ? "0" : "") + bytes[i].toString(16);
        return out;
      }
      case "base64": return btoa(latin1(bytes, 0xff));
      case "base64url":
        return btoa(latin1(bytes, 0xff)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
      case "ascii": return latin1(bytes, 0x7f);
      case "latin1": case "binary": return latin1(bytes, 0xff);
      case "ucs2": case "ucs-2": case "utf16le": case "utf-16le": {
        let out = "";
        for (let i = 0; i + 1 < bytes.length; i += 2) out += String.fromCharCode(bytes[i] | (bytes[i + 1] << 8));
        return out;
      }
      default: throw new TypeError("Unknown encoding: " + encoding);
    }
  }

  // What of Node's Buffer codecs use.

  let viewOf;

  class Buffer extends Uint8Array {
    #view;

    constructor(value, encoding, length) {
      if (typeof value === "string") super(encode(value, encoding));
      else super(value, encoding, length);
    }

    static from(value, encoding, length) {
      if (typeof value === "string") return new Buffer(encode(value, encoding));
      if (value instanceof ArrayBuffer) return new Buffer(value, encoding, length);
      if (value && value.type === "Buffer" && Array.isArray(value.data)) return new Buffer(value.data);
      if (value === null || typeof value !== "object") {
        throw new TypeError("Buffer.from takes text, bytes or a list of them");
      }
      return new Buffer(value);
    }

    static of(...bytes) { return new Buffer(bytes); }

    static alloc(size, fill, encoding) {
      const made = new Buffer(Number(size));
      return fill === undefined ? made : made.fill(fill, 0, made.length, encoding);
    }

    static allocUnsafe(size) { return new Buffer(Number(size)); }

    static isBuffer(value) { return value instanceof Buffer; }

    static isEncoding(name) {
      try { encode("", name); return true; } catch { return false; }
    }

    static byteLength(value, encoding) {
      return typeof value === "string" ? encode(value, encoding).length : value.byteLength;
    }

    static concat(list, total) {
      const length = total ?? list.reduce((sum, each) => sum + each.length, 0);
      const out = new Buffer(length);
      let at = 0;
      for (const each of list) {
        if (at >= length) break;
        const part = each.length > length - at ? each.subarray(0, length - at) : each;
        out.set(part, at);
        at += part.length;
      }
      return out;
    }

    static compare(a, b) {
      for (let i = 0; i < min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
      return a.length === b.length ? 0 : a.length < b.length ? -1 : 1;
    }

    get parent() { return this.buffer; }
    get offset() { return this.byteOffset; }

    // Node's shares its bytes, unlike that of Uint8Array.
    slice(from, to) { return this.subarray(from, to); }

    toString(encoding, from, to) {
      const part = from === undefined && to === undefined ? this : this.subarray(from ?? 0, to);
      return decode(part, encoding);
    }

    toJSON() { return { type: "Buffer", data: Array.from(this) }; }
    equals(other) { return Buffer.compare(this, other) === 0; }
    compare(other) { return Buffer.compare(this, other); }

    fill(value, from, to, encoding) {
      if (typeof from === "string") { encoding = from; from = 0; to = this.length; }
      const bytes = typeof value === "string" ? encode(value, encoding) : typeof value === "number" ? [value] : value;
      from = from ?? 0;
      to = min(to ?? this.length, this.length);
      for (let i = from; i < to && bytes.length > 0; i++) this[i] = bytes[(i - from) % bytes.length];
      return this;
    }

    write(text, at, length, encoding) {
      if (typeof at === "string") { encoding = at; at = 0; length = undefined; }
      else if (typeof length === "string") { encoding = length; length = undefined; }
      at = at ?? 0;
      const bytes = encode(text, encoding);
      const count = min(bytes.length, length ?? Infinity, this.length - at);
      for (let i = 0; i < count; i++) this[at + i] = bytes[i];
      return count;
    }

    copy(target, at, from, to) {
      at = at ?? 0;
      const part = this.subarray(from ?? 0, to ?? this.length);
      const count = min(part.length, target.length - at);
      if (count > 0) target.set(part.subarray(0, count), at);
      return count > 0 ? count : 0;
    }

    indexOf(value, from, encoding) {
      if (typeof value === "number") return super.indexOf(value & 0xff, from);
      const wanted = typeof value === "string" ? encode(value, encoding) : value;
      for (let i = from ?? 0; i + wanted.length <= this.length; i++) {
        let same = 0;
        while (same < wanted.length && this[i + same] === wanted[same]) same++;
        if (same === wanted.length) return i;
      }
      return -1;
    }

    includes(value, from, encoding) { return this.indexOf(value, from, encoding) >= 0; }

    #swap(size) {
      if (this.length % size !== 0) throw new RangeError("Buffer size must be a multiple of " + size * 8 + "-bits");
      for (let i = 0; i < this.length; i += size) super.subarray(i, i + size).reverse();
      return this;
    }

    swap16() { return this.#swap(2); }
    swap32() { return this.#swap(4); }
    swap64() { return this.#swap(8); }

    static {
      viewOf = (buffer) => (buffer.#view ??= new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength));
    }
  }

  const define = (name, value) => {
    Object.defineProperty(Buffer.prototype, name, { value, writable: true, configurable: true, enumerable: false });
    // Node has both spellings: readUInt8 and readUint8.
    if (name.includes("UInt")) define(name.replace("UInt", "Uint"), value);
  };

  const numbers = [
    ["Int8", "Int8", 1], ["UInt8", "Uint8", 1], ["Int16", "Int16", 2], ["UInt16", "Uint16", 2],
    ["Int32", "Int32", 4], ["UInt32", "Uint32", 4], ["BigInt64", "BigInt64", 8], ["BigUInt64", "BigUint64", 8],
    ["Float", "Float32", 4], ["Double", "Float64", 8],
  ];
  for (const [name, kind, size] of numbers) {
    for (const [ending, little] of size === 1 ? [["", true]] : [["LE", true], ["BE", false]]) {
      const get = DataView.prototype["get" + kind], set = DataView.prototype["set" + kind];
      define("read" + name + ending, function (at) {
        return apply(get, viewOf(this), [at ?? 0, little]);
      });
      define("write" + name + ending, function (value, at) {
        apply(set, viewOf(this), [at ?? 0, value, little]);
        return (at ?? 0) + size;
      });
    }
  }

  // Numbers of 1 to 6 bytes.
  function within(buffer, at, size) {
    if (!(size >= 1 && size <= 6)) throw new RangeError("a number has 1 to 6 bytes, not " + size);
    if (!(at >= 0 && at + size <= buffer.length)) throw new RangeError("Index out of range: " + at);
  }
  for (const little of [true, false]) {
    const ending = little ? "LE" : "BE";
    const unsigned = function (at, size) {
      within(this, at, size);
      let value = 0;
      for (let i = 0; i < size; i++) value = value * 256 + this[little ? at + size - 1 - i : at + i];
      return value;
    };
    const write = function (value, at, size) {
      within(this, at, size);
      if (value < 0) value += 2 ** (8 * size);
      for (let i = 0; i < size; i++) {
        this[little ? at + i : at + size - 1 - i] = value % 256;
        value = Math.floor(value / 256);
      }
      return at + size;
    };
    define("readUInt" + ending, unsigned);
    define("readInt" + ending, function (at, size) {
      const value = apply(unsigned, this, [at, size]);
      return value >= 2 ** (8 * size - 1) ? value - 2 ** (8 * size) : value;
    });
    define("writeUInt" + ending, write);
    define("writeInt" + ending, write);
  }

  class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(text) { return new Uint8Array(utf8(text === undefined ? "" : String(text))); }
  }

  class TextDecoder {
    #fatal; #keepsMark; #encoding;

    constructor(label, options) {
      const name = String(label ?? "utf-8").toLowerCase();
      const names = { "utf8": "utf-8", "utf-8": "utf-8", "ascii": "latin1", "us-ascii": "latin1", "latin1": "latin1",
        "iso-8859-1": "latin1", "utf-16le": "utf-16le" };
      if (!Object.hasOwn(names, name)) throw new RangeError("TextDecoder does not know " + name);
      this.#encoding = names[name];
      this.#fatal = Boolean(options?.fatal);
      this.#keepsMark = Boolean(options?.ignoreBOM);
    }

    get encoding() { return this.#encoding; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#keepsMark; }

    decode(input) {
      if (input === undefined) return "";
      const bytes = ArrayBuffer.isView(input)
        ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength)
        : new Uint8Array(input);
      const text = this.#encoding === "utf-8" ? fromUtf8(bytes, this.#fatal) : decode(bytes, this.#encoding);
      return !this.#keepsMark && text.startsWith("\ufeff") ? text.slice(1) : text;
    }
  }

  function shown(value) {
    if (typeof value === "string") return value;
    if (value instanceof Error) return String(value);
    if (typeof value !== "object" || value === null) return String(value);
    return stringify(value) ?? String(value);
  }
  const line = (...values) => write(values.map(shown).join(" "));
  const console = { log: line, info: line, debug: line, warn: line, error: line, trace: line };

  const module = { exports: {} };
  const given = { Buffer, TextEncoder, TextDecoder, console, module, exports: module.exports };
  for (const name of Object.keys(given)) {
    Object.defineProperty(globalThis, name, {
      value: given[name], writable: true, configurable: true, enumerable: false,
    });
  }

  // Freezes all values in a list, and what is in them, before a call could have changed any of it. Gives the list.
  function frozen(list) {
    const waiting = [list];
    for (let i = 0; i < waiting.length; i++) {
      const value = waiting[i];
      const isObject = typeof value === "function" || (typeof value === "object" && value !== null);
      if (!isObject || isFrozen(value)) continue;
      for (const key of ownKeys(value)) waiting.push(getOwnPropertyDescriptor(value, key).value);
      if (i > 0) freeze(value);
    }
    return list;
  }

  return {
    freeze: frozen,
    list: (...bytes) => bytes,
    plain: Object.prototype,
    // TS013's input of decodeUplink.
    uplink: (fPort, ms, ...bytes) => ({ bytes, fPort, recvTime: new Time(ms), variables: {} }),
    // What `decode` and `encode` are told of the device.
    context: (device, fPort, ms) => ({ device, fPort, recvTime: new Time(ms) }),
    // The bytes from `at` on, which are not copied.
    view: (bytes, at) => new Buffer(bytes.buffer, at),
    time: (value) => new Time(value),
  };
})
