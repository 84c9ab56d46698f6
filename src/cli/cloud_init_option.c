/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The value of --cloud-init: FILE[,meta-data=FILE][,network-config=FILE]. A comma that belongs to a name is
 * written twice. No locks, no state. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/suggest.h"
#include "cli/cli.h"
#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const words[] = {"meta-data", "network-config"};

static int take_option(struct seed_config *seed, const char *option, struct error **err)
{
    const char *equals = strchr(option, '=');
    size_t n = equals ? (size_t)(equals - option) : strlen(option);
    const char **const places[] = {&seed->meta_data, &seed->network_config};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strlen(words[i]) != n || strncmp(words[i], option, n) != 0)
            continue;
        if (*places[i])
            return error_set(err, EINVAL, "--cloud-init: '%s' is given twice", words[i]);
        if (!equals || !equals[1])
            return error_set(err, EINVAL, "--cloud-init: '%s' needs a file", words[i]);
        *places[i] = strdup(equals + 1);
        return *places[i] ? 0 : error_set_errno(err, ENOMEM, "--cloud-init");
    }
    cleanup_free char *name = strndup(option, n);
    const char *meant = name ? suggest_nearest(name, words, ARRAY_SIZE(words)) : NULL;
    return error_set(
        err, EINVAL, "--cloud-init: unknown option '%s'%s%s%s (a comma in a file's name is written twice)",
        name ? name : option, meant ? ": did you mean " : "", meant ? meant : "", meant ? "?" : "");
}

void cli_cloud_init_free(struct seed_config *seed)
{
    free((char *)(uintptr_t)seed->user_data);
    free((char *)(uintptr_t)seed->meta_data);
    free((char *)(uintptr_t)seed->network_config);
    *seed = (struct seed_config){0};
}

int cli_parse_cloud_init(const char *text, struct seed_config *out, struct error **err)
{
    struct seed_config seed = {.user_data = cli_take_word(&text)};
    int rc = seed.user_data ? 0 : error_set_errno(err, ENOMEM, "--cloud-init");

    if (rc == 0 && !*seed.user_data)
        rc = error_set(err, EINVAL, "--cloud-init: the file's name is empty");
    while (rc == 0 && text) {
        cleanup_free char *option = cli_take_word(&text);
        rc = option ? take_option(&seed, option, err) : error_set_errno(err, ENOMEM, "--cloud-init");
    }
    if (rc) {
        cli_cloud_init_free(&seed);
        return rc;
    }
    *out = seed;
    return 0;
}

int cli_check_cloud_init(const char *text, struct error **err)
{
    struct seed_config seed;
    int rc = cli_parse_cloud_init(text, &seed, err);

    if (rc == 0)
        cli_cloud_init_free(&seed);
    return rc;
}
