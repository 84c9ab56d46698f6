/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The D-Bus specification's wire format, little-endian ("Message Protocol"):
 *
 *     byte 'l', byte type, byte flags, byte version 1
 *     u32 length of the body, u32 serial
 *     u32 length of the fields, and each of them at a multiple of 8: byte code, signature, value
 *     the body, at a multiple of 8
 *
 * and before it the authentication by the kernel's word on who has connected ("EXTERNAL"), which also holds
 * in a user namespace because no number is named. Called by cgroup_systemd.c.
 */
#include "container/bus.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CALL 1
enum { FIELD_PATH = 1, FIELD_INTERFACE = 2, FIELD_MEMBER = 3, FIELD_ERROR = 4, FIELD_REPLY = 5 };
enum { FIELD_DESTINATION = 6, FIELD_SIGNATURE = 8 };
#define HEADER      16
#define MESSAGE_MAX (1u << 20) /* of what is taken; the answers to these calls are short */
#define TIMEOUT_S   25
#define STRANGERS   1000 /* messages that are no answers */

/* ---- writing ---- */

static void align(struct buffer *b, size_t to)
{
    static const uint8_t zeros[8];

    buffer_put(b, zeros, ALIGN_UP(b->size, to) - b->size);
}

static void put_byte(struct buffer *b, uint8_t value)
{
    buffer_put(b, &value, 1);
}

void bus_put_u32(struct buffer *b, uint32_t value)
{
    align(b, 4);
    buffer_put(b, &value, sizeof(value));
}

void bus_put_u64(struct buffer *b, uint64_t value)
{
    align(b, 8);
    buffer_put(b, &value, sizeof(value));
}

void bus_put_string(struct buffer *b, const char *text)
{
    bus_put_u32(b, (uint32_t)strlen(text));
    buffer_put(b, text, strlen(text) + 1);
}

static void put_signature(struct buffer *b, const char *text)
{
    put_byte(b, (uint8_t)strlen(text));
    buffer_put(b, text, strlen(text) + 1);
}

size_t bus_begin_array(struct buffer *b, size_t alignment)
{
    bus_put_u32(b, 0);
    size_t begin = b->size;
    align(b, alignment);
    return begin;
}

void bus_end_array(struct buffer *b, size_t begin, size_t alignment)
{
    /* What is between the length and the first item does not count. */
    uint32_t length = (uint32_t)(b->size - ALIGN_UP(begin, alignment));

    if (!b->failed)
        memcpy(b->data + begin - sizeof(length), &length, sizeof(length));
}

static void begin_property(struct buffer *b, const char *name, const char *type)
{
    align(b, 8);
    bus_put_string(b, name);
    put_signature(b, type);
}

void bus_put_property_string(struct buffer *b, const char *name, const char *value)
{
    begin_property(b, name, "s");
    bus_put_string(b, value);
}

void bus_put_property_bool(struct buffer *b, const char *name, bool value)
{
    begin_property(b, name, "b");
    bus_put_u32(b, value);
}

void bus_put_property_u64(struct buffer *b, const char *name, uint64_t value)
{
    begin_property(b, name, "t");
    bus_put_u64(b, value);
}

void bus_put_property_list(struct buffer *b, const char *name, uint32_t only)
{
    begin_property(b, name, "au");
    size_t begin = bus_begin_array(b, 4);
    bus_put_u32(b, only);
    bus_end_array(b, begin, 4);
}

static void put_field(struct buffer *b, uint8_t code, const char *type, const char *value)
{
    align(b, 8);
    put_byte(b, code);
    put_signature(b, type);
    if (*type == 'g')
        put_signature(b, value);
    else
        bus_put_string(b, value);
}

static void make_call(struct buffer *m, uint32_t serial, const struct bus_peer *peer, const char *method,
                      const char *signature, const struct buffer *body)
{
    buffer_put(m, (const uint8_t[]){'l', CALL, 0, 1}, 4);
    bus_put_u32(m, body ? (uint32_t)body->size : 0);
    bus_put_u32(m, serial);
    size_t begin = bus_begin_array(m, 8);
    put_field(m, FIELD_PATH, "o", peer->path);
    put_field(m, FIELD_INTERFACE, "s", peer->interface);
    put_field(m, FIELD_MEMBER, "s", method);
    put_field(m, FIELD_DESTINATION, "s", peer->name);
    if (body)
        put_field(m, FIELD_SIGNATURE, "g", signature);
    bus_end_array(m, begin, 8);
    align(m, 8);
    if (body) {
        buffer_put(m, body->data, body->size);
        m->failed |= body->failed;
    }
}

/* ---- reading ---- */

struct input {
    const uint8_t *data;
    size_t at, end;
};

static bool take_u32(struct input *in, uint32_t *out)
{
    size_t at = ALIGN_UP(in->at, 4);

    if (at > in->end || in->end - at < sizeof(*out))
        return false;
    memcpy(out, in->data + at, sizeof(*out));
    in->at = at + sizeof(*out);
    return true;
}

/* Of `n` bytes and a zero. */
static bool take_text(struct input *in, size_t n, char *out, size_t size)
{
    if (n >= in->end - in->at || in->data[in->at + n])
        return false;
    size_t copy = n < size ? n : size - 1;
    memcpy(out, in->data + in->at, copy);
    out[copy] = '\0';
    in->at += n + 1;
    return true;
}

static bool take_string(struct input *in, char *out, size_t size)
{
    uint32_t n;

    return take_u32(in, &n) && take_text(in, n, out, size);
}

static bool take_signature(struct input *in, char *out, size_t size)
{
    if (in->at >= in->end)
        return false;
    size_t n = in->data[in->at++];
    return take_text(in, n, out, size);
}

/* One field; what headers have is of these types alone. */
static bool take_field(struct input *in, uint8_t *code, char *text, size_t size, uint32_t *number)
{
    char type[8];

    in->at = ALIGN_UP(in->at, 8);
    if (in->at >= in->end)
        return false;
    *code = in->data[in->at++];
    if (!take_signature(in, type, sizeof(type)))
        return false;
    if (strcmp(type, "s") == 0 || strcmp(type, "o") == 0)
        return take_string(in, text, size);
    if (strcmp(type, "g") == 0)
        return take_signature(in, text, size);
    return strcmp(type, "u") == 0 && take_u32(in, number);
}

int bus_parse(const uint8_t *data, size_t size, struct bus_answer *out)
{
    struct input in = {data, 4, size};
    struct bus_answer answer = {0};
    char signature[256] = "";
    uint32_t body, serial, fields;

    if (size < HEADER || data[0] != 'l' || data[3] != 1 || !take_u32(&in, &body) || !take_u32(&in, &serial) ||
        !take_u32(&in, &fields) || fields > size - HEADER || body > size - HEADER)
        return -EPROTO;
    answer.type = data[1];
    in.end = HEADER + fields;
    while (ALIGN_UP(in.at, 8) < in.end) {
        char text[256] = "";
        uint8_t code;
        uint32_t number = 0;

        if (!take_field(&in, &code, text, sizeof(text), &number))
            return -EPROTO;
        if (code == FIELD_REPLY)
            answer.serial = number;
        else if (code == FIELD_ERROR)
            memcpy(answer.error, text, sizeof(text));
        else if (code == FIELD_SIGNATURE)
            memcpy(signature, text, sizeof(text));
    }
    in = (struct input){data, ALIGN_UP((size_t)HEADER + fields, 8), size};
    if (in.at > size || size - in.at < body)
        return -EPROTO;
    if (answer.type == BUS_ERROR && signature[0] == 's' &&
        !take_string(&in, answer.error, sizeof(answer.error)))
        return -EPROTO;
    *out = answer;
    return 0;
}

/* ---- the connection ---- */

static int send_all(int fd, const void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = send(fd, (const uint8_t *)bytes + done, size - done, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int receive_all(int fd, void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = recv(fd, (uint8_t *)bytes + done, size - done, 0);

        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno != EINTR)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Lines up to the one that says OK; what comes behind it comes after the first call. */
static int authenticate(int fd)
{
    static const char hello[] = "\0AUTH EXTERNAL\r\nDATA\r\n";
    int rc = send_all(fd, hello, sizeof(hello) - 1);

    for (int lines = 0; rc == 0 && lines < 16; lines++) {
        char line[128];
        size_t n = 0;

        do
            rc = n < sizeof(line) - 1 ? receive_all(fd, &line[n], 1) : -EPROTO;
        while (rc == 0 && line[n++] != '\n');
        if (rc)
            return rc;
        line[n] = '\0';
        if (strncmp(line, "OK ", 3) == 0)
            return send_all(fd, "BEGIN\r\n", 7);
        if (strncmp(line, "DATA", 4) != 0)
            return -EACCES;
    }
    return rc ? rc : -EPROTO;
}

/* unix:path=/run/..., unix:abstract=..., and more of these behind a ';': the first counts. */
static int parse_address(const char *text, struct sockaddr_un *out, socklen_t *length)
{
    bool abstract = strncmp(text, "unix:abstract=", 14) == 0;
    const char *path = abstract ? text + 14 : strncmp(text, "unix:path=", 10) == 0 ? text + 10 : NULL;
    size_t n = path ? strcspn(path, ",;") : 0;

    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!path || n == 0)
        return -EINVAL;
    if (n + 1 >= sizeof(out->sun_path))
        return -ENAMETOOLONG;
    memcpy(out->sun_path + abstract, path, n);
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    return 0;
}

static int find_address(bool user, struct sockaddr_un *out, socklen_t *length)
{
    const char *given = getenv(user ? "DBUS_SESSION_BUS_ADDRESS" : "DBUS_SYSTEM_BUS_ADDRESS");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char text[sizeof(out->sun_path) + 32];

    if (given && *given)
        return parse_address(given, out, length);
    if (!user)
        return parse_address("unix:path=/run/dbus/system_bus_socket", out, length);
    if (!runtime || !*runtime)
        return -ENOENT;
    if ((size_t)snprintf(text, sizeof(text), "unix:path=%s/bus", runtime) >= sizeof(text))
        return -ENAMETOOLONG;
    return parse_address(text, out, length);
}

int bus_open(bool user)
{
    static const struct bus_peer itself = {"org.freedesktop.DBus", "/org/freedesktop/DBus",
                                           "org.freedesktop.DBus"};
    const struct timeval patience = {.tv_sec = TIMEOUT_S};
    struct sockaddr_un address;
    socklen_t length;
    char why[256];
    int rc = find_address(user, &address, &length);

    if (rc)
        return rc;
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, length) < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return -errno;
    rc = authenticate(fd);
    if (rc == 0)
        rc = bus_call(fd, &itself, "Hello", "", NULL, why, sizeof(why));
    return rc ? rc : steal_fd(fd);
}

/* The next message, whole. To be freed; NULL with *rc. */
static uint8_t *receive_message(int bus, size_t *size, int *rc)
{
    uint8_t header[HEADER];
    uint32_t body, fields;

    *rc = receive_all(bus, header, sizeof(header));
    if (*rc)
        return NULL;
    memcpy(&body, header + 4, sizeof(body));
    memcpy(&fields, header + 12, sizeof(fields));
    *rc = header[0] != 'l' || body > MESSAGE_MAX || fields > MESSAGE_MAX ? -EPROTO : 0;
    if (*rc)
        return NULL;
    *size = ALIGN_UP((size_t)HEADER + fields, 8) + body;
    uint8_t *message = malloc(*size);
    *rc = message ? receive_all(bus, message + HEADER, *size - HEADER) : -ENOMEM;
    if (*rc == 0) {
        memcpy(message, header, sizeof(header));
        return message;
    }
    free(message);
    return NULL;
}

int bus_call(int bus, const struct bus_peer *peer, const char *method, const char *signature,
             const struct buffer *body, char *why, size_t size)
{
    static uint32_t last_serial;
    struct buffer call = {0};
    uint32_t serial = ++last_serial;

    make_call(&call, serial, peer, method, signature, body);
    int rc = call.failed ? -ENOMEM : send_all(bus, call.data, call.size);
    free(call.data);
    for (int strangers = 0; rc == 0 && strangers < STRANGERS; strangers++) {
        struct bus_answer answer;
        size_t length;
        cleanup_free uint8_t *message = receive_message(bus, &length, &rc);

        if (message)
            rc = bus_parse(message, length, &answer);
        if (rc || answer.serial != serial || (answer.type != BUS_RETURN && answer.type != BUS_ERROR))
            continue;
        if (answer.type == BUS_RETURN)
            return 0;
        snprintf(why, size, "%s", answer.error);
        return -EREMOTEIO;
    }
    rc = rc ? rc : -EPROTO;
    snprintf(why, size, "%s", strerror(-rc));
    return rc;
}
