/* The electricity meter of etc/codecs/powermeter.js in C, without a library, built with (Debian: clang and lld)
 *
 *   clang --target=wasm32 -O2 -Wall -ffreestanding -nostdlib -Wl,--no-entry \
 *       -Wl,-zstack-size=16384 -o powermeter.wasm etc/codecs/examples/powermeter.c
 *
 * What is exported and imported is the ABI of codecs/README.md. Each connection has an instance of its own, so a static
 * variable is what the codec knows of one device. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(#name))) name

enum { START = 0x68, HELLO = 0x01, READING = 0x02, DONE = 0x03, RELAY = 0x90, INTERVAL = 0x91 };

static u8 input[65536];
static char out[1024];
static u32 used;

u32 EXPORT(tidegate_abi)(void) { return 1; }

u8 *EXPORT(alloc)(u32 len) { return len <= sizeof input ? input : 0; }

/* Text is appended to `out`; what does not fit is left out, and then the host says that it is no JSON. */
static void text(const char *s) {
  while (*s && used < sizeof out) out[used++] = *s++;
}

static void number(u32 n) {
  char digits[11], *at = digits + 10;
  *at = 0;
  do *--at = '0' + n % 10; while (n /= 10);
  text(at);
}

static void signed_number(u32 n) {
  if (n >> 31) text("-");
  number(n >> 31 ? -n : n);
}

/* n / 10 or n / 100. */
static void decimal(u32 n, u32 unit) {
  number(n / unit);
  text(".");
  if (unit == 100 && n % 100 < 10) text("0");
  number(n % unit);
}

static void hex(const u8 *bytes, u32 len) {
  for (u32 i = 0; i < len; i++) {
    char two[3] = {"0123456789abcdef"[bytes[i] >> 4], "0123456789abcdef"[bytes[i] & 15], 0};
    text(two);
  }
}

static u16 crc16(const u8 *bytes, u32 len) {
  u16 crc = 0xffff;
  while (len--) {
    crc ^= *bytes++;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1;
  }
  return crc;
}

/* A frame for the meter, in hexadecimal. */
static void frame(u8 type, const u8 *body, u32 len) {
  u8 bytes[8] = {START, 1 + len, type};
  for (u32 i = 0; i < len; i++) bytes[3 + i] = body[i];
  u16 crc = crc16(bytes, 3 + len);
  bytes[3 + len] = crc;
  bytes[4 + len] = crc >> 8;
  hex(bytes, 5 + len);
}

static u64 result(void) { return (u64)(u32)out << 32 | used; }

static u64 error(u32 consumed, u32 at, const char *why) {
  used = 0;
  text("{");
  if (consumed) text("\"consumed\":"), number(consumed), text(",");
  text("\"error\":{\"at\":"), number(at), text(",\"why\":\""), text(why), text("\"}}");
  return result();
}

static u32 u16_at(const u8 *b) { return b[0] << 8 | b[1]; }

static u32 u32_at(const u8 *b) { return u16_at(b) << 16 | u16_at(b + 2); }

u64 EXPORT(decode)(const u8 *buf, u32 len) {
  if (buf[0] != START) {
    u32 next = 1;
    while (next < len && buf[next] != START) next++;
    return error(next, 0, "a frame begins with 68");
  }
  if (len < 2 || len < buf[1] + 4u) return 0;
  u32 end = buf[1] + 2;
  if (crc16(buf, end) != (buf[end] | buf[end + 1] << 8)) {
    return error(end + 2, end, "another CRC would be right");
  }
  const u8 *b = buf + 3;
  u32 type = buf[2], body = buf[1] - 1;
  if (!buf[1] || (type == HELLO && body < 6) || (type == READING && body < 15) || (type == DONE && body < 2)) {
    return error(end + 2, 2, "the body is too short for its type");
  }
  used = 0;
  text("{\"consumed\":"), number(end + 2), text(",\"up\":[{");
  switch (type) {
    case HELLO:
      text("\"login\":{\"device\":\""), hex(b, 6), text("\"}}],\"answer\":\""), frame(0x81, (u8[]){0}, 1);
      text("\",\"refusal\":\""), frame(0x81, (u8[]){1}, 1), text("\"}");
      break;
    case READING:
      text("\"kind\":\"reading\",\"data\":{\"voltage\":"), decimal(u16_at(b + 2), 10);
      text(",\"current\":"), decimal(u16_at(b + 4), 100);
      text(",\"power\":"), signed_number(u32_at(b + 6));
      text(",\"energy\":"), number(u32_at(b + 10));
      text(",\"relay\":"), text(b[14] & 1 ? "true" : "false");
      text("}}],\"answer\":\""), frame(0x82, b, 2), text("\"}");
      break;
    case DONE:
      text("\"reply\":{\"key\":"), number(b[0]), text(",\"ok\":"), text(b[1] ? "false" : "true");
      if (b[1]) {
        static const char *const reasons[] = {"", "not supported", "bad value", "locked", "unknown"};
        text(",\"data\":{\"reason\":\""), text(reasons[b[1] < 4 ? b[1] : 4]), text("\"}");
      }
      text("}}]}");
      break;
    default: text("\"kind\":\"unknown\",\"data\":{\"type\":"), number(type), text("}}]}");
  }
  return result();
}

/* What follows `name` in the command, white space left out, or 0. */
static const u8 *after(const u8 *at, const u8 *end, const char *name) {
  for (; at < end; at++) {
    const u8 *a = at;
    const char *n = name;
    for (; a < end && *n; a++) {
      if (*a == ' ' || *a == '\n' || *a == '\t' || *a == '\r') continue;
      if (*a != (u8)*n) break;
      n++;
    }
    if (!*n) return a;
  }
  return 0;
}

static u64 told(u8 type, const u8 *body, u32 len) {
  used = 0;
  text("{\"hex\":\""), frame(type, body, len), text("\",\"key\":"), number(type), text("}");
  return result();
}

/* {"kind":"relay","device":"…","value":{"on":true}} */
u64 EXPORT(encode)(const u8 *json, u32 len) {
  const u8 *end = json + len, *value;
  if (after(json, end, "{\"kind\":\"relay\"")) {
    if (after(json, end, "\"on\":true")) return told(RELAY, (u8[]){1}, 1);
    if (after(json, end, "\"on\":false")) return told(RELAY, (u8[]){0}, 1);
  }
  if (after(json, end, "{\"kind\":\"interval\"") && (value = after(json, end, "\"seconds\":"))) {
    u32 seconds = 0;
    while (value < end && *value == ' ') value++;
    for (; value < end && *value >= '0' && *value <= '9' && seconds <= 65535; value++) {
      seconds = seconds * 10 + *value - '0';
    }
    if (seconds >= 1 && seconds <= 65535) return told(INTERVAL, (u8[]){seconds >> 8, seconds}, 2);
  }
  return error(0, 0, "a meter takes relay {\\\"on\\\": true} and interval {\\\"seconds\\\": 1 to 65535}");
}
