/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first-boot data of cloud images: a volume in the form that cloud-init calls NoCloud, attached as a
 * read-only disk. Called by whoever starts a guest, before its VM process exists.
 */
#ifndef TABIQUE_GUEST_SEED_H
#define TABIQUE_GUEST_SEED_H

struct error;

struct seed_config {
    const char *user_data;      /* path */
    const char *meta_data;      /* path, or NULL */
    const char *network_config; /* path, or NULL */
    /* What meta_data does not say. A guest keeps its instance id as long as it lives: cloud-init does what
     * belongs to the first boot again whenever it finds another one. */
    const char *instance_id; /* NULL: a new random one */
    const char *hostname;    /* NULL: none */
};

/*
 * Reads and checks the files and makes the volume: an ISO 9660 image with the label that cloud-init looks
 * for, in memory. The descriptor of that memory, or -errno with *err.
 */
int seed_create(const struct seed_config *config, struct error **err);
/*
 * For a guest that is like another: gives the volume at `path`, a copy of that one's, a new instance id, and
 * as far as it has room for it another host name. What the person chose as instance id stays. 0 or -errno
 * with *err.
 */
int seed_renew(const char *path, const char *old_hostname, const char *hostname, struct error **err);

#endif
