/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names, contents and who holds them. Reading takes no lock: a name is read in one step, and content that
 * goes meanwhile is as good as gone before. Changes take the store's lock.
 */
#include "image/store_priv.h"

#include "image/oci_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/home.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

void image_free(struct image *image)
{
    if (!image)
        return;
    for (size_t i = 0; i < image->n_packages; i++)
        free(image->packages[i]);
    for (size_t i = 0; i < image->n_guests; i++)
        free(image->guests[i]);
    for (size_t i = 0; i < image->n_layers; i++)
        free(image->layers[i].directory);
    free(image->layers);
    free(image->config);
    free(image->packages);
    free(image->guests);
    free(image->name);
    free(image->disk);
    free(image->disk_format);
    free(image->kernel);
    free(image->initrd);
    free(image->append);
    free(image->origin);
    free(image->suite);
    free(image->arch);
    free(image);
}

void image_list_free(struct image **images, size_t n)
{
    for (size_t i = 0; i < n; i++)
        image_free(images[i]);
    free(images);
}

const char *image_kinds(const struct image *image)
{
    return !image->n_layers ? "vm" : image->disk ? "vm, container" : "container";
}

int image_check_name(const char *name, struct error **err)
{
    size_t len = strlen(name);
    bool ok = len > 0 && len <= IMAGE_NAME_MAX && isalnum((unsigned char)name[0]);

    for (size_t i = 0; ok && i < len; i++)
        ok = isalnum((unsigned char)name[i]) || strchr("._-", name[i]);
    if (!ok)
        return error_set(
            err, EINVAL,
            "'%s' is no name: it takes a letter or digit, then letters, digits, '.', '_' or '-', at "
            "most %d in all",
            name, IMAGE_NAME_MAX);
    return 0;
}

/* ---- the store itself ---- */

int store_open(const char *home, struct store *out, struct error **err)
{
    cleanup_free char *directory = home ? strdup(home) : NULL;
    char *root;

    if (!home) {
        int rc = home_directory(&directory, err);
        if (rc)
            return rc;
    }
    if (!directory || asprintf(&root, "%s/images", directory) < 0)
        return error_set_errno(err, ENOMEM, "the image store");
    *out = (struct store){.home = steal_ptr(directory), .root = root};
    return 0;
}

void store_close(struct store *store)
{
    free(store->home);
    free(store->root);
    *store = (struct store){0};
}

char *store_path(const struct store *store, const char *format, ...)
{
    cleanup_free char *below = NULL;
    char *path;
    va_list args;

    va_start(args, format);
    int n = vasprintf(&below, format, args);
    va_end(args);
    if (n < 0) {
        below = NULL;
        return NULL;
    }
    return asprintf(&path, "%s/%s", store->root, below) < 0 ? NULL : path;
}

int store_create(const struct store *store, struct error **err)
{
    static const char *const names[] = {"names", "content", "layers", "work"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cleanup_free char *path = store_path(store, "%s", names[i]);
        int rc =
            path ? home_make_directory(path, 0700, err) : error_set_errno(err, ENOMEM, "the image store");
        if (rc)
            return rc;
    }
    return 0;
}

int store_lock(const struct store *store, struct error **err)
{
    cleanup_free char *path = store_path(store, "lock");
    cleanup_close int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd < 0)
        return error_set_errno(err, path ? errno : ENOMEM, "%s", path ? path : store->root);
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return error_set_errno(err, errno, "%s", path);
    return steal_fd(fd);
}

/* ---- who holds what ---- */

/* A guest holds content as long as its directory is there. One that can't be looked at is. */
static bool guest_is_there(const char *link)
{
    struct stat st;

    return stat(link, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int append_text(char ***list, size_t *n, const char *text)
{
    char **more = realloc(*list, (*n + 1) * sizeof(char *));

    if (!more)
        return -ENOMEM;
    *list = more;
    more[*n] = strdup(text);
    if (!more[*n])
        return -ENOMEM;
    ++*n;
    return 0;
}

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}
#define cleanup_closedir __attribute__((cleanup(closedir_cleanup)))

/* The next entry that is not hidden, or NULL. */
static const char *next_entry(DIR *dir)
{
    struct dirent *entry;

    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            return entry->d_name;
    return NULL;
}

/* Of the content in `directory`: the guests that are there, sorted. */
static int find_guests(const char *directory, char ***guests, size_t *n)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s/guests", directory) < 0)
        return -ENOMEM;
    cleanup_closedir DIR *dir = opendir(path);
    for (const char *name; dir && (name = next_entry(dir));) {
        cleanup_free char *link = NULL;
        if (asprintf(&link, "%s/%s", path, name) < 0)
            return -ENOMEM;
        if (guest_is_there(link) && append_text(guests, n, name) < 0)
            return -ENOMEM;
    }
    if (*n)
        qsort(*guests, *n, sizeof(char *), compare_texts);
    return 0;
}

/* What all files of a content take on the host. */
static uint64_t count_bytes(const char *directory)
{
    cleanup_closedir DIR *dir = opendir(directory);
    uint64_t bytes = 0;
    struct stat st;

    for (const char *name; dir && (name = next_entry(dir));)
        if (fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            bytes += (uint64_t)st.st_blocks * 512;
    return bytes;
}

/* ---- reading ---- */

static int load_layers(const struct store *store, struct image *image, struct error **err)
{
    for (size_t i = 0; i < image->n_layers; i++) {
        cleanup_free char *directory = layer_path(store, image->layers[i].diff, NULL);
        int rc =
            directory ? layer_read(directory, &image->layers[i], err) : error_set_errno(err, ENOMEM, "image");

        if (rc)
            return rc;
        image->bytes += image->layers[i].size + image->layers[i].bytes;
    }
    return 0;
}

static int load(const struct store *store, const char *id, const char *name, struct image **out,
                struct error **err)
{
    cleanup_free char *directory = store_path(store, "content/%s", id);
    cleanup_image struct image *image = calloc(1, sizeof(*image));

    if (!directory || !image || (name && !(image->name = strdup(name))))
        return error_set_errno(err, ENOMEM, "image");
    int rc = metadata_read(directory, image, NULL, err);
    if (rc)
        return rc;
    if (find_guests(directory, &image->guests, &image->n_guests) < 0)
        return error_set_errno(err, ENOMEM, "image");
    image->bytes = count_bytes(directory);
    rc = load_layers(store, image, err);
    if (rc)
        return rc;
    *out = steal_ptr(image);
    return 0;
}

/* The id that a name points to. -ENOENT. */
static int read_name(const struct store *store, const char *name, char id[IMAGE_ID_LENGTH + 1])
{
    if (image_check_name(name, NULL))
        return -ENOENT;
    cleanup_free char *path = store_path(store, "names/%s", name);
    char target[PATH_MAX];
    ssize_t n = path ? readlink(path, target, sizeof(target) - 1) : -1;

    if (n < 0)
        return path ? -errno : -ENOMEM;
    target[n] = '\0';
    const char *slash = strrchr(target, '/');
    if (!slash || strlen(slash + 1) != IMAGE_ID_LENGTH)
        return -ENOENT;
    strcpy(id, slash + 1);
    return 0;
}

/* The only content whose id begins with `prefix`. -ENOENT, -EEXIST for more than one. */
static int find_id(const struct store *store, const char *prefix, char id[IMAGE_ID_LENGTH + 1])
{
    cleanup_free char *path = store_path(store, "content");
    size_t len = strlen(prefix), found = 0;

    if (len < 6 || len > IMAGE_ID_LENGTH || strspn(prefix, "0123456789abcdef") != len)
        return -ENOENT;
    cleanup_closedir DIR *dir = path ? opendir(path) : NULL;
    for (const char *name; dir && (name = next_entry(dir));)
        if (strlen(name) == IMAGE_ID_LENGTH && strncmp(name, prefix, len) == 0 && ++found)
            strcpy(id, name);
    return found == 1 ? 0 : found ? -EEXIST : -ENOENT;
}

/* A name that points to the id, or NULL; to be freed. */
static char *name_of(const struct store *store, const char *id)
{
    cleanup_free char *path = store_path(store, "names");
    cleanup_closedir DIR *dir = path ? opendir(path) : NULL;
    char other[IMAGE_ID_LENGTH + 1];

    for (const char *name; dir && (name = next_entry(dir));)
        if (read_name(store, name, other) == 0 && strcmp(id, other) == 0)
            return strdup(name);
    return NULL;
}

static int not_found(const struct store *store, const char *name, struct error **err)
{
    return error_set(
        err, ENOENT,
        "there is no image '%s' in %s: 'tabique image ls' lists them, 'tabique image build' makes one", name,
        store->root);
}

static int lookup(const struct store *store, const char *name, struct image **out, struct error **err)
{
    /* Between reading the name and the content, the name may have got another content and the old one gone.
     */
    for (int attempt = 0;; attempt++) {
        cleanup_error struct error *why = NULL;
        char id[IMAGE_ID_LENGTH + 1];
        cleanup_free char *known = NULL;
        int rc = read_name(store, name, id);

        if (rc == -ENOENT) {
            rc = find_id(store, name, id);
            if (rc == -EEXIST)
                return error_set(err, EINVAL, "more than one image's id begins with '%s': give more of it",
                                 name);
            if (rc == 0)
                known = name_of(store, id);
        } else {
            known = strdup(name);
        }
        if (rc == -ENOENT)
            return not_found(store, name, err);
        if (rc)
            return error_set_errno(err, -rc, "image '%s'", name);
        rc = load(store, id, known, out, &why);
        if (rc == -ENOENT && attempt < 5)
            continue;
        if (rc)
            return error_set(err, -rc, "image '%s': %s", name, error_message(why));
        return 0;
    }
}

int image_lookup(const char *home, const char *name, struct image **out, struct error **err)
{
    cleanup_store struct store store = {0};
    int rc = store_open(home, &store, err);

    return rc ? rc : lookup(&store, name, out, err);
}

/* By name; without one behind, by id. */
static int compare_images(const void *a, const void *b)
{
    const struct image *x = *(struct image *const *)a, *y = *(struct image *const *)b;

    if (!x->name || !y->name)
        return x->name ? -1 : y->name ? 1 : strcmp(x->id, y->id);
    return strcmp(x->name, y->name);
}

static int append_image(struct image ***list, size_t *n, struct image *image, struct error **err)
{
    struct image **more = realloc(*list, (*n + 1) * sizeof(*more));

    if (!more) {
        image_free(image);
        return error_set_errno(err, ENOMEM, "images");
    }
    *list = more;
    more[(*n)++] = image;
    return 0;
}

static bool list_has(struct image **list, size_t n, const char *id)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i]->id, id) == 0)
            return true;
    return false;
}

/* Adds what the entries of a directory are: names, or contents that have none. What goes away meanwhile is
 * left out. */
static int list_directory(const struct store *store, bool names, struct image ***list, size_t *n,
                          struct error **err)
{
    cleanup_free char *path = store_path(store, names ? "names" : "content");
    cleanup_closedir DIR *dir = path ? opendir(path) : NULL;
    char id[IMAGE_ID_LENGTH + 1];

    if (!dir && errno != ENOENT)
        return error_set_errno(err, errno, "%s", path);
    for (const char *entry; dir && (entry = next_entry(dir));) {
        struct image *image = NULL;

        if (names ? read_name(store, entry, id) != 0 : list_has(*list, *n, entry))
            continue;
        int rc = load(store, names ? id : entry, names ? entry : NULL, &image, NULL);
        if (rc == 0)
            rc = append_image(list, n, image, err);
        if (rc == -ENOMEM)
            return rc;
    }
    return 0;
}

int image_list(const char *home, struct image ***out, size_t *n, struct error **err)
{
    cleanup_store struct store store = {0};
    struct image **list = NULL;
    size_t count = 0;
    int rc = store_open(home, &store, err);

    if (rc == 0)
        rc = list_directory(&store, true, &list, &count, err);
    if (rc == 0)
        rc = list_directory(&store, false, &list, &count, err);
    if (rc) {
        image_list_free(list, count);
        return rc;
    }
    if (count)
        qsort(list, count, sizeof(*list), compare_images);
    *out = list;
    *n = count;
    return 0;
}

/* ---- changing ---- */

/* A content's directory is flat but for guests/. */
static void delete_content(const struct store *store, const char *id)
{
    cleanup_free char *from = store_path(store, "content/%s", id), *to = store_path(store, "work/%s", id);

    /* Out of sight in one step, then bit by bit; the rest of an interrupted deletion is swept as work is. */
    if (!from || !to || rename(from, to) < 0)
        return;
    work_delete_tree(to);
}

void store_collect_locked(const struct store *store)
{
    cleanup_free char *path = store_path(store, "content");
    cleanup_closedir DIR *dir = path ? opendir(path) : NULL;

    for (const char *id; dir && (id = next_entry(dir));) {
        cleanup_free char *content = store_path(store, "content/%s", id), *name = name_of(store, id);
        char **guests = NULL;
        size_t n = 0;

        if (!content || name)
            continue;
        int rc = find_guests(content, &guests, &n);
        for (size_t i = 0; i < n; i++)
            free(guests[i]);
        free(guests);
        if (rc == 0 && n == 0)
            delete_content(store, id);
    }
    layers_collect_locked(store);
}

static int guests_prevent(const struct image *image, const char *name, struct error **err)
{
    char names[256] = "";

    for (size_t i = 0; i < image->n_guests; i++) {
        size_t used = strlen(names);
        if (used + strlen(image->guests[i]) + 8 > sizeof(names)) {
            strcpy(names + used, ", ...");
            break;
        }
        sprintf(names + used, "%s%s", used ? ", " : "", image->guests[i]);
    }
    return error_set(err, EBUSY, "image '%s' is in use: %zu guest%s built on it (%s); remove %s first", name,
                     image->n_guests, image->n_guests == 1 ? " is" : "s are", names,
                     image->n_guests == 1 ? "it" : "them");
}

/* Takes the store's lock and looks *image up again, which may have changed meanwhile. The lock's descriptor,
 * or -errno with *err. */
static int lookup_locked(const struct store *store, const char *name, struct image **image,
                         struct error **err)
{
    cleanup_close int lock = store_lock(store, err);

    if (lock < 0)
        return lock;
    image_free(steal_ptr(*image));
    int rc = lookup(store, name, image, err);
    return rc ? rc : steal_fd(lock);
}

int image_remove(const char *home, const char *name, struct error **err)
{
    cleanup_store struct store store = {0};
    cleanup_image struct image *image = NULL;
    int rc = store_open(home, &store, err);

    if (rc == 0)
        rc = lookup(&store, name, &image, err); /* without a store, the answer is the same and makes none */
    if (rc)
        return rc;
    cleanup_close int lock = lookup_locked(&store, name, &image, err);
    if (lock < 0)
        return lock;
    /* By its id, content loses all its names. */
    bool by_name = image->name && strcmp(image->name, name) == 0;
    cleanup_free char *path = image->name ? store_path(&store, "names/%s", image->name) : NULL;
    if (image->n_guests)
        return guests_prevent(image, name, err);
    do {
        if (path && unlink(path) < 0)
            return error_set_errno(err, errno, "%s", path);
        free(path);
        cleanup_free char *other = by_name ? NULL : name_of(&store, image->id);
        path = other ? store_path(&store, "names/%s", other) : NULL;
    } while (path);
    store_collect_locked(&store);
    return 0;
}

/* Ends what the guest holds; with the lock. */
static void release_locked(const struct store *store, const char *guest)
{
    cleanup_free char *path = store_path(store, "content");
    cleanup_closedir DIR *dir = path ? opendir(path) : NULL;

    for (const char *id; dir && (id = next_entry(dir));) {
        cleanup_free char *link = store_path(store, "content/%s/guests/%s", id, guest);
        if (link)
            unlink(link);
    }
}

int image_hold(const char *home, const char *name, const char *guest, const char *directory,
               struct image **out, struct error **err)
{
    cleanup_store struct store store = {0};
    cleanup_image struct image *image = NULL;
    int rc = image_check_name(guest, err);

    if (rc == 0)
        rc = store_open(home, &store, err);
    if (rc == 0)
        rc = lookup(&store, name, &image, err);
    if (rc)
        return rc;
    cleanup_close int lock = lookup_locked(&store, name, &image, err);
    if (lock < 0)
        return lock;
    release_locked(&store, guest);
    cleanup_free char *guests = store_path(&store, "content/%s/guests", image->id);
    cleanup_free char *link = store_path(&store, "content/%s/guests/%s", image->id, guest);
    if (!guests || !link)
        return error_set_errno(err, ENOMEM, "image '%s'", name);
    if ((mkdir(guests, 0700) < 0 && errno != EEXIST) || symlink(directory, link) < 0)
        return error_set_errno(err, errno, "image '%s': %s", name, link);
    store_collect_locked(&store); /* what this guest may have held before */
    *out = steal_ptr(image);
    return 0;
}

int image_release(const char *home, const char *guest, struct error **err)
{
    cleanup_store struct store store = {0};
    int rc = image_check_name(guest, err);

    if (rc == 0)
        rc = store_open(home, &store, err);
    if (rc)
        return rc;
    if (access(store.root, F_OK) < 0 && errno == ENOENT)
        return 0;
    cleanup_close int lock = store_lock(&store, err);
    if (lock < 0)
        return lock;
    release_locked(&store, guest);
    store_collect_locked(&store);
    return 0;
}
