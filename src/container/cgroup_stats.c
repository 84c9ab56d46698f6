/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a container has used, in the form of runc's `events --stats`: its names, its units (nanoseconds,
 * bytes), and what it leaves out where it is 0. What a host does not count is left out as well. The reading
 * is in cgroup_stats_v1.c and cgroup_stats_v2.c. No state, no locks.
 */
#include "container/cgroup_stats_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void stats_put(json_t *object, const char *name, int64_t value)
{
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

bool stats_put_file(json_t *object, const char *name, const char *directory, const char *file)
{
    int64_t value;

    if (!directory || cgroup_read_number(directory, file, &value) < 0)
        return false;
    stats_put(object, name, value);
    return true;
}

json_t *stats_flat(const char *directory, const char *file)
{
    cleanup_free char *text = cgroup_read_all(directory, file);
    json_t *object = json_object();
    char *save;

    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
        char *blank = strchr(line, ' ');
        if (!blank)
            continue;
        *blank = '\0';
        errno = 0;
        stats_put(object, line, strtoll(blank + 1, NULL, 10));
    }
    return object;
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" */
static json_t *pressure_line(const char *line)
{
    double avg10, avg60, avg300;
    int64_t total;

    if (sscanf(line, "%*s avg10=%lf avg60=%lf avg300=%lf total=%" SCNd64, &avg10, &avg60, &avg300, &total) !=
        4)
        return NULL;
    return json_pack("{s:f, s:f, s:f, s:I}", "avg10", avg10, "avg60", avg60, "avg300", avg300, "total",
                     (json_int_t)total);
}

void stats_put_pressure(json_t *object, const char *directory, const char *file)
{
    char text[512];

    if (!directory || cgroup_read(directory, file, text, sizeof(text)) <= 0)
        return;
    json_t *psi = json_object();
    char *full = strstr(text, "\nfull ");
    json_t *some = pressure_line(text), *all = full ? pressure_line(full + 1) : NULL;
    if (some)
        json_object_set_new(psi, "some", some);
    if (all)
        json_object_set_new(psi, "full", all);
    json_object_set_new(object, "psi", psi);
}

/* "0-3,7" */
static json_t *number_list(const char *text)
{
    json_t *list = json_array();

    while (*text) {
        char *end;
        long first = strtol(text, &end, 10), last = first;
        if (end == text)
            break;
        if (*end == '-')
            last = strtol(end + 1, &end, 10);
        for (long i = first; i <= last && i < 65536; i++)
            json_array_append_new(list, json_integer(i));
        text = end + (*end == ',');
    }
    return list;
}

void stats_put_set(json_t *object, const char *name, const char *directory, const char *file)
{
    char text[4096];

    if (directory && cgroup_read(directory, file, text, sizeof(text)) > 0)
        json_object_set_new(object, name, number_list(text));
}

json_t *stats_block_entry(uint32_t major, uint32_t minor, const char *op, int64_t value)
{
    return json_pack("{s:I, s:I, s:s, s:I}", "major", (json_int_t)major, "minor", (json_int_t)minor, "op", op,
                     "value", (json_int_t)value);
}

/* Which sizes of huge pages there are tell the names of the files: hugetlb.2MB.current. */
json_t *stats_hugetlb(const char *directory, const char *usage, const char *max, const char *failed)
{
    json_t *all = json_object();
    DIR *entries = directory ? opendir(directory) : NULL;

    for (struct dirent *e; entries && (e = readdir(entries));) {
        char size[32], rest[64], file[128];

        if (sscanf(e->d_name, "hugetlb.%31[0-9KMGB].%63s", size, rest) != 2 || strcmp(rest, usage) != 0)
            continue;
        json_t *one = json_object();
        stats_put_file(one, "usage", directory, e->d_name);
        snprintf(file, sizeof(file), "hugetlb.%s.%s", size, max);
        stats_put_file(one, "max", directory, file);
        snprintf(file, sizeof(file), "hugetlb.%s.%s", size, failed);
        int64_t count = 0;
        if (cgroup_read_number(directory, file, &count) < 0)
            cgroup_read_key(directory, file, "max", &count);
        stats_put(one, "failcnt", count);
        json_object_set_new(all, size, one);
    }
    if (entries)
        closedir(entries);
    return all;
}

json_t *cgroup_stats(const struct cgroup *cgroup, struct error **err)
{
    json_t *stats = json_object();

    if (!stats) {
        error_set_errno(err, ENOMEM, "counting what a container has used");
        return NULL;
    }
    if (cgroup->layout == CGROUP_UNIFIED)
        stats_fill_v2(stats, cgroup);
    else
        stats_fill_v1(stats, cgroup);
    json_object_set_new(stats, "intel_rdt", json_object());
    json_object_set_new(stats, "network_interfaces", json_null());
    return stats;
}
