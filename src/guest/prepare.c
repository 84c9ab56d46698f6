/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a new guest keeps in its directory: a disk over its image, the volume for cloud-init. Made once, and
 * then part of its configuration, so that it starts again whatever becomes of the files it was made from.
 * Called by the command line. No state.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk.h"
#include "guest/bundle.h"
#include "guest/guest.h"
#include "guest/seed.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define ROOT_DISK "disk.qcow2"
#define SEED      "seed.iso"

/* Puts a disk into the configuration: as the first, or as the last. */
static int add_disk(json_t *config, const char *path, const char *format, bool read_only, bool first)
{
    json_t *list = json_object_get(config, "disk");
    json_t *disk = json_pack("{s:s, s:s, s:b}", "path", path, "format", format, "read-only", read_only);

    if (!list) {
        list = json_array();
        json_object_set_new(config, "disk", list);
    }
    int rc = first ? json_array_insert_new(list, 0, disk) : json_array_append_new(list, disk);
    return rc < 0 ? -ENOMEM : 0;
}

/* A guest's name may have what a host's name has not (RFC 952): '_'. */
static char *host_name(const char *guest)
{
    char *name = strdup(guest);

    for (char *p = name; p && *p; p++)
        if (*p == '_')
            *p = '-';
    return name;
}

/*
 * What was given with the flags goes before what the image says; arguments of the kernel follow it. The name
 * is that of the guest for systemd, which reads it before any file.
 */
static int take_kernel(json_t *config, const struct image *image, const char *guest)
{
    cleanup_free char *host = host_name(guest);
    const char *own = json_string_value(json_object_get(config, "append"));
    cleanup_free char *append = NULL;

    if (!image->kernel || json_object_get(config, "kernel") || json_object_get(config, "firmware"))
        return 0;
    if (!host || asprintf(&append, "%s%ssystemd.hostname=%s%s%s", image->append ? image->append : "",
                          image->append ? " " : "", host, own ? " " : "", own ? own : "") < 0)
        return -ENOMEM;
    int rc = json_object_set_new(config, "kernel", json_string(image->kernel));
    if (rc == 0 && image->initrd && !json_object_get(config, "initrd"))
        rc = json_object_set_new(config, "initrd", json_string(image->initrd));
    if (rc == 0)
        rc = json_object_set_new(config, "append", json_string(append));
    return rc < 0 ? -ENOMEM : 0;
}

static int make_root_disk(struct guest *guest, json_t *config, const char *name, struct error **err)
{
    cleanup_image struct image *image = NULL;
    cleanup_free char *path = guest_path(guest->home, guest->row.name, ROOT_DISK);
    int rc = path ? 0 : error_set_errno(err, ENOMEM, "disk");

    if (rc == 0)
        rc = image_hold(guest->home->state, name, guest->row.name, guest->directory, &image, err);
    if (rc == 0 && !image->disk)
        rc = error_set(err, EINVAL, "image '%s' is for containers: run it with --kind container", name);
    if (rc)
        return rc;
    const struct disk_create create = {
        .format = "qcow2", .size = image->size, .backing = image->disk, .backing_format = image->disk_format};
    rc = disk_create(path, &create, err);
    if (rc)
        return rc;
    rc = add_disk(config, path, "qcow2", false, true);
    if (rc == 0)
        rc = take_kernel(config, image, guest->row.name);
    if (rc == 0 && json_object_set_new(config, "image-id", json_string(image->id)) < 0)
        rc = -ENOMEM;
    return rc ? error_set_errno(err, -rc, "image '%s'", name) : 0;
}

static int copy_to(int from, const char *path, struct error **err)
{
    struct stat st;
    cleanup_close int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (to < 0 || fstat(from, &st) < 0)
        return error_set_errno(err, errno, "'%s'", path);
    for (off_t at = 0; at < st.st_size;) {
        ssize_t n = sendfile(to, from, &at, (size_t)(st.st_size - at));
        if (n < 0 && errno != EINTR)
            return error_set_errno(err, errno, "'%s'", path);
        if (n == 0)
            break;
    }
    return 0;
}

/* A guest keeps its instance id as long as it lives, and so its volume. */
static int make_seed(struct guest *guest, json_t *config, const json_t *cloud_init, struct error **err)
{
    const struct seed_config seed = {
        .user_data = json_string_value(json_object_get(cloud_init, "user-data")),
        .meta_data = json_string_value(json_object_get(cloud_init, "meta-data")),
        .network_config = json_string_value(json_object_get(cloud_init, "network-config")),
        .hostname = guest->row.transient ? NULL : guest->row.name,
    };
    cleanup_free char *path = guest_path(guest->home, guest->row.name, SEED);
    cleanup_close int fd = path ? seed_create(&seed, err) : error_set_errno(err, ENOMEM, "volume");

    if (fd < 0)
        return error_wrap(err, "--cloud-init");
    int rc = copy_to(fd, path, err);
    if (rc == 0 && add_disk(config, path, "raw", true, false))
        rc = error_set_errno(err, ENOMEM, "volume");
    return rc;
}

/* What others than its process ask for: the ports that it serves, how many seconds it may take to end. */
static void take_facts(json_t *config, const json_t *of_image)
{
    json_t *ports = json_object_get(of_image, "ExposedPorts"), *unused, *list = json_array();
    const json_t *seconds = json_object_get(of_image, "StopTimeout");
    const char *port;

    json_object_foreach(ports, port, unused) json_array_append_new(list, json_string(port));
    if (json_array_size(list))
        json_object_set(config, "exposed-ports", list);
    json_decref(list);
    if (json_is_integer(seconds) && json_integer_value(seconds) >= 0)
        json_object_set_new(config, "stop-timeout", json_integer(json_integer_value(seconds)));
}

/* A person at a terminal has one inside; so has a whole system, whose console one may look at later. */
static int choose_terminal(json_t *config, const struct image *image, struct error **err)
{
    json_t *document = json_load_file(image->config, 0, NULL);
    const json_t *of_image = json_object_get(document, "config");
    json_t *args = bundle_args(config, of_image, err);
    bool terminal =
        json_is_true(json_object_get(config, "interactive")) || bundle_is_system(config, of_image);

    json_object_del(config, "interactive");
    json_object_set_new(config, "terminal", json_boolean(terminal));
    take_facts(config, of_image);
    json_decref(document);
    if (!args)
        return -EINVAL;
    json_decref(args);
    return 0;
}

/* A container has its image's layers under what it writes; they are unpacked here if they have not been. */
static int make_container_root(struct guest *guest, json_t *config, const char *name, struct error **err)
{
    cleanup_image struct image *image = NULL;
    json_t *layers = json_array();
    int rc = name
                 ? image_hold(guest->home->state, name, guest->row.name, guest->directory, &image, err)
                 : error_set(err, EINVAL, "a container is made from an image: 'tabique image ls' lists them");

    if (rc == 0 && !image->n_layers)
        rc = error_set(err, EINVAL,
                       "image '%s' is a disk for virtual machines: run it without --kind container", name);
    if (rc == 0)
        rc = image_unpack(guest->home->state, image, NULL, err);
    for (size_t i = 0; rc == 0 && i < image->n_layers; i++) {
        cleanup_free char *tree = image_layer_tree(&image->layers[i]);

        if (json_array_append_new(layers, json_string(tree)) < 0)
            rc = error_set_errno(err, ENOMEM, "image '%s'", name);
    }
    if (rc == 0)
        rc = choose_terminal(config, image, err);
    json_object_set(config, "layers", layers);
    json_decref(layers);
    if (rc == 0 && (json_object_set_new(config, "image-config", json_string(image->config)) < 0 ||
                    json_object_set_new(config, "image-id", json_string(image->id)) < 0))
        rc = error_set_errno(err, ENOMEM, "image '%s'", name);
    return rc;
}

static bool is_container(const json_t *config)
{
    const char *kind = json_string_value(json_object_get(config, "kind"));

    return kind && strcmp(kind, "container") == 0;
}

static int make_all(struct guest *guest, json_t *config, struct error **err)
{
    const char *image = json_string_value(json_object_get(config, "image"));
    const json_t *cloud_init = json_object_get(config, "cloud-init");
    bool container = is_container(config);
    int rc = container ? make_container_root(guest, config, image, err)
             : image   ? make_root_disk(guest, config, image, err)
                       : 0;

    if (rc == 0 && cloud_init)
        rc = make_seed(guest, config, cloud_init, err);
    if (rc || (!image && !cloud_init))
        return rc;
    char *text = json_dumps(config, JSON_COMPACT);
    if (!text)
        return error_set_errno(err, ENOMEM, "configuration");
    free(guest->row.config);
    guest->row.config = text;
    return guest_record(guest, NULL, NULL, err);
}

int guest_prepare(struct guest *guest, struct error **err)
{
    json_t *config = json_loads(guest->row.config, 0, NULL);
    struct error *why = NULL;
    int rc =
        config ? make_all(guest, config, &why) : error_set(&why, EINVAL, "its configuration can't be read");

    json_decref(config);
    if (rc) {
        if (guest_remove(guest, NULL))
            guest_release(guest);
        if (err)
            *err = why;
        else
            error_free(why);
    }
    return rc;
}
