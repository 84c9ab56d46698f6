/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The text that describes a VMDK: within a file that has the disk's content, or a file of its own beside
 * those that have it. It may be anyone's. No state.
 *
 *     CID=fe05a7e1
 *     parentCID=ffffffff
 *     createType="twoGbMaxExtentSparse"
 *     RW 4192256 SPARSE "disk-s001.vmdk"
 *     RW 2048 FLAT "disk-f002.vmdk" 0
 */
#include "disk/vmdk_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define HEX "0123456789abcdefABCDEF"

bool vmdk_is_text(const uint8_t *head)
{
    return memcmp(head, VMDK_TEXT_START, strlen(VMDK_TEXT_START)) == 0;
}

char *vmdk_text_value(const char *text, const char *name)
{
    size_t len = strlen(name);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncasecmp(line, name, len) != 0 || line[len] != '=')
            continue;
        const char *from = line + len + 1;
        from += *from == '"';
        return strndup(from, strcspn(from, "\"\r\n"));
    }
    return NULL;
}

size_t vmdk_text_id(const char *text)
{
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "CID=", 4) == 0 && strspn(line + 4, HEX) > 0)
            return (size_t)(line + 4 - text);
    }
    return 0;
}

uint32_t vmdk_text_number(const char *text, const char *name)
{
    cleanup_free char *value = text ? vmdk_text_value(text, name) : NULL;

    return value ? (uint32_t)strtoul(value, NULL, 16) : VMDK_NO_PARENT;
}

int vmdk_check_parent(const char *text, const struct disk *disk, struct error **err)
{
    const struct disk *parent = disk->backing;
    uint32_t wanted = vmdk_text_number(text, "parentCID");
    cleanup_free char *theirs = NULL;

    if (!parent || strcmp(parent->format->name, "vmdk") != 0)
        return 0;
    int rc = vmdk_read_text(parent->fd, &theirs, err);
    if (rc)
        return error_wrap(err, "what it is based on");
    uint32_t found = vmdk_text_number(theirs, "CID");
    return found == wanted ? 0
                           : error_set(err, ESTALE,
                                       "is based on the content %08" PRIx32 " of '%s', which has %08" PRIx32
                                       ": that was written since, or is another file",
                                       wanted, disk->files->files[parent->file].name, found);
}

/* All ones mean that there is no parent. */
int vmdk_change_id(int fd, uint64_t at)
{
    char digits[9], before[9] = "";
    uint32_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return -EIO;
    snprintf(digits, sizeof(digits), "%08" PRIx32, id & 0x7fffffff);
    int rc = at ? disk_read_at(fd, before, 8, at) : 0;
    size_t n = strspn(before, HEX);
    return rc || !n ? rc : disk_write_at(fd, digits + 8 - n, n, at);
}

/* ---- a file of its own ---- */

int vmdk_text_read(int fd, char **out, struct error **err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "reading its descriptor");
    if (st.st_size > (off_t)VMDK_DESCRIPTOR_MAX)
        return error_set(err, EINVAL, "is damaged: its descriptor has more than %u bytes",
                         VMDK_DESCRIPTOR_MAX);
    char *text = calloc(1, (size_t)st.st_size + 1);
    int rc = text ? disk_read_at(fd, text, (size_t)st.st_size, 0) : -ENOMEM;
    if (rc) {
        free(text);
        return error_set_errno(err, -rc, "reading its descriptor");
    }
    *out = text;
    return 0;
}

/* One word of a line, which goes on behind it; false: there is none that fits. */
static bool take_word(const char **line, char *out, size_t room)
{
    *line += strspn(*line, " \t");
    size_t n = strcspn(*line, " \t\r\n");

    if (!n || n >= room)
        return false;
    memcpy(out, *line, n);
    out[n] = '\0';
    *line += n;
    return true;
}

static bool take_number(const char **line, uint64_t *out)
{
    char word[24], *end;

    if (!take_word(line, word, sizeof(word)) || *word < '0' || *word > '9')
        return false;
    errno = 0;
    *out = strtoull(word, &end, 10);
    return !*end && !errno;
}

static bool take_name(const char **line, char *out)
{
    *line += strspn(*line, " \t");
    size_t n = **line == '"' ? strcspn(*line + 1, "\"\r\n") : 0;

    if (!n || n > VMDK_NAME_MAX || (*line)[1 + n] != '"')
        return false;
    memcpy(out, *line + 1, n);
    out[n] = '\0';
    *line += n + 2;
    return true;
}

static bool begins(const char *line, const char *word)
{
    size_t n = strlen(word);

    return strncmp(line, word, n) == 0 && (line[n] == ' ' || line[n] == '\t');
}

/* What begins with one of the three words is an extent, and nothing else is. */
static int parse_line(const char *line, struct vmdk_extent *out, struct error **err)
{
    char access[16], type[16];
    struct vmdk_extent e = {0};
    const char *whole = line;
    int shown = (int)strcspn(line, "\r\n");

    if (!take_word(&line, access, sizeof(access)) || !take_number(&line, &e.sectors) ||
        !take_word(&line, type, sizeof(type)))
        return error_set(err, EINVAL, "is damaged: '%.*s' describes no extent", shown < 80 ? shown : 80,
                         whole);
    e.flat = strcmp(type, "FLAT") == 0 || strcmp(type, "VMFS") == 0;
    if (strcmp(access, "RW") != 0 || (!e.flat && strcmp(type, "SPARSE") != 0))
        return error_set(err, EINVAL,
                         "has an extent '%s ... %s': RW, and SPARSE, FLAT or VMFS, are known here", access,
                         type);
    if (!take_name(&line, e.name))
        return error_set(err, EINVAL, "is damaged: an extent has no name of 1 to %u characters in quotes",
                         VMDK_NAME_MAX);
    line += strspn(line, " \t");
    if (e.flat && *line && *line != '\r' && *line != '\n' && !take_number(&line, &e.skip))
        return error_set(err, EINVAL, "is damaged: where extent '%s' begins is no number", e.name);
    if (!e.sectors || e.sectors > VMDK_SECTORS_MAX || e.skip > VMDK_SECTORS_MAX)
        return error_set(err, EINVAL, "is damaged: extent '%s' has %" PRIu64 " sectors from %" PRIu64 " on",
                         e.name, e.sectors, e.skip);
    *out = e;
    return 0;
}

int vmdk_text_extents(const char *text, struct vmdk_extent **out, unsigned *n, struct error **err)
{
    struct vmdk_extent *list = NULL;
    uint64_t sectors = 0;
    unsigned count = 0;
    int rc = 0;

    for (const char *line = text; line && rc == 0; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!begins(line, "RW") && !begins(line, "RDONLY") && !begins(line, "NOACCESS"))
            continue;
        struct vmdk_extent *more = realloc(list, (count + 1) * sizeof(*more));
        if (!more) {
            rc = error_set_errno(err, ENOMEM, "reading its descriptor");
            break;
        }
        list = more;
        if (count == VMDK_EXTENTS_MAX)
            rc = error_set(err, E2BIG, "has more than %u extents", VMDK_EXTENTS_MAX);
        else
            rc = parse_line(line, &list[count], err);
        if (rc == 0)
            sectors += list[count++].sectors;
    }
    if (rc == 0 && (!count || sectors > VMDK_SECTORS_MAX))
        rc = error_set(err, EINVAL,
                       count ? "is damaged: its extents have too many sectors"
                             : "is damaged: its descriptor names no extent");
    if (rc) {
        free(list);
        return rc;
    }
    *out = list;
    *n = count;
    return 0;
}

char *vmdk_text_with_size(const char *text, uint64_t sectors)
{
    const char *last = NULL;
    char *out;

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (begins(line, "RW"))
            last = line;
    }
    if (!last)
        return NULL;
    last += strlen("RW");
    last += strspn(last, " \t");
    const char *rest = last + strspn(last, "0123456789");
    if (asprintf(&out, "%.*s%" PRIu64 "%s%*s", (int)(last - text), text, sectors, rest, 20, "") < 0)
        return NULL;
    /* Empty lines at the end, in place of spaces. */
    size_t used = strlen(out) - 20, old = strlen(text), len = used > old ? used : old;
    memset(out + used, '\n', len - used);
    out[len] = '\0';
    return out;
}
