/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names, contents, who holds them, and what is left behind by those that were killed. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "image/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

struct fixture {
    char home[64];
    struct store store;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->home, "/tmp/tabique-image-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    assert_int_equal(store_open(f->home, &f->store, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    work_delete_tree(f->home);
    assert_int_equal(access(f->home, F_OK), -1);
    store_close(&f->store);
    free(f);
    return 0;
}

static void write_file(const char *path, const char *text, off_t at, off_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, text, strlen(text), at), strlen(text));
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

/* Puts an image of this name into the store, whose disk has `text` at 1 MiB. Its id in `id`. */
static void make(struct fixture *f, const char *name, const char *text, char id[IMAGE_ID_LENGTH + 1])
{
    cleanup_work struct work work = WORK_NONE;
    cleanup_image struct image *image = calloc(1, sizeof(*image));

    assert_int_equal(store_create(&f->store, NULL), 0);
    assert_int_equal(work_begin(&f->store, &work, NULL), 0);
    assert_true(asprintf(&image->disk, "%s/disk.raw", work.directory) > 0);
    write_file(image->disk, text, 1 << 20, 2 << 20);
    image->name = strdup(name);
    image->disk_format = strdup("raw");
    image->origin = strdup("a test");
    image->arch = strdup("amd64");
    image->size = 2 << 20;
    image->created = 1000000000;
    assert_int_equal(work_commit(&f->store, &work, image, "asked for", NULL), 0);
    strcpy(id, image->id);
}

static struct image *find(struct fixture *f, const char *name)
{
    struct image *image = NULL;

    return image_lookup(f->home, name, &image, NULL) == 0 ? image : NULL;
}

static void assert_there(struct fixture *f, const char *name, const char *id)
{
    cleanup_image struct image *image = find(f, name);

    assert_non_null(image);
    assert_string_equal(image->id, id);
    assert_int_equal(access(image->disk, R_OK), 0);
}

static size_t count(struct fixture *f, const char *directory)
{
    cleanup_free char *command = NULL;
    size_t n = 0;

    assert_true(asprintf(&command, "ls %s/images/%s | wc -l", f->home, directory) > 0);
    FILE *p = popen(command, "r");
    assert_int_equal(fscanf(p, "%zu", &n), 1);
    pclose(p);
    return n;
}

static void test_names(void **state)
{
    static const char *const good[] = {"debian", "a", "9.x_Y-z"}, *const bad[] = {"",    ".",  "..",
                                                                                  "a/b", "-x", "a b",
                                                                                  "\n",  "é",  "_a"};
    char longest[IMAGE_NAME_MAX + 2];

    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_int_equal(image_check_name(good[i], NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(image_check_name(bad[i], NULL), -EINVAL);
    memset(longest, 'a', sizeof(longest));
    longest[IMAGE_NAME_MAX + 1] = '\0';
    assert_int_equal(image_check_name(longest, NULL), -EINVAL);
    assert_int_equal(image_check_name(longest + 1, NULL), 0);
}

static void test_an_empty_store(void **state)
{
    struct fixture *f = *state;
    struct image **list = NULL, *image = NULL;
    cleanup_error struct error *err = NULL;
    size_t n = 9;

    assert_int_equal(image_list(f->home, &list, &n, NULL), 0);
    assert_int_equal(n, 0);
    image_list_free(list, n);
    assert_int_equal(image_lookup(f->home, "debian", &image, &err), -ENOENT);
    assert_non_null(strstr(error_message(err), "no image 'debian'"));
    assert_int_equal(image_remove(f->home, "debian", NULL), -ENOENT);
    assert_int_equal(image_release(f->home, "web", NULL), 0);
    /* Asking makes nothing. */
    assert_int_equal(access(f->store.root, F_OK), -1);
}

static void test_lookup_and_list(void **state)
{
    struct fixture *f = *state;
    char a[IMAGE_ID_LENGTH + 1], b[IMAGE_ID_LENGTH + 1], prefix[IMAGE_ID_SHORT + 1];
    struct image **list, *none;
    size_t n;

    make(f, "zeta", "one", a);
    make(f, "alpha", "two", b);
    assert_string_not_equal(a, b);
    assert_there(f, "zeta", a);
    snprintf(prefix, sizeof(prefix), "%.*s", IMAGE_ID_SHORT, b);
    assert_there(f, prefix, b);
    assert_there(f, b, b);
    prefix[5] = '\0'; /* too short to be an id */
    assert_int_equal(image_lookup(f->home, prefix, &none, NULL), -ENOENT);
    assert_int_equal(image_list(f->home, &list, &n, NULL), 0);
    assert_int_equal(n, 2);
    assert_string_equal(list[0]->name, "alpha");
    assert_string_equal(list[1]->name, "zeta");
    assert_string_equal(list[1]->origin, "a test");
    assert_int_equal(list[1]->size, 2 << 20);
    assert_int_equal(list[1]->created, 1000000000);
    assert_true(list[1]->bytes > 0 && list[1]->bytes < 1 << 20); /* holes take nothing */
    image_list_free(list, n);
}

/* However sparse the file, equal disks are equal; anything that a guest sees makes a difference. */
static void test_digest(void **state)
{
    struct fixture *f = *state;
    cleanup_free char *holes = NULL, *zeros = NULL, *longer = NULL;
    struct image image = {.disk_format = (char *)"raw", .append = (char *)"quiet"};
    char id[IMAGE_ID_LENGTH + 1];

    assert_true(asprintf(&holes, "%s/holes", f->home) > 0 && asprintf(&zeros, "%s/zeros", f->home) > 0 &&
                asprintf(&longer, "%s/longer", f->home) > 0);
    write_file(holes, "x", 300000, 1 << 20);
    write_file(longer, "x", 300000, (1 << 20) + 512);
    cleanup_free char *nothing = calloc(1, 1 << 20);
    nothing[300000] = 'x';
    int fd = open(zeros, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, nothing, 1 << 20), 1 << 20);
    close(fd);
    image.disk = holes;
    assert_int_equal(digest_image(&image, NULL), 0);
    strcpy(id, image.id);
    image.disk = zeros;
    assert_int_equal(digest_image(&image, NULL), 0);
    assert_string_equal(image.id, id);
    image.disk = longer;
    assert_int_equal(digest_image(&image, NULL), 0);
    assert_string_not_equal(image.id, id);
    image.disk = holes;
    image.append = (char *)"";
    assert_int_equal(digest_image(&image, NULL), 0);
    assert_string_not_equal(image.id, id);
    image.append = (char *)"quiet";
    image.kernel = holes;
    assert_int_equal(digest_image(&image, NULL), 0);
    assert_string_not_equal(image.id, id);
    image.kernel = (char *)"/nonexistent";
    assert_int_equal(digest_image(&image, NULL), -ENOENT);
}

static void make_directory(char **out, struct fixture *f, const char *name)
{
    assert_true(asprintf(out, "%s/%s", f->home, name) > 0);
    assert_int_equal(mkdir(*out, 0700), 0);
}

static void test_a_guest_keeps_its_image(void **state)
{
    struct fixture *f = *state;
    char old[IMAGE_ID_LENGTH + 1], fresh[IMAGE_ID_LENGTH + 1];
    cleanup_free char *web = NULL, *mail = NULL;
    cleanup_error struct error *err = NULL;
    struct image *image;

    make_directory(&web, f, "web");
    make_directory(&mail, f, "mail");
    make(f, "debian", "old", old);
    assert_int_equal(image_hold(f->home, "debian", "web", web, &image, NULL), 0);
    assert_string_equal(image->id, old);
    image_free(image);
    assert_int_equal(image_hold(f->home, "debian", "mail", mail, &image, NULL), 0);
    image_free(image);
    assert_int_equal(image_remove(f->home, "debian", &err), -EBUSY);
    assert_non_null(strstr(error_message(err), "2 guests are built on it (mail, web)"));
    /* The name goes on to another content; the old one stays, without a name. */
    make(f, "debian", "new", fresh);
    assert_there(f, "debian", fresh);
    assert_there(f, old, old);
    assert_int_equal(image_remove(f->home, "debian", NULL), 0);
    assert_int_equal(count(f, "content"), 1);
    /* Until its last guest goes: one says so, of the other only the directory is gone. */
    assert_int_equal(image_release(f->home, "web", NULL), 0);
    assert_there(f, old, old);
    assert_int_equal(rmdir(mail), 0);
    assert_int_equal(image_release(f->home, "other", NULL), 0);
    assert_int_equal(count(f, "content"), 0);
    assert_int_equal(count(f, "work"), 0);
    rmdir(web);
}

static void test_a_guest_is_built_on_one_image(void **state)
{
    struct fixture *f = *state;
    char a[IMAGE_ID_LENGTH + 1], b[IMAGE_ID_LENGTH + 1];
    cleanup_free char *web = NULL;
    struct image *image;

    make_directory(&web, f, "web");
    make(f, "a", "a", a);
    make(f, "b", "b", b);
    assert_int_equal(image_hold(f->home, "a", "web", web, &image, NULL), 0);
    image_free(image);
    assert_int_equal(image_hold(f->home, "b", "web", web, &image, NULL), 0);
    image_free(image);
    assert_int_equal(image_remove(f->home, "a", NULL), 0);
    assert_int_equal(image_remove(f->home, "b", NULL), -EBUSY);
    assert_int_equal(image_hold(f->home, "b", "../web", web, &image, NULL), -EINVAL);
    assert_int_equal(image_hold(f->home, "none", "web", web, &image, NULL), -ENOENT);
}

static void test_the_same_content_twice(void **state)
{
    struct fixture *f = *state;
    char a[IMAGE_ID_LENGTH + 1], b[IMAGE_ID_LENGTH + 1];

    make(f, "one", "same", a);
    make(f, "two", "same", b);
    assert_string_equal(a, b);
    assert_int_equal(count(f, "content"), 1);
    assert_int_equal(image_remove(f->home, "one", NULL), 0);
    assert_there(f, "two", b);
    /* By its id it loses all names. */
    make(f, "three", "same", a);
    assert_int_equal(image_remove(f->home, a, NULL), 0);
    assert_int_equal(count(f, "names") + count(f, "content"), 0);
}

/* A process that is killed while it makes an image leaves a directory that the next one takes away; that of
 * one that lives stays. */
static void test_leftovers(void **state)
{
    struct fixture *f = *state;
    struct work work = WORK_NONE;
    cleanup_free char *file = NULL;
    int status;

    assert_int_equal(store_create(&f->store, NULL), 0);
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (work_begin(&f->store, &work, NULL) == 0 && asprintf(&file, "%s/disk.raw", work.directory) > 0)
                close(open(file, O_WRONLY | O_CREAT, 0400));
            raise(SIGKILL);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(count(f, "work"), 2);
    }
    assert_int_equal(work_begin(&f->store, &work, NULL), 0);
    struct work other = WORK_NONE;
    assert_int_equal(work_begin(&f->store, &other, NULL), 0);
    assert_int_equal(count(f, "work"), 4);
    work_end(&work);
    assert_int_equal(count(f, "work"), 2);
    work_end(&other);
    assert_int_equal(count(f, "work"), 0);
}

static void test_damaged_descriptions(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"format\": 1}",
        "{\"format\": 1, \"id\": \"short\", \"disk\": \"disk.raw\", \"disk_format\": \"raw\", \"size\": 1, "
        "\"origin\": \"x\", \"arch\": \"x\", \"packages\": [], \"created\": 1}",
    };
    struct fixture *f = *state;
    char id[IMAGE_ID_LENGTH + 1];
    cleanup_free char *path = NULL;

    make(f, "debian", "x", id);
    assert_true(asprintf(&path, "%s/images/content/%s/image.json", f->home, id) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        cleanup_error struct error *err = NULL;
        struct image *image;

        unlink(path);
        write_file(path, texts[i], 0, (off_t)strlen(texts[i]));
        assert_int_equal(image_lookup(f->home, "debian", &image, &err), -EINVAL);
        assert_non_null(strstr(error_message(err), "image.json"));
    }
}

/* A description names files beside it and none elsewhere. */
static void test_a_description_stays_in_its_directory(void **state)
{
    static const char *const names[] = {"/etc/passwd", "../x", "..", ""};
    struct fixture *f = *state;
    cleanup_free char *path = NULL;

    assert_true(asprintf(&path, "%s/image.json", f->home) > 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        cleanup_free char *text = NULL;
        cleanup_image struct image *image = calloc(1, sizeof(*image));

        assert_true(
            asprintf(&text,
                     "{\"format\": 1, \"id\": \"%064d\", \"disk\": \"%s\", \"disk_format\": \"raw\", "
                     "\"size\": 1, \"origin\": \"x\", \"arch\": \"x\", \"packages\": [], \"created\": 1}",
                     0, names[i]) > 0);
        write_file(path, text, 0, (off_t)strlen(text));
        assert_int_equal(metadata_read(f->home, image, NULL, NULL), -EINVAL);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),       TEST(test_an_empty_store),
        TEST(test_lookup_and_list),         TEST(test_digest),
        TEST(test_a_guest_keeps_its_image), TEST(test_a_guest_is_built_on_one_image),
        TEST(test_the_same_content_twice),  TEST(test_leftovers),
        TEST(test_damaged_descriptions),    TEST(test_a_description_stays_in_its_directory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
