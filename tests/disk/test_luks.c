/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LUKS: random requests against a model and QEMU's reading, headers of other programs, and those that lie.
 * TABIQUE_STEPS makes the sequences longer (of each kind; 1,800 requests).
 */
#include "base/bytes.h"
#include "base/error.h"
#include "random.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned batches = 1800 / 6;

/* QEMU measures how fast it is, which now and then it can't where others are busy. */
static void make(const char *options, const char *size)
{
    int rc = 1;

    image_use_secret(NULL);
    for (unsigned tries = 0; tries < 5 && rc; tries++)
        rc = shell("rm -f r; printf 'a secret\\n' >secret; printf other >other; qemu-img create -q -f luks "
                   "--object secret,id=s,file=secret -o key-secret=s,iter-time=10%s r %s 2>make.log",
                   options, size);
    assert_int_equal(rc, 0);
}

/* Always the same one. */
static void make_small(void)
{
    if (shell("cp small r 2>/dev/null") != 0) {
        make("", "1M");
        assert_int_equal(shell("cp r small"), 0);
    }
    image_use_secret(NULL);
}

static void test_random(void **state)
{
    static const char *const options[] = {
        "", ",cipher-alg=aes-128,ivgen-alg=plain,hash-alg=sha512",
        ",cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha1",
        ",cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64"};
    char path[200];

    /* Of scratch_path's buffers there are a few only, and a long run takes them all. */
    snprintf(path, sizeof(path), "%s", scratch_path("secret"));
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        make(options[i], "9M");
        image_use_secret(path);
        random_run(scratch_path("r"), "luks", batches / 4);
    }
    const struct disk_create what = {
        .format = "luks", .size = (9 << 20) + 512, .key_file = path, .iter_time = 10};
    assert_int_equal(shell("rm -f r"), 0);
    assert_int_equal(disk_create(scratch_path("r"), &what, NULL), 0);
    image_use_secret(path);
    random_run(scratch_path("r"), "luks", batches / 4);
    image_use_secret(NULL);
}

static void test_secrets(void **state)
{
    struct image image;

    make_small();
    image_refused(scratch_path("r"), "luks", 0, "--secret-file FILE");
    image_use_secret(scratch_path("other"));
    image_refused(scratch_path("r"), "luks", 0, "not by this secret");
    /* The newline counts. */
    assert_int_equal(shell("printf 'a secret' >almost; : >empty; head -c 65537 /dev/zero >long"), 0);
    image_use_secret(scratch_path("almost"));
    image_refused(scratch_path("r"), "luks", 0, "not by this secret");
    /* Another slot, of cryptsetup's, far from the first. */
    if (shell("cryptsetup luksAddKey -q --key-slot 6 --pbkdf-force-iterations 1000 --key-file secret r other "
              ">add.log 2>&1") == 0) {
        image_use_secret(scratch_path("other"));
        image_open(&image, scratch_path("r"), "luks", 0);
        image_close(&image);
    } else {
        assert_int_equal(shell("! command -v cryptsetup >/dev/null"), 0);
    }
    struct disk_files *files;
    struct error *err = NULL;
    static const char *const bad[][2] = {{"empty", "is empty"}, {"long", "64 KiB"}, {"missing", "No such"}};
    assert_int_equal(disk_files_open(&files, scratch_path("r"), "luks", true, NULL), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_true(disk_files_read_secret(files, scratch_path(bad[i][0]), &err) < 0);
        assert_non_null(strstr(error_message(err), bad[i][1]));
        error_free(err);
        err = NULL;
    }
    disk_files_close(files);
    image_use_secret(NULL);
}

static void refused(uint64_t at, const void *bytes, size_t len, const char *part)
{
    make_small();
    int fd = open(scratch_path("r"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, bytes, len, (off_t)at), len);
    close(fd);
    image_use_secret(scratch_path("secret"));
    image_refused(scratch_path("r"), "luks", 0, part);
}

static void word_refused(uint64_t at, uint32_t value, const char *part)
{
    uint8_t bytes[4];

    put_be32(bytes, value);
    refused(at, bytes, 4, part);
}

static void test_lies(void **state)
{
    refused(0, "LUKX", 4, "not a LUKS image");
    refused(6, "\0\3", 2, "version 3");
    refused(8, "twofish", 8, "encrypted by twofish");
    refused(40, "xts-random-and-no-end-of-that-ab", 32, "encrypted by aes-xts-random");
    refused(72, "md5", 4, "by md5");
    word_refused(104, 0, "begins within its header");
    word_refused(104, UINT32_MAX, "cut off");
    word_refused(104, 16, "slot 0");
    word_refused(108, 0, "key of 0 bytes");
    word_refused(108, 65, "key of 65 bytes");
    word_refused(108, 33, "key of 33 bytes");
    word_refused(164, 0, "0 iterations");
    word_refused(164, UINT32_MAX, "4294967295 iterations");
    word_refused(208, 1, "neither in use nor free");
    word_refused(208, 0xdead, "not by this secret");
    word_refused(212, 0, "0 iterations");
    word_refused(212, UINT32_MAX, "iterations");
    word_refused(248, 0, "at byte 0");
    word_refused(248, UINT32_MAX, "stripes at byte");
    word_refused(252, 0, "0 stripes");
    word_refused(252, 1u << 31, "stripes");
    word_refused(112, 7, "not by this secret");
    make_small();
    assert_int_equal(shell("truncate -s 1000 r"), 0);
    image_use_secret(scratch_path("secret"));
    image_refused(scratch_path("r"), "luks", 0, "not by this secret");
    image_use_secret(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_lies),
    };
    const char *steps = getenv("TABIQUE_STEPS");

    if (steps)
        batches = (unsigned)atoi(steps) / 6;
    random_begin();
    return cmocka_run_group_tests_name("luks", tests, NULL, scratch_remove);
}
