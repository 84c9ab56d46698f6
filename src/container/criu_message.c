/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A field is a number of variable length, FIELD << 3 | KIND, and behind it
 *
 *     KIND 0   a number: seven bits a byte, the lowest first; the top bit says that more follow
 *     KIND 1   8 bytes
 *     KIND 2   a number, and as many bytes: a text, or a message
 *     KIND 5   4 bytes
 *
 * Called by criu.c and by who makes its options; what is parsed comes from another program. No state.
 */
#include "container/criu_message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */

static void put_varint(struct buffer *m, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    do
        bytes[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    while (value >>= 7);
    buffer_put(m, bytes, n);
}

void criu_put_number(struct buffer *m, unsigned field, uint64_t value)
{
    put_varint(m, (uint64_t)field << 3);
    put_varint(m, value);
}

static void put_block(struct buffer *m, unsigned field, const void *bytes, size_t n)
{
    put_varint(m, (uint64_t)field << 3 | 2);
    put_varint(m, n);
    buffer_put(m, bytes, n);
}

void criu_put_text(struct buffer *m, unsigned field, const char *text)
{
    put_block(m, field, text, strlen(text));
}

void criu_put_message(struct buffer *m, unsigned field, const struct buffer *inner)
{
    put_block(m, field, inner->data, inner->size);
    m->failed |= inner->failed;
}

void criu_put_pair(struct buffer *m, unsigned field, const char *first, const char *second)
{
    struct buffer pair = {0};

    criu_put_text(&pair, 1, first);
    criu_put_text(&pair, 2, second);
    criu_put_message(m, field, &pair);
    free(pair.data);
}

void criu_put_inherited(struct buffer *m, const char *key, int fd)
{
    struct buffer inherited = {0};

    criu_put_text(&inherited, 1, key);
    criu_put_number(&inherited, 2, (uint64_t)fd);
    criu_put_message(m, CRIU_INHERIT_FD, &inherited);
    free(inherited.data);
}

/* ---- reading ---- */

struct input {
    const uint8_t *at, *end;
};

struct field {
    unsigned number, kind;
    uint64_t value;     /* KIND 0 */
    struct input block; /* KIND 2 */
};

static bool take_varint(struct input *in, uint64_t *out)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return false;
}

/* 1, 0 at the end, -EPROTO. */
static int take_field(struct input *in, struct field *out)
{
    uint64_t tag, length;

    if (in->at == in->end)
        return 0;
    if (!take_varint(in, &tag) || tag >> 3 > UINT32_MAX)
        return -EPROTO;
    out->number = (unsigned)(tag >> 3);
    out->kind = tag & 7;
    switch (out->kind) {
    case 0:
        return take_varint(in, &out->value) ? 1 : -EPROTO;
    case 1:
    case 5:
        length = out->kind == 1 ? 8 : 4;
        break;
    case 2:
        if (!take_varint(in, &length))
            return -EPROTO;
        break;
    default:
        return -EPROTO;
    }
    if (length > (size_t)(in->end - in->at))
        return -EPROTO;
    out->block = (struct input){in->at, in->at + length};
    in->at += length;
    return 1;
}

static void copy_text(const struct field *field, char *out, size_t size)
{
    size_t n = (size_t)(field->block.end - field->block.at);

    if (n >= size)
        n = size - 1;
    memcpy(out, field->block.at, n);
    out[n] = '\0';
}

/* criu_restore_resp: pid = 1; criu_notify: script = 1, pid = 2. */
static int parse_inner(struct input in, bool notify, struct criu_answer *out)
{
    struct field field;
    int rc;

    while ((rc = take_field(&in, &field)) > 0) {
        if (notify && field.number == 1 && field.kind == 2)
            copy_text(&field, out->script, sizeof(out->script));
        else if (field.number == (notify ? 2 : 1) && field.kind == 0)
            out->pid = (pid_t)field.value;
    }
    return rc;
}

int criu_answer_parse(const void *data, size_t size, struct criu_answer *out)
{
    struct input in = {data, (const uint8_t *)data + size};
    struct criu_answer answer = {0};
    struct field field;
    bool has_kind = false, has_success = false;
    int rc;

    while ((rc = take_field(&in, &field)) > 0) {
        if (field.number == 1 && field.kind == 0) {
            has_kind = true;
            answer.kind = (unsigned)field.value;
        } else if (field.number == 2 && field.kind == 0) {
            has_success = true;
            answer.success = field.value != 0;
        } else if ((field.number == 4 || field.number == 5) && field.kind == 2) {
            if (parse_inner(field.block, field.number == 5, &answer) < 0)
                return -EPROTO;
        } else if (field.number == 7 && field.kind == 0) {
            answer.errnum = (int)field.value;
        } else if (field.number == 9 && field.kind == 2) {
            copy_text(&field, answer.message, sizeof(answer.message));
        }
    }
    if (rc < 0 || !has_kind || !has_success)
        return -EPROTO;
    *out = answer;
    return 0;
}
