/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The documents of container images: indexes, manifests, configurations (OCI image specification 1.1) and the
 * list of docker's archives. All of it is of unknown origin: every type and length is looked at before it
 * counts. No state.
 */
#include "image/oci_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>

#define SHOWN 512 /* bytes of a list of choices */

void oci_image_clear(struct oci_image *image)
{
    for (size_t i = 0; i < image->n_layers; i++)
        free(image->layers[i].path);
    free(image->layers);
    free(image->reference);
    free(image->config);
    *image = (struct oci_image){0};
}

json_t *oci_json_load(const char *text, size_t len, struct error **err)
{
    json_error_t why;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

    if (json && !json_is_object(json) && !json_is_array(json)) {
        json_decref(json);
        json = NULL;
        snprintf(why.text, sizeof(why.text), "no object");
    }
    if (!json) {
        char shown[JSON_ERROR_TEXT_LENGTH];
        text_make_printable(shown, sizeof(shown), why.text);
        error_set(err, EINVAL, "it can't be read as JSON: %s", shown);
    }
    return json;
}

static const char *text_of(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

int oci_digest_parse(const char *text, char out[IMAGE_ID_LENGTH + 1], struct error **err)
{
    char shown[96];

    if (text && strncmp(text, "sha256:", 7) == 0 && strlen(text + 7) == IMAGE_ID_LENGTH &&
        strspn(text + 7, "0123456789abcdef") == IMAGE_ID_LENGTH) {
        memcpy(out, text + 7, IMAGE_ID_LENGTH + 1);
        return 0;
    }
    text_make_printable(shown, sizeof(shown), text ? text : "");
    return error_set(err, EINVAL, "'%s' is no SHA-256 digest", shown);
}

static int parse_descriptor(const json_t *json, struct oci_descriptor *out, struct error **err)
{
    const json_t *size = json_object_get(json, "size");
    const char *type = text_of(json, "mediaType");
    int rc = oci_digest_parse(text_of(json, "digest"), out->digest, err);

    if (rc)
        return rc;
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return error_set(err, EINVAL, "what it names has no size");
    out->size = json_integer_value(size);
    out->is_index = type && (strcmp(type, OCI_INDEX) == 0 ||
                             strcmp(type, "application/vnd.docker.distribution.manifest.list.v2+json") == 0);
    return 0;
}

/* ---- choosing from an index ---- */

static const char *reference_of(const json_t *entry)
{
    return text_of(json_object_get(entry, "annotations"), OCI_REFERENCE_NAME);
}

/* A reference is meant by its whole, by its end behind a slash (other tools put "docker.io/library/" before
 * it), or by its tag. */
static bool is_meant(const char *reference, const char *tag)
{
    if (!tag)
        return true;
    if (!reference)
        return false;
    const char *slash = strrchr(reference, '/'), *colon = strrchr(slash ? slash : reference, ':');
    size_t len = strlen(reference), end = strlen(tag);
    bool is_end = len > end && reference[len - end - 1] == '/' && strcmp(reference + len - end, tag) == 0;
    return strcmp(reference, tag) == 0 || is_end || (colon && strcmp(colon + 1, tag) == 0);
}

/* What does not say is for any. */
static bool fits_platform(const json_t *entry, const char *arch)
{
    const json_t *platform = json_object_get(entry, "platform");
    const char *os = text_of(platform, "os"), *theirs = text_of(platform, "architecture");

    return (!os || strcmp(os, "linux") == 0) && (!theirs || strcmp(theirs, arch) == 0);
}

static void add_choice(char *list, const char *text)
{
    size_t used = strlen(list);
    char shown[128];

    text_make_printable(shown, sizeof(shown), text);
    if (used + strlen(shown) + 8 < SHOWN)
        sprintf(list + used, "%s%s", used ? ", " : "", shown);
    else if (used + 6 < SHOWN && strcmp(list + used - 3, "...") != 0)
        strcpy(list + used, ", ...");
}

static void list_choices(const json_t *list, char *out)
{
    size_t i;
    const json_t *entry;

    out[0] = '\0';
    json_array_foreach((json_t *)(uintptr_t)list, i, entry)
    {
        const char *reference = reference_of(entry),
                   *arch = text_of(json_object_get(entry, "platform"), "architecture");

        add_choice(out, reference ? reference : arch ? arch : "one without a name");
    }
}

static int not_one(const json_t *list, size_t n, const char *tag, const char *arch, struct error **err)
{
    char choices[SHOWN];

    list_choices(list, choices);
    if (!json_array_size(list))
        return error_set(err, ENOENT, "there is no image in it");
    if (n)
        return error_set(err, EINVAL, "there is more than one image in it: say which, as in oci:DIR:TAG (%s)",
                         choices);
    return error_set(err, ENOENT, "there is no image for linux/%s%s%s in it: there is %s", arch,
                     tag ? " of the name " : "", tag ? tag : "", choices);
}

int oci_index_choose(const json_t *index, const char *tag, const char *arch, struct oci_descriptor *out,
                     const char **reference, struct error **err)
{
    const json_t *list = json_object_get(index, "manifests"), *entry, *chosen = NULL;
    size_t i, n = 0;

    if (!json_is_array(list))
        return error_set(err, EINVAL, "it is no index of images: it has no list 'manifests'");
    json_array_foreach((json_t *)(uintptr_t)list, i, entry)
    {
        if (!fits_platform(entry, arch) || !is_meant(reference_of(entry), tag))
            continue;
        /* The same twice is no choice. */
        const char *a = text_of(entry, "digest"), *b = text_of(chosen, "digest");
        if (chosen && a && b && strcmp(a, b) == 0)
            continue;
        chosen = entry;
        n++;
    }
    if (n != 1)
        return not_one(list, n, tag, arch, err);
    if (reference_of(chosen))
        *reference = reference_of(chosen);
    return parse_descriptor(chosen, out, err);
}

/* ---- manifests ---- */

static int make_layers(struct oci_image *image, const json_t *list, struct error **err)
{
    size_t n = json_array_size(list);

    if (!json_is_array(list))
        return error_set(err, EINVAL, "it has no list of layers");
    if (n > OCI_LAYERS_MAX)
        return error_set(err, E2BIG, "it has %zu layers: there may be %u", n, OCI_LAYERS_MAX);
    image->layers = calloc(n + 1, sizeof(*image->layers));
    if (!image->layers)
        return error_set_errno(err, ENOMEM, "layers");
    image->n_layers = n;
    return 0;
}

/* What lies at a registry of other people, or is encrypted, is not in the blob. */
static int check_layer_type(const char *type, struct error **err)
{
    static const char *const known[] = {"", "+gzip", "+zstd"};
    char shown[128];

    for (size_t i = 0; type && i < sizeof(known) / sizeof(known[0]); i++) {
        const char *of[] = {OCI_LAYER, "application/vnd.oci.image.layer.nondistributable.v1.tar"};
        for (size_t j = 0; j < 2; j++)
            if (strncmp(type, of[j], strlen(of[j])) == 0 && strcmp(type + strlen(of[j]), known[i]) == 0)
                return 0;
    }
    if (type && (strcmp(type, "application/vnd.docker.image.rootfs.diff.tar.gzip") == 0 ||
                 strcmp(type, "application/vnd.docker.image.rootfs.diff.tar") == 0 ||
                 strcmp(type, "application/vnd.docker.image.rootfs.diff.tar.zstd") == 0))
        return 0;
    text_make_printable(shown, sizeof(shown), type ? type : "none");
    return error_set(err, EINVAL, "a layer has a form that can't be unpacked: %s", shown);
}

int oci_manifest_parse(const json_t *manifest, struct oci_descriptor *config, struct oci_image *image,
                       struct error **err)
{
    const json_t *list = json_object_get(manifest, "layers"), *item;
    size_t i;
    int rc = parse_descriptor(json_object_get(manifest, "config"), config, err);

    if (rc == 0)
        rc = make_layers(image, list, err);
    if (rc)
        return error_wrap(err, "its manifest");
    json_array_foreach((json_t *)(uintptr_t)list, i, item)
    {
        struct oci_descriptor layer;

        rc = check_layer_type(text_of(item, "mediaType"), err);
        if (rc == 0)
            rc = parse_descriptor(item, &layer, err);
        if (rc)
            return error_wrap(err, "its manifest, layer %zu", i + 1);
        strcpy(image->layers[i].digest, layer.digest);
        if (asprintf(&image->layers[i].path, "blobs/sha256/%s", layer.digest) < 0) {
            image->layers[i].path = NULL;
            return error_set_errno(err, ENOMEM, "layers");
        }
    }
    return 0;
}

static const char *docker_reference(const json_t *entry, const char *tag)
{
    const json_t *tags = json_object_get(entry, "RepoTags");

    for (size_t i = 0; i < json_array_size(tags); i++) {
        const char *reference = json_string_value(json_array_get(tags, i));
        if (reference && is_meant(reference, tag))
            return reference;
    }
    return NULL;
}

static int choose_docker(const json_t *manifest, const char *tag, const json_t **out, struct error **err)
{
    char choices[SHOWN] = "";
    size_t n = 0;

    for (size_t i = 0; i < json_array_size(manifest); i++) {
        const json_t *entry = json_array_get(manifest, i);
        const char *first = docker_reference(entry, NULL);

        add_choice(choices, first ? first : "one without a name");
        if (tag && !docker_reference(entry, tag))
            continue;
        *out = entry;
        n++;
    }
    if (n == 1)
        return 0;
    if (!choices[0])
        return error_set(err, ENOENT, "there is no image in it");
    return n ? error_set(err, EINVAL,
                         "there is more than one image in it: say which, as in docker-archive:FILE:NAME (%s)",
                         choices)
             : error_set(err, ENOENT, "there is no image '%s' in it: there is %s", tag, choices);
}

int oci_docker_choose(const json_t *manifest, const char *tag, struct oci_image *image, char **config,
                      struct error **err)
{
    const json_t *entry = NULL;
    int rc = choose_docker(manifest, tag, &entry, err);

    if (rc)
        return rc;
    const char *path = text_of(entry, "Config"), *reference = docker_reference(entry, tag);
    const json_t *list = json_object_get(entry, "Layers");
    if (!path)
        return error_set(err, EINVAL, "its manifest.json names no configuration");
    rc = make_layers(image, list, err);
    if (rc)
        return error_wrap(err, "its manifest.json");
    for (size_t i = 0; i < image->n_layers; i++) {
        const char *layer = json_string_value(json_array_get(list, i));
        if (!layer)
            return error_set(err, EINVAL, "its manifest.json, layer %zu: no path", i + 1);
        image->layers[i].path = strdup(layer);
        if (!image->layers[i].path)
            return error_set_errno(err, ENOMEM, "layers");
    }
    image->reference = reference ? strdup(reference) : NULL;
    *config = strdup(path);
    return *config && (!reference || image->reference) ? 0 : error_set_errno(err, ENOMEM, "layers");
}

/* ---- configuration ---- */

int oci_config_check(struct oci_image *image, const char *arch, struct error **err)
{
    json_t *json = oci_json_load(image->config, image->config_len, err);
    int rc = 0;

    if (!json)
        return error_wrap(err, "its configuration");
    const char *os = text_of(json, "os"), *theirs = text_of(json, "architecture");
    const json_t *list = json_object_get(json_object_get(json, "rootfs"), "diff_ids");
    if ((os && strcmp(os, "linux") != 0) || (theirs && *theirs && strcmp(theirs, arch) != 0)) {
        char shown[2][32];
        text_make_printable(shown[0], sizeof(shown[0]), os ? os : "linux");
        text_make_printable(shown[1], sizeof(shown[1]), theirs ? theirs : "?");
        rc =
            error_set(err, ENOEXEC, "it is for %s/%s, and this host runs linux/%s", shown[0], shown[1], arch);
    } else if (!json_is_array(list) || json_array_size(list) != image->n_layers) {
        rc = error_set(err, EINVAL, "its configuration has %zu layers, its manifest %zu",
                       json_array_size(list), image->n_layers);
    }
    for (size_t i = 0; rc == 0 && i < image->n_layers; i++) {
        rc = oci_digest_parse(json_string_value(json_array_get(list, i)), image->layers[i].diff, err);
        if (rc)
            error_wrap(err, "its configuration, layer %zu", i + 1);
    }
    json_decref(json);
    return rc;
}
