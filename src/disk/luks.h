/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encryption as LUKS has it ("LUKS On-Disk Format Specification" 1.2.3), apart from where the content is:
 * luks.c has the header, its keys and the cipher, luks_cipher.c the cipher alone, luks_disk.c the format
 * `luks`. A content's sector is encrypted by its number, so any of them can be read alone.
 */
#ifndef TABIQUE_DISK_LUKS_H
#define TABIQUE_DISK_LUKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk_create;
struct disk_info;
struct disk_secret;
struct error;
struct libcrypto;

#define LUKS_SECTOR  512u
#define LUKS_KEY_MAX 64u

/* ---- luks_cipher.c ---- */

enum luks_mode { LUKS_XTS, LUKS_CBC };
enum luks_iv { LUKS_PLAIN, LUKS_PLAIN64, LUKS_ESSIV };

struct luks_cipher {
    const struct libcrypto *lib;
    enum luks_mode mode;
    enum luks_iv iv;
    uint32_t key_bytes;
    uint8_t key[LUKS_KEY_MAX];
    uint8_t iv_key[32]; /* of ESSIV */
};

/* From what headers say, such as "aes" and "xts-plain64". The key is given later. 0 or -ENOTSUP with *err. */
int luks_cipher_choose(struct luks_cipher *c, const char *name, const char *mode, uint32_t key_bytes,
                       struct error **err);
/* 0 or -errno. */
int luks_cipher_set_key(struct luks_cipher *c, const uint8_t *key);
/* Encrypts or decrypts whole sectors in place; `sector` is the first one's number. Any thread. 0 or -errno.
 */
int luks_cipher_run(const struct luks_cipher *c, bool encrypt, uint64_t sector, uint8_t *buf, size_t len);

/* ---- luks.c ---- */

struct luks {
    struct luks_cipher cipher;
    uint64_t payload; /* bytes from the header's start to the content */
};

/* The bytes of a file that only who may read the disk has. */
struct disk_secret {
    size_t len;
    uint8_t bytes[];
};

/* Loads what is needed to decrypt too, for a process that is confined later can't. 0 or -errno with *err. */
int disk_secret_read(struct disk_secret **out, const char *path, struct error **err);
void disk_secret_free(struct disk_secret *secret);

/* Reads the header at `at` of the file and finds the content's key by the secret (NULL: none was given; that
 * is refused). 0; -EACCES if the secret opens none of its slots; -errno; with *err. */
int luks_open(struct luks *l, int fd, uint64_t at, const struct disk_secret *secret, struct error **err);
/* Forgets the key. */
void luks_close(struct luks *l);
/* Reads bytes of a content whose sectors are numbered from byte `base` of the file on: `len` from byte
 * `offset` of it. Any thread. 0 or -errno. */
int luks_read(const struct luks_cipher *c, int fd, uint64_t base, uint64_t offset, void *buf, size_t len);
/* What the header says. 0 or -errno with *err. */
int luks_describe(int fd, uint64_t at, struct disk_info *info, uint64_t *payload, struct error **err);

/* Bytes of what luks_format writes. */
#define LUKS_HEADER (2u << 20)
/* Makes a header in `out`, with a new key that the secret of `what` opens: AES-256 in XTS mode, SHA-256. 0 or
 * -errno with *err. */
int luks_format(struct luks *l, uint8_t *out, const struct disk_create *what, struct error **err);

#endif
