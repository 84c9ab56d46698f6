/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Snapshots made, applied and deleted, disks made larger and smaller and emptied, and power lost before every
 * single write of that (power.h), several times each: the disk and each snapshot have what they had before,
 * or what they have after; a repair finds nothing that it can't mend, and qemu-img nothing behind it.
 * TABIQUE_ROUNDS: how often each cut is made (1).
 */
#include "base/error.h"
#include "disk/maintain.h"
#include "power.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROOM      (6u << 20)
#define SNAPSHOTS 4u

/* What is to be read at some moment. */
struct state {
    uint64_t size;
    uint8_t *bytes;
    unsigned n;
    struct kept {
        char name[8];
        uint64_t size;
        uint8_t *bytes;
    } kept[SNAPSHOTS];
};

static unsigned rounds = 1, cuts;
static bool raw; /* the clusters are in a file that shows the same: what goes is gone there, by sectors */

static void must(int rc, struct error *err)
{
    if (rc)
        fail_msg("%s", error_message(err));
}

static uint8_t *copy_of(const uint8_t *bytes)
{
    uint8_t *copy = malloc(ROOM);

    assert_non_null(copy);
    memcpy(copy, bytes, ROOM);
    return copy;
}

/* ---- operations ---- */

enum what { CREATE, APPLY, DELETE, RESIZE, EMPTY };

struct operation {
    enum what what;
    const char *name;
    uint64_t size;
};

static void do_operation(struct image *image, const struct operation *o)
{
    struct error *err = NULL;

    switch (o->what) {
    case CREATE:
        must(disk_snapshot_create(image->disk, o->name, &err), err);
        break;
    case APPLY:
        must(disk_snapshot_apply(image->disk, o->name, &err), err);
        break;
    case DELETE:
        must(disk_snapshot_delete(image->disk, o->name, &err), err);
        break;
    case RESIZE:
        must(disk_resize(image->disk, o->size, &err), err);
        break;
    case EMPTY:
        must(disk_empty(image->disk, &err), err);
        break;
    }
}

static unsigned find(const struct state *s, const char *name)
{
    unsigned i = 0;

    while (i < s->n && strcmp(s->kept[i].name, name) != 0)
        i++;
    return i;
}

static void model_operation(struct state *s, const struct operation *o)
{
    unsigned i = o->name ? find(s, o->name) : 0;

    switch (o->what) {
    case CREATE:
        snprintf(s->kept[s->n].name, sizeof(s->kept[0].name), "%s", o->name);
        s->kept[s->n].size = s->size;
        s->kept[s->n++].bytes = copy_of(s->bytes);
        break;
    case APPLY:
        s->size = s->kept[i].size;
        memcpy(s->bytes, s->kept[i].bytes, ROOM);
        break;
    case DELETE:
        free(s->kept[i].bytes);
        s->kept[i] = s->kept[--s->n];
        break;
    case RESIZE:
        if (o->size < s->size)
            memset(s->bytes + o->size, 0, ROOM - o->size);
        s->size = o->size;
        break;
    case EMPTY:
        memset(s->bytes, 0, ROOM);
        break;
    }
}

static void copy_state(struct state *to, const struct state *from)
{
    *to = *from;
    to->bytes = copy_of(from->bytes);
    for (unsigned i = 0; i < from->n; i++)
        to->kept[i].bytes = copy_of(from->kept[i].bytes);
}

static void free_state(struct state *s)
{
    free(s->bytes);
    for (unsigned i = 0; i < s->n; i++)
        free(s->kept[i].bytes);
}

/* ---- what is there ---- */

static bool reads_as(struct image *image, uint64_t size, const uint8_t *bytes)
{
    static uint8_t seen[ROOM];

    if (disk_size(image->disk) != size)
        return false;
    assert_int_equal(image_read(image, 0, seen, size), 0);
    return memcmp(seen, bytes, size) == 0;
}

/* Of an emptied disk any cluster may be there still; of one that becomes smaller what is beyond may be gone.
 */
static bool reads_between(struct image *image, const struct operation *o, const struct state *before)
{
    static uint8_t seen[ROOM];
    uint64_t size = disk_size(image->disk), cluster = raw ? 512 : disk_granularity(image->disk);

    if (size != before->size)
        return false;
    assert_int_equal(image_read(image, 0, seen, size), 0);
    if (o->what == RESIZE && o->size < size)
        return memcmp(seen, before->bytes, o->size) == 0;
    if (o->what != EMPTY)
        return false;
    for (uint64_t at = 0; at < size; at += cluster) {
        uint64_t n = size - at < cluster ? size - at : cluster;
        bool zero = !seen[at] && memcmp(seen + at, seen + at + 1, n - 1) == 0;
        if (!zero && memcmp(seen + at, before->bytes + at, n) != 0)
            return false;
    }
    return true;
}

static void check_content(const char *path, const struct operation *o, const struct state *before,
                          const struct state *after, const char *when, unsigned cut)
{
    struct image image;

    image_open(&image, path, "qcow2", IMAGE_READ_ONLY | IMAGE_NO_URING);
    if (!reads_as(&image, before->size, before->bytes) && !reads_as(&image, after->size, after->bytes) &&
        !reads_between(&image, o, before))
        fail_msg("operation %d, cut %u, %s: the disk has what it never had", (int)o->what, cut, when);
    image_close(&image);
}

/* Those that were there before and are after must be there, and those between may. */
static void check_snapshots(const char *path, const struct state *before, const struct state *after,
                            unsigned cut)
{
    struct disk_snapshots list;
    struct error *err = NULL;
    struct image image;

    image_open(&image, path, "qcow2", IMAGE_NO_URING);
    must(disk_snapshot_list(image.disk, &list, &err), err);
    for (unsigned i = 0; i < before->n; i++) {
        bool found = false;
        for (size_t k = 0; k < list.n; k++)
            found |= strcmp(list.list[k].name, before->kept[i].name) == 0;
        if (!found && find(after, before->kept[i].name) < after->n)
            fail_msg("cut %u: snapshot %s is lost", cut, before->kept[i].name);
    }
    for (size_t k = 0; k < list.n; k++) {
        const struct state *of = find(before, list.list[k].name) < before->n ? before : after;
        const struct kept *kept = &of->kept[find(of, list.list[k].name)];
        assert_true(find(of, list.list[k].name) < of->n);
        must(disk_snapshot_apply(image.disk, kept->name, &err), err);
        if (!reads_as(&image, kept->size, kept->bytes))
            fail_msg("cut %u: snapshot %s has what it never had", cut, kept->name);
    }
    disk_snapshots_free(&list);
    image_close(&image);
}

static void say(void *opaque, const char *line)
{
    fprintf(stderr, "%s\n", line);
}

static void check_repair(const char *path, unsigned cut)
{
    struct disk_job job = {0};
    struct disk_checking how = {.repair = DISK_REPAIR_ALL, .job = &job};
    struct disk_check_result result;
    struct error *err = NULL;

    must(disk_check(path, "qcow2", &how, &result, &err), err);
    if (result.corruptions || result.leaks) {
        how.say = say;
        disk_check(path, "qcow2", &how, &result, NULL);
        fail_msg("cut %u: a repair leaves something", cut);
    }
    if (cut % 16 == 0)
        check_image(path, false);
}

static void cut_everywhere(struct stamps *s, const struct operation *o, const char *start,
                           const struct state *before, const struct state *after)
{
    char path[200];

    snprintf(path, sizeof(path), "%s", scratch_path("cut.qcow2"));
    for (unsigned cut = 0; cut <= power_log_length(); cut++) {
        for (unsigned i = 0; i < rounds; i++) {
            power_build(s, start, path, cut);
            check_content(path, o, before, after, "before a repair", cut);
            check_repair(path, cut);
            check_content(path, o, before, after, "repaired", cut);
            check_snapshots(path, before, after, cut);
            check_repair(path, cut);
            cuts++;
        }
    }
}

/* ---- a life ---- */

static void write_some(struct stamps *s, struct image *image, struct state *now)
{
    static uint8_t bytes[256 << 10];

    for (unsigned i = 0; i < 6; i++) {
        uint64_t at = stamps_random(s, now->size / 512) * 512,
                 n = (1 + stamps_random(s, sizeof(bytes) / 512)) * 512;
        if (n > now->size - at)
            n = now->size - at;
        memset(bytes, (int)(1 + stamps_random(s, 255)), n);
        memcpy(now->bytes + at, bytes, n);
        assert_int_equal(image_write(image, at, bytes, n), 0);
    }
    assert_int_equal(image_flush(image), 0);
}

static void live(const char *options, const struct operation *operations, unsigned n)
{
    struct stamps *s = stamps_new(1, (uint64_t)time(NULL) * 40503u + 7);
    struct state now = {.size = 4u << 20, .bytes = calloc(1, ROOM)};
    char path[200], start[200];
    struct image image;

    assert_non_null(now.bytes);
    assert_int_equal(shell("rm -f p.qcow2 p-data; qemu-img create -q -f qcow2 %s p.qcow2 4M", options), 0);
    snprintf(path, sizeof(path), "%s", scratch_path("p.qcow2"));
    snprintf(start, sizeof(start), "%s", scratch_path("start.qcow2"));
    for (unsigned i = 0; i < n; i++) {
        struct state before;
        image_open(&image, path, "qcow2", IMAGE_NO_URING);
        if (operations[i].what != DELETE)
            write_some(s, &image, &now);
        image_close(&image);
        copy_state(&before, &now);
        assert_int_equal(shell("cp p.qcow2 start.qcow2; [ ! -e p-data ] || cp p-data start-data"), 0);
        image_open(&image, path, "qcow2", IMAGE_NO_URING);
        power_log_begin();
        do_operation(&image, &operations[i]);
        image_close(&image);
        power_log_end();
        model_operation(&now, &operations[i]);
        check_image(path, false);
        assert_true(power_log_length() > 1);
        assert_int_equal(shell("[ ! -e p-data ] || cp p-data end-data"), 0);
        cut_everywhere(s, &operations[i], start, &before, &now);
        assert_int_equal(shell("[ ! -e p-data ] || cp end-data p-data"), 0);
        power_log_free();
        free_state(&before);
    }
    free_state(&now);
    stamps_free(s);
}

static const struct operation snapshots[] = {
    {.what = CREATE, .name = "a"}, {.what = CREATE, .name = "b"}, {.what = APPLY, .name = "a"},
    {.what = DELETE, .name = "a"}, {.what = APPLY, .name = "b"},  {.what = CREATE, .name = "c"},
    {.what = DELETE, .name = "b"}, {.what = DELETE, .name = "c"},
};

static const struct operation sizes[] = {
    {.what = RESIZE, .size = 3000 << 9},
    {.what = RESIZE, .size = 6 << 20},
    {.what = CREATE, .name = "a"},
    {.what = RESIZE, .size = (1 << 20) + 512},
    {.what = APPLY, .name = "a"},
    {.what = RESIZE, .size = 5 << 20},
    {.what = EMPTY},
    {.what = APPLY, .name = "a"},
};

static const struct operation sizes_alone[] = {
    {.what = RESIZE, .size = 3000 << 9},
    {.what = RESIZE, .size = 6 << 20},
    {.what = RESIZE, .size = (1 << 20) + 512},
    {.what = RESIZE, .size = 5 << 20},
    {.what = EMPTY},
};

/* The clusters are in a file of their own. */
static void test_data_file(void **state)
{
    char start[200];

    snprintf(start, sizeof(start), "%s", scratch_path("start-data"));
    power_also(scratch_path("p-data"), start);
    live("-o data_file=p-data", sizes_alone, 5);
    raw = true;
    live("-o data_file=p-data,data_file_raw=on,cluster_size=8k", sizes_alone, 5);
    raw = false;
    power_also(NULL, NULL);
}

static void test_snapshots(void **state)
{
    live("", snapshots, 8);
    live("-o compat=0.10,cluster_size=4k", snapshots, 8);
    live("-o extended_l2=on,cluster_size=16k", snapshots, 8);
}

static void test_sizes(void **state)
{
    live("-o cluster_size=8k,refcount_bits=64", sizes, 8);
    live("-o extended_l2=on", sizes, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_snapshots), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_data_file)};
    const char *wanted = getenv("TABIQUE_ROUNDS");

    if (wanted)
        rounds = (unsigned)atoi(wanted);
    int rc = cmocka_run_group_tests_name("qcow2 cut", tests, NULL, scratch_remove);
    printf("%u cuts\n", cuts);
    return rc;
}
