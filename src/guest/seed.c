/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NoCloud volume: user-data, meta-data, network-config on an ISO 9660 file system. No state, no locks. */
#include "guest/seed.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "image/libarchive.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define LABEL       "cidata"
#define FILE_MAX    (16u << 20) /* more than any cloud takes; a disk image given by mistake is larger */
#define INSTANCE_ID 36u         /* "iid-" and 16 random bytes in hexadecimal digits */

struct text {
    char *data; /* with a zero behind its end */
    size_t size;
};

static void cleanup_text(struct text *text)
{
    free(text->data);
}

/* `what` names the file in messages. */
static int read_file(const char *path, const char *what, struct text *out, struct error **err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    cleanup_free char *data = malloc(FILE_MAX + 1);
    size_t size = 0;

    if (fd < 0)
        return error_set_errno(err, errno, "%s '%s'", what, path);
    if (!data)
        return error_set_errno(err, ENOMEM, "%s '%s'", what, path);
    for (;;) {
        ssize_t n = read(fd, data + size, FILE_MAX + 1 - size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "%s '%s'", what, path);
        if (n == 0)
            break;
        size += (size_t)n;
        if (size > FILE_MAX)
            return error_set(err, EFBIG,
                             "%s '%s' is larger than %u MiB: give the text for cloud-init, not an image",
                             what, path, FILE_MAX >> 20);
    }
    data[size] = 0;
    *out = (struct text){.data = steal_ptr(data), .size = size};
    return 0;
}

/* ---- what cloud-init would make of it ---- */

static bool starts_with(const struct text *text, const char *prefix)
{
    return strncasecmp(text->data, prefix, strlen(prefix)) == 0;
}

static const char *line_end(const char *line)
{
    return line + strcspn(line, "\n");
}

/* Not YAML's grammar, but what goes wrong in files written by hand: tabs before the first word of a line, and
 * text that is no list of keys at all. */
static int check_cloud_config(const struct text *text, const char *path, struct error **err)
{
    bool keys = false;
    unsigned number = 1;

    for (const char *line = text->data; *line; number++) {
        const char *end = line_end(line);
        size_t indent = strspn(line, " \t\r");

        if (memchr(line, '\t', indent) && line + indent < end)
            return error_set(
                err, EINVAL,
                "user-data '%s', line %u: a tab before its first word, which YAML forbids: use spaces", path,
                number);
        if (indent == 0 && line < end && *line != '#' && *line != '-' && *line != '}' && *line != ']') {
            const char *colon = memchr(line, ':', (size_t)(end - line));

            if (!colon && *line != '{' && *line != '.' && *line != '%')
                return error_set(
                    err, EINVAL,
                    "user-data '%s', line %u: '%.*s' is no key with a value: #cloud-config is YAML, "
                    "lines like 'hostname: web'",
                    path, number, (int)(end - line < 40 ? end - line : 40), line);
            keys = true;
        }
        line = *end ? end + 1 : end;
    }
    return keys ? 0
                : error_set(err, EINVAL,
                            "user-data '%s' says nothing: #cloud-config takes lines like 'hostname: web'",
                            path);
}

static int check_user_data(const struct text *text, const char *path, struct error **err)
{
    static const char *const beginnings[] = {
        "#!",
        "#include",
        "#cloud-boothook",
        "#cloud-config-archive",
        "#cloud-config-jsonp",
        "#part-handler",
        "## template:",
        "Content-Type:",
        "MIME-Version:",
        "From ",
        "\x1f\x8b",
    };

    for (size_t i = 0; i < ARRAY_SIZE(beginnings); i++)
        if (starts_with(text, beginnings[i]))
            return 0;
    if (!starts_with(text, "#cloud-config"))
        return error_set(
            err, EINVAL,
            "user-data '%s' is nothing that cloud-init takes: its first line must be #cloud-config, or "
            "#! and an interpreter's path",
            path);
    if (memchr(text->data, 0, text->size))
        return error_set(err, EINVAL, "user-data '%s' is no text: it has a zero byte", path);
    return check_cloud_config(text, path, err);
}

/* Whether a line of it begins with `key`, in YAML or, loosely, JSON. */
static bool has_key(const struct text *text, const char *key)
{
    size_t n = strlen(key);

    for (const char *line = text->data; *line;) {
        const char *end = line_end(line);
        const char *word = line + strspn(line, " \t{,\"'");

        if (strncmp(word, key, n) == 0 && !isalnum((unsigned char)word[n]) && word[n] != '-' &&
            word[n] != '_')
            return true;
        line = *end ? end + 1 : end;
    }
    return false;
}

/* ---- the files ---- */

static int random_id(char id[INSTANCE_ID + 1], struct error **err)
{
    uint8_t bytes[16];

    if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        return error_set_errno(err, errno, "a new instance id");
    char *at = stpcpy(id, "iid-");
    for (unsigned i = 0; i < sizeof(bytes); i++)
        at += sprintf(at, "%02x", bytes[i]);
    return 0;
}

static bool is_json(const struct text *text)
{
    return text->data[strspn(text->data, " \t\r\n")] == '{';
}

/* What the person gave, and what cloud-init needs besides. */
static int make_meta_data(const struct seed_config *config, struct text *out, struct error **err)
{
    __attribute__((cleanup(cleanup_text))) struct text given = {0};
    char id[INSTANCE_ID + 1];
    int rc = config->meta_data ? read_file(config->meta_data, "meta-data", &given, err) : 0;

    if (rc == 0)
        rc = random_id(id, err);
    if (rc)
        return rc;
    bool add_id = !given.data || !has_key(&given, "instance-id");
    bool add_name = config->hostname && (!given.data || !has_key(&given, "local-hostname"));
    if (given.data && is_json(&given) && add_id)
        return error_set(err, EINVAL, "meta-data '%s' has no \"instance-id\": add one, or write it as YAML",
                         config->meta_data);
    if (given.data && is_json(&given))
        add_name = false;
    bool newline = given.size && given.data[given.size - 1] != '\n';
    int n =
        asprintf(&out->data, "%s%s%s%s%s%s%s%s", given.data ? given.data : "", newline ? "\n" : "",
                 add_id ? "instance-id: " : "", add_id ? config->instance_id ? config->instance_id : id : "",
                 add_id ? "\n" : "", add_name ? "local-hostname: " : "", add_name ? config->hostname : "",
                 add_name ? "\n" : "");
    if (n < 0) {
        out->data = NULL;
        return error_set_errno(err, ENOMEM, "meta-data");
    }
    out->size = (size_t)n;
    return 0;
}

static int fail(const struct libarchive *lib, struct archive *a, struct error **err)
{
    return error_set(err, EIO, "making the volume for cloud-init: %s", lib->archive_error_string(a));
}

static int add_file(const struct libarchive *lib, struct archive *a, const char *name,
                    const struct text *text, struct error **err)
{
    struct archive_entry *entry = lib->archive_entry_new();

    if (!entry)
        return error_set_errno(err, ENOMEM, "volume for cloud-init");
    lib->archive_entry_set_pathname(entry, name);
    lib->archive_entry_set_size(entry, (int64_t)text->size);
    lib->archive_entry_set_filetype(entry, AE_IFREG);
    lib->archive_entry_set_perm(entry, 0444);
    bool ok = lib->archive_write_header(a, entry) == ARCHIVE_OK &&
              lib->archive_write_data(a, text->data, text->size) == (la_ssize_t)text->size;
    lib->archive_entry_free(entry);
    return ok ? 0 : fail(lib, a, err);
}

/* The volume in `fd`. cloud-init takes the label in either case; ISO 9660 has capitals only. */
static int write_volume(int fd, const struct text *user_data, const struct text *meta_data,
                        const struct text *network, struct error **err)
{
    const struct libarchive *lib = libarchive(err);

    if (!lib)
        return -ENOPKG;
    struct archive *a = lib->archive_write_new();
    if (!a)
        return error_set_errno(err, ENOMEM, "volume for cloud-init");
    int rc =
        lib->archive_write_set_format_iso9660(a) == ARCHIVE_OK &&
                lib->archive_write_set_options(a, "volume-id=" LABEL ",publisher=tabique") == ARCHIVE_OK &&
                lib->archive_write_open_fd(a, fd) == ARCHIVE_OK
            ? 0
            : fail(lib, a, err);
    if (rc == 0)
        rc = add_file(lib, a, "user-data", user_data, err);
    if (rc == 0)
        rc = add_file(lib, a, "meta-data", meta_data, err);
    if (rc == 0 && network->data)
        rc = add_file(lib, a, "network-config", network, err);
    if (rc == 0 && lib->archive_write_close(a) != ARCHIVE_OK)
        rc = fail(lib, a, err);
    lib->archive_write_free(a);
    return rc;
}

int seed_create(const struct seed_config *config, struct error **err)
{
    __attribute__((cleanup(cleanup_text))) struct text user_data = {0}, meta_data = {0}, network = {0};
    int rc = read_file(config->user_data, "user-data", &user_data, err);

    if (rc == 0)
        rc = check_user_data(&user_data, config->user_data, err);
    if (rc == 0)
        rc = make_meta_data(config, &meta_data, err);
    if (rc == 0 && config->network_config)
        rc = read_file(config->network_config, "network-config", &network, err);
    if (rc)
        return rc;
    cleanup_close int fd = memfd_create("cidata", MFD_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno, "volume for cloud-init");
    rc = write_volume(fd, &user_data, &meta_data, &network, err);
    return rc ? rc : steal_fd(fd);
}

/* A name that is longer than the old one has no room. */
static void rename_host(char *at, const char *old, const char *new)
{
    size_t room = strlen(old);

    if (strncmp(at, old, room) || at[room] != '\n' || strlen(new) > room)
        return;
    memset(at, ' ', room); /* YAML takes no account of spaces at the end */
    memcpy(at, new, strlen(new));
}

int seed_renew(const char *path, const char *old_hostname, const char *hostname, struct error **err)
{
    static const char own_id[] = "instance-id: iid-", name_key[] = "local-hostname: ";
    char id[INSTANCE_ID + 1];
    struct stat st;
    cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC);
    int rc = random_id(id, err);

    if (rc)
        return rc;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "'%s'", path);
    char *volume =
        st.st_size ? mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (volume == MAP_FAILED)
        return error_set_errno(err, errno, "'%s'", path);
    char *end = volume + st.st_size;
    char *at = memmem(volume, (size_t)st.st_size, own_id, strlen(own_id));
    if (at && (size_t)(end - at) > strlen("instance-id: ") + INSTANCE_ID)
        memcpy(at + strlen("instance-id: "), id, INSTANCE_ID);
    at = memmem(volume, (size_t)st.st_size, name_key, strlen(name_key));
    if (at && (size_t)(end - at) > strlen(name_key) + strlen(old_hostname))
        rename_host(at + strlen(name_key), old_hostname, hostname);
    munmap(volume, (size_t)st.st_size);
    return fsync(fd) < 0 ? error_set_errno(err, errno, "'%s'", path) : 0;
}
