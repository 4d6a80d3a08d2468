/* What Rust calls: handles without a layout, and the few fields of Mbed TLS that have no function of their own.
 * Nothing here allocates but the handles, and nothing global is written but the thread's wall time. */
#define MBEDTLS_ALLOW_PRIVATE_ACCESS
#include <errno.h>
#include <string.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sys/random.h>
#include "mbedtls/build_info.h"
#include "mbedtls/ssl.h"
#include "mbedtls/pk.h"
#include "mbedtls/x509_crt.h"
#include "mbedtls/oid.h"
#include "mbedtls/sha256.h"
#include "mbedtls/platform_util.h"
#include "mbedtls/version.h"
#include "ssl_misc.h"

#define SUITES_MAX 32

typedef struct tg_config {
    mbedtls_ssl_config ssl;
    mbedtls_x509_crt own, ca;
    mbedtls_pk_context key;
    int suites[SUITES_MAX + 1];
} tg_config;

/* What one call into the engine may use; lives on Rust's stack for the length of that call. */
typedef struct tg_call {
    void *user;
    void (*send)(void *user, const unsigned char *datagram, size_t len);
    /* Writes the key of an identity and returns its length, 0 if there is none. */
    size_t (*key)(void *user, const unsigned char *identity, size_t len, unsigned char *key, size_t room);
    void (*certificate)(void *user, const unsigned char *fingerprint, const unsigned char *name, size_t len);
    const unsigned char *in; /* a datagram, taken by the first read */
    size_t in_len;
    uint64_t now_ms;
    int64_t wall_s;
} tg_call;

typedef struct tg_session {
    mbedtls_ssl_context ssl; /* first: the call-backs get its address */
    tg_call *call;
    uint64_t intermediate, final; /* the timer of the handshake; final 0: none */
    int is_spread; /* the flight was last sent one record a datagram */
} tg_session;

typedef struct tg_numbers {
    uint64_t window_top, window, next_out;
} tg_numbers;

static _Thread_local time_t wall;

time_t tidegate_time(time_t *t)
{
    if (t != NULL) {
        *t = wall;
    }
    return wall;
}

mbedtls_ms_time_t mbedtls_ms_time(void)
{
    return (mbedtls_ms_time_t) wall * 1000;
}

int tg_random(void *unused, unsigned char *p, size_t len)
{
    (void) unused;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return MBEDTLS_ERR_SSL_HW_ACCEL_FAILED;
        }
        p += n;
        len -= (size_t) n;
    }
    return 0;
}

/* Cookies are checked before the engine hears of a ClientHello (hello.rs). */
static int cookie_is_checked(void *u, const unsigned char *c, size_t cl, const unsigned char *i, size_t il)
{
    (void) u; (void) c; (void) cl; (void) i; (void) il;
    return 0;
}

static int cookie_is_never_written(void *u, unsigned char **p, unsigned char *e, const unsigned char *i, size_t il)
{
    (void) u; (void) p; (void) e; (void) i; (void) il;
    return MBEDTLS_ERR_SSL_FEATURE_UNAVAILABLE;
}

static int on_psk(void *unused, mbedtls_ssl_context *ssl, const unsigned char *identity, size_t len)
{
    tg_session *s = (tg_session *) ssl;
    unsigned char key[MBEDTLS_PSK_MAX_LEN];
    size_t n;
    int ret = MBEDTLS_ERR_SSL_UNKNOWN_IDENTITY;
    (void) unused;
    if (s->call == NULL || s->call->key == NULL) {
        return ret;
    }
    n = s->call->key(s->call->user, identity, len, key, sizeof(key));
    if (n > 0 && n <= sizeof(key)) {
        ret = mbedtls_ssl_set_hs_psk(ssl, key, n);
    }
    mbedtls_platform_zeroize(key, sizeof(key));
    return ret;
}

static int on_certificate(void *p, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
    tg_session *s = (tg_session *) p;
    unsigned char fingerprint[32];
    const mbedtls_x509_name *n;
    int ret;
    /* A certificate may be missing where none is required, but it may not be a wrong one. */
    if (*flags != 0 && s->ssl.conf->authmode == MBEDTLS_SSL_VERIFY_OPTIONAL) {
        return MBEDTLS_ERR_X509_FATAL_ERROR;
    }
    if (depth != 0 || *flags != 0 || s->call == NULL || s->call->certificate == NULL) {
        return 0;
    }
    ret = mbedtls_sha256(crt->raw.p, crt->raw.len, fingerprint, 0);
    if (ret != 0) {
        return ret;
    }
    for (n = &crt->subject; n != NULL; n = n->next) {
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0) {
            break;
        }
    }
    s->call->certificate(s->call->user, fingerprint, n != NULL ? n->val.p : NULL, n != NULL ? n->val.len : 0);
    return 0;
}

static int on_send(void *p, const unsigned char *b, size_t len)
{
    tg_session *s = (tg_session *) p;
    if (s->call != NULL && s->call->send != NULL) {
        s->call->send(s->call->user, b, len);
    }
    return (int) len;
}

static int on_recv(void *p, unsigned char *b, size_t room)
{
    tg_session *s = (tg_session *) p;
    size_t n;
    if (s->call == NULL || s->call->in == NULL) {
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    n = s->call->in_len < room ? s->call->in_len : room;
    memcpy(b, s->call->in, n);
    s->call->in = NULL;
    return (int) n;
}

static void on_set_timer(void *p, uint32_t intermediate_ms, uint32_t final_ms)
{
    tg_session *s = (tg_session *) p;
    uint64_t now = s->call != NULL ? s->call->now_ms : 0;
    s->intermediate = now + intermediate_ms;
    s->final = final_ms == 0 ? 0 : now + final_ms;
}

static int on_get_timer(void *p)
{
    tg_session *s = (tg_session *) p;
    uint64_t now = s->call != NULL ? s->call->now_ms : 0;
    if (s->final == 0) {
        return -1;
    }
    if (now >= s->final) {
        /* Every other time what is sent again goes one record a datagram: GnuTLS takes no more than the first of several
         * that it had before, and asks for nothing while it has some. Packed, less of it can be lost. */
        s->is_spread = !s->is_spread;
        mbedtls_ssl_set_datagram_packing(&s->ssl, !s->is_spread);
        return 2;
    }
    return now >= s->intermediate ? 1 : 0;
}

/* Configuration */

void tg_config_free(tg_config *c)
{
    if (c == NULL) {
        return;
    }
    mbedtls_ssl_config_free(&c->ssl);
    mbedtls_x509_crt_free(&c->own);
    mbedtls_x509_crt_free(&c->ca);
    mbedtls_pk_free(&c->key);
    free(c);
}

tg_config *tg_config_new(int is_server, const uint16_t *suites, size_t n, uint32_t timer_min_ms,
                         uint32_t timer_max_ms, size_t cid_len)
{
    tg_config *c = calloc(1, sizeof(*c));
    size_t i;
    if (c == NULL) {
        return NULL;
    }
    mbedtls_ssl_config_init(&c->ssl);
    mbedtls_x509_crt_init(&c->own);
    mbedtls_x509_crt_init(&c->ca);
    mbedtls_pk_init(&c->key);
    if (n == 0 || n > SUITES_MAX ||
        mbedtls_ssl_config_defaults(&c->ssl, is_server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                    MBEDTLS_SSL_TRANSPORT_DATAGRAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0 ||
        mbedtls_ssl_conf_cid(&c->ssl, cid_len, MBEDTLS_SSL_UNEXPECTED_CID_IGNORE) != 0) {
        tg_config_free(c);
        return NULL;
    }
    for (i = 0; i < n; i++) {
        c->suites[i] = suites[i];
    }
    mbedtls_ssl_conf_ciphersuites(&c->ssl, c->suites);
    mbedtls_ssl_conf_rng(&c->ssl, tg_random, NULL);
    mbedtls_ssl_conf_handshake_timeout(&c->ssl, timer_min_ms, timer_max_ms);
    /* However many records are forged, none closes an association. */
    mbedtls_ssl_conf_dtls_badmac_limit(&c->ssl, 0);
    if (is_server) {
        mbedtls_ssl_conf_preference_order(&c->ssl, MBEDTLS_SSL_SRV_CIPHERSUITE_ORDER_SERVER);
        mbedtls_ssl_conf_dtls_cookies(&c->ssl, cookie_is_never_written, cookie_is_checked, NULL);
        mbedtls_ssl_conf_psk_cb(&c->ssl, on_psk, NULL);
    }
    return c;
}

/* 0, or: 1 chain, 2 key, 3 authorities, 4 the key is not the certificate's. PEM with its final zero counted. */
int tg_config_certificates(tg_config *c, const unsigned char *chain, size_t chain_len, const unsigned char *key,
                           size_t key_len, const unsigned char *ca, size_t ca_len, int verify)
{
    if (chain_len > 0) {
        if (mbedtls_x509_crt_parse(&c->own, chain, chain_len) != 0) {
            return 1;
        }
        if (mbedtls_pk_parse_key(&c->key, key, key_len, NULL, 0, tg_random, NULL) != 0) {
            return 2;
        }
        if (mbedtls_pk_check_pair(&c->own.pk, &c->key, tg_random, NULL) != 0 ||
            mbedtls_ssl_conf_own_cert(&c->ssl, &c->own, &c->key) != 0) {
            return 4;
        }
    }
    if (ca_len > 0) {
        if (mbedtls_x509_crt_parse(&c->ca, ca, ca_len) != 0) {
            return 3;
        }
        mbedtls_ssl_conf_ca_chain(&c->ssl, &c->ca, NULL);
    }
    mbedtls_ssl_conf_authmode(&c->ssl, verify == 2 ? MBEDTLS_SSL_VERIFY_REQUIRED :
                              verify == 1 ? MBEDTLS_SSL_VERIFY_OPTIONAL : MBEDTLS_SSL_VERIFY_NONE);
    return 0;
}

int tg_config_psk(tg_config *c, const unsigned char *key, size_t key_len, const unsigned char *identity, size_t len)
{
    return mbedtls_ssl_conf_psk(&c->ssl, key, key_len, identity, len);
}

/* Sessions */

void tg_session_free(tg_session *s)
{
    if (s == NULL) {
        return;
    }
    s->call = NULL;
    mbedtls_ssl_free(&s->ssl);
    free(s);
}

tg_session *tg_session_new(tg_config *c, uint16_t mtu, const unsigned char *cid, size_t cid_len, int with_cid,
                           const char *host)
{
    tg_session *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    mbedtls_ssl_init(&s->ssl);
    if (mbedtls_ssl_setup(&s->ssl, &c->ssl) != 0 ||
        (with_cid && mbedtls_ssl_set_cid(&s->ssl, MBEDTLS_SSL_CID_ENABLED, cid, cid_len) != 0) ||
        (host != NULL && mbedtls_ssl_set_hostname(&s->ssl, host) != 0)) {
        tg_session_free(s);
        return NULL;
    }
    mbedtls_ssl_set_bio(&s->ssl, s, on_send, on_recv, NULL);
    mbedtls_ssl_set_timer_cb(&s->ssl, s, on_set_timer, on_get_timer);
    mbedtls_ssl_set_verify(&s->ssl, on_certificate, s);
    mbedtls_ssl_set_mtu(&s->ssl, mtu);
    return s;
}

static void enter(tg_session *s, tg_call *call)
{
    s->call = call;
    wall = (time_t) call->wall_s;
}

/* 0: the handshake is over; otherwise Mbed TLS's error. */
int tg_handshake(tg_session *s, tg_call *call)
{
    int ret, tries = 2;
    enter(s, call);
    do {
        /* If the timer has run out, the first call sees to that and leaves what came. */
        ret = mbedtls_ssl_handshake(&s->ssl);
    } while (ret == MBEDTLS_ERR_SSL_WANT_READ && call->in != NULL && --tries > 0);
    s->call = NULL;
    return ret;
}

int tg_read(tg_session *s, tg_call *call, unsigned char *out, size_t room)
{
    int ret;
    enter(s, call);
    ret = mbedtls_ssl_read(&s->ssl, out, room);
    s->call = NULL;
    return ret;
}

int tg_write(tg_session *s, tg_call *call, const unsigned char *b, size_t len)
{
    int ret;
    enter(s, call);
    ret = mbedtls_ssl_write(&s->ssl, b, len);
    s->call = NULL;
    return ret;
}

int tg_close_notify(tg_session *s, tg_call *call)
{
    int ret;
    enter(s, call);
    ret = mbedtls_ssl_close_notify(&s->ssl);
    s->call = NULL;
    return ret;
}

/* When the handshake wants to be called again though nothing came; 0: never. */
uint64_t tg_timer(const tg_session *s)
{
    return s->final;
}

int tg_max_payload(const tg_session *s)
{
    return mbedtls_ssl_get_max_out_record_payload(&s->ssl);
}

int tg_suite(const tg_session *s)
{
    return mbedtls_ssl_get_ciphersuite_id_from_ssl(&s->ssl);
}

int tg_has_cid(tg_session *s)
{
    int enabled = MBEDTLS_SSL_CID_DISABLED;
    return mbedtls_ssl_get_peer_cid(&s->ssl, &enabled, NULL, NULL) == 0 && enabled == MBEDTLS_SSL_CID_ENABLED;
}

void tg_numbers_of(const tg_session *s, tg_numbers *n)
{
    n->window_top = s->ssl.in_window_top;
    n->window = s->ssl.in_window;
    n->next_out = MBEDTLS_GET_UINT64_BE(s->ssl.cur_out_ctr, 0) & 0xffffffffffff;
}

/* The flight that ended the handshake is kept until the peer's first record, to be sent again; give it up. */
void tg_end_handshake(tg_session *s)
{
    if (mbedtls_ssl_is_handshake_over(&s->ssl) && s->ssl.handshake != NULL) {
        mbedtls_ssl_handshake_wrapup_free_hs_transform(&s->ssl);
    }
}

/* Writes the saved context and leaves the session as it is. mbedtls_ssl_context_save resets the session once it has
 * written all, and refuses while the last flight is kept. So the flight is hidden from it, and it is given a buffer
 * too short for the last field, the MTU of two bytes: it then writes all else, says how long the whole is, and does
 * not reset. Returns the length, 0 if it cannot be saved. */
size_t tg_snapshot(tg_session *s, unsigned char *out, size_t room)
{
    mbedtls_ssl_handshake_params *handshake = s->ssl.handshake;
    mbedtls_ssl_transform *transform = s->ssl.transform;
    mbedtls_ssl_transform *negotiate = s->ssl.transform_negotiate;
    size_t len = 0, again = 0;
    int ret;
    if (!mbedtls_ssl_is_handshake_over(&s->ssl)) {
        return 0;
    }
    if (handshake != NULL) {
        s->ssl.handshake = NULL;
        s->ssl.transform = negotiate;
        s->ssl.transform_negotiate = NULL;
    }
    ret = mbedtls_ssl_context_save(&s->ssl, NULL, 0, &len);
    if (ret == MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL && len > 2 && len <= room) {
        ret = mbedtls_ssl_context_save(&s->ssl, out, len - 1, &again);
    } else {
        len = 0;
    }
    if (handshake != NULL) {
        s->ssl.handshake = handshake;
        s->ssl.transform = transform;
        s->ssl.transform_negotiate = negotiate;
    }
    if (len == 0 || ret != MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL || again != len) {
        return 0;
    }
    MBEDTLS_PUT_UINT16_BE(s->ssl.mtu, out, len - 2);
    return len;
}

int tg_load(tg_session *s, const unsigned char *blob, size_t len)
{
    return mbedtls_ssl_context_load(&s->ssl, blob, len);
}

void tg_version(unsigned char version[3])
{
    version[0] = MBEDTLS_VERSION_MAJOR;
    version[1] = MBEDTLS_VERSION_MINOR;
    version[2] = MBEDTLS_VERSION_PATCH;
}

/* Give back to the kernel what freed sessions held: glibc does so by itself only at the end of the heap. */
void tg_trim(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
