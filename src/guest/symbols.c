/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of functions by address: symbols.h. */
#include "guest/symbols.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NAME_SIZE 256
#define FILE_MAX  (256u << 20)
/* What is farther from its symbol belongs to something that has none. */
#define FUNCTION_MAX (1u << 20)
/* Linux aligns itself to it. */
#define KERNEL_ALIGN (2u << 20)

struct symbol {
    uint64_t address;
    size_t name; /* in `names` */
};

struct symbols {
    struct symbol *at;
    size_t n, room;
    char *names;
    size_t names_len, names_room;
};

struct symbols *symbols_new(void)
{
    return calloc(1, sizeof(struct symbols));
}

void symbols_free(struct symbols *s)
{
    if (!s)
        return;
    free(s->at);
    free(s->names);
    free(s);
}

static bool in_kernel(uint64_t address)
{
    return address >> 63;
}

/* Makes room for `more` elements after `n`. */
static int grow(void **array, size_t *room, size_t n, size_t more, size_t size)
{
    if (n + more <= *room)
        return 0;
    size_t wanted = 2 * (n + more);
    void *p = reallocarray(*array, wanted, size);
    if (!p)
        return -ENOMEM;
    *array = p;
    *room = wanted;
    return 0;
}

static int add(struct symbols *s, uint64_t address, const char *name, size_t len)
{
    char text[NAME_SIZE] = {0};

    memcpy(text, name, len < sizeof(text) ? len : sizeof(text) - 1);
    text_make_printable(text, sizeof(text), text);
    for (char *p = text; *p; p++)
        if (*p == ' ' || *p == ';')
            *p = '_';
    len = strlen(text);
    if (grow((void **)&s->at, &s->room, s->n, 1, sizeof(*s->at)) < 0 ||
        grow((void **)&s->names, &s->names_room, s->names_len, len + 1, 1) < 0)
        return -ENOMEM;
    s->at[s->n++] = (struct symbol){.address = address, .name = s->names_len};
    memcpy(s->names + s->names_len, text, len + 1);
    s->names_len += len + 1;
    return 0;
}

/* Whether a line, which ends with its newline, names a function: address, blanks, letter, blanks, name. */
static bool parse(const char *line, uint64_t *address, const char **name, size_t *len)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    size_t n = strspn(line, digits);

    if (!n || n > 16 || line[n] != ' ')
        return false;
    *address = strtoull(line, NULL, 16);
    line += n + strspn(line + n, " ");
    if (!strchr("tTwWi", line[0]) || line[1] != ' ')
        return false;
    line += 1 + strspn(line + 1, " ");
    *name = line;
    *len = strcspn(line, "\t\r\n");
    return *len > 0;
}

int symbols_add(struct symbols *s, const char *text, size_t len, struct error **err)
{
    size_t before = s->n;
    bool hidden = false;

    for (const char *end = text + len, *p = text; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        char line[NAME_SIZE * 2];
        size_t n = newline ? (size_t)(newline - p) : (size_t)(end - p), name_len;
        const char *name;
        uint64_t address;

        size_t kept = n < sizeof(line) - 2 ? n : sizeof(line) - 2;
        memcpy(line, p, kept);
        line[kept] = '\n';
        line[kept + 1] = '\0';
        p += n + 1;
        if (!parse(line, &address, &name, &name_len))
            continue;
        hidden |= !address;
        if (address && add(s, address, name, name_len) < 0)
            return error_set_errno(err, ENOMEM, "symbols");
    }
    if (s->n > before)
        return 0;
    return hidden ? error_set(err, EINVAL,
                              "all its addresses are 0: Linux shows those in /proc/kallsyms to root only")
                  : error_set(err, EINVAL, "no line in it has an address, a letter and a function's name");
}

int symbols_add_file(struct symbols *s, const char *path, struct error **err)
{
    cleanup_fclose FILE *file = fopen(path, "re");
    cleanup_free char *text = NULL;
    size_t len = 0, room = 0, n;

    if (!file)
        return error_set_errno(err, errno, "symbols '%s'", path);
    do {
        if (grow((void **)&text, &room, len, 1 << 20, 1) < 0)
            return error_set_errno(err, ENOMEM, "symbols '%s'", path);
        n = fread(text + len, 1, 1 << 20, file);
        len += n;
    } while (n && len <= FILE_MAX);
    if (ferror(file))
        return error_set_errno(err, errno, "symbols '%s'", path);
    int rc = len > FILE_MAX ? error_set(err, EFBIG, "larger than %u MiB", FILE_MAX >> 20)
                            : symbols_add(s, text, len, err);
    return rc ? error_wrap(err, "symbols '%s'", path) : 0;
}

static int compare(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;

    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return x->name < y->name ? -1 : 1; /* each has another */
}

void symbols_settle(struct symbols *s, uint64_t syscall_entry)
{
    for (size_t i = 0; i < s->n; i++) {
        uint64_t moved = syscall_entry - s->at[i].address;

        if (!moved || moved % KERNEL_ALIGN || !in_kernel(syscall_entry) || !in_kernel(s->at[i].address) ||
            strcmp(s->names + s->at[i].name, "entry_SYSCALL_64") != 0)
            continue;
        for (size_t j = 0; j < s->n; j++)
            if (in_kernel(s->at[j].address))
                s->at[j].address += moved;
        break;
    }
    if (s->n)
        qsort(s->at, s->n, sizeof(*s->at), compare);
}

const char *symbols_find(const struct symbols *s, uint64_t address, uint64_t *offset)
{
    size_t low = 0, high = s->n; /* those below `low` are at or before the address */

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (s->at[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || address - s->at[low - 1].address >= FUNCTION_MAX)
        return NULL;
    /* Of several names of a function the first that was given. */
    while (low > 1 && s->at[low - 2].address == s->at[low - 1].address)
        low--;
    *offset = address - s->at[low - 1].address;
    return s->names + s->at[low - 1].name;
}
