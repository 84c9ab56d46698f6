/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Documents of container images. The first byte says which: i(ndex), m(anifest), c(onfiguration), d(ocker's
 * list). */
#include "base/error.h"
#include "image/oci_priv.h"
#include "require.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_config(const char *text, size_t len, size_t layers)
{
    struct oci_image image = {.config = malloc(len + 1), .config_len = len};
    struct error *err = NULL;

    REQUIRE(image.config);
    memcpy(image.config, text, len);
    image.layers = calloc(layers + 1, sizeof(*image.layers));
    REQUIRE(image.layers);
    image.n_layers = layers;
    int rc = oci_config_check(&image, "amd64", &err);
    for (size_t i = 0; rc == 0 && i < layers; i++)
        REQUIRE(strlen(image.layers[i].diff) == IMAGE_ID_LENGTH);
    REQUIRE(rc == 0 || *error_message(err));
    error_free(err);
    oci_image_clear(&image);
}

static int try_manifest(const json_t *json, struct oci_image *image, struct error **err)
{
    struct oci_descriptor config;
    int rc = oci_manifest_parse(json, &config, image, err);

    if (rc == 0)
        REQUIRE(strlen(config.digest) == IMAGE_ID_LENGTH && config.size >= 0);
    for (size_t i = 0; rc == 0 && i < image->n_layers; i++)
        REQUIRE(image->layers[i].path && strlen(image->layers[i].digest) == IMAGE_ID_LENGTH);
    return rc;
}

static int try_index(const json_t *json, const char *tag, struct error **err)
{
    struct oci_descriptor out;
    const char *reference = NULL;
    int rc = oci_index_choose(json, tag, "amd64", &out, &reference, err);

    if (rc == 0)
        REQUIRE(strlen(out.digest) == IMAGE_ID_LENGTH && out.size >= 0);
    return rc;
}

static int try_docker(const json_t *json, const char *tag, struct oci_image *image, struct error **err)
{
    char *config = NULL;
    int rc = oci_docker_choose(json, tag, image, &config, err);

    if (rc == 0)
        REQUIRE(config);
    for (size_t i = 0; rc == 0 && i < image->n_layers; i++)
        REQUIRE(image->layers[i].path);
    free(config);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    struct oci_image image = {0};
    struct error *err = NULL;
    int rc;

    if (!size)
        return 0;
    if (data[0] == 'c') {
        try_config(text, size - 1, 2);
        return 0;
    }
    json_t *json = oci_json_load(text, size - 1, &err);
    if (!json)
        rc = -1;
    else if (data[0] == 'm')
        rc = try_manifest(json, &image, &err);
    else if (data[0] == 'd' || data[0] == 'D')
        rc = try_docker(json, data[0] == 'D' ? "web:1" : NULL, &image, &err);
    else
        rc = try_index(json, data[0] == 'I' ? "latest" : NULL, &err);
    /* What does not pass says why. */
    REQUIRE(rc == 0 || *error_message(err));
    error_free(err);
    oci_image_clear(&image);
    json_decref(json);
    return 0;
}
