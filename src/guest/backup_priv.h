/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What backup.c, backup_stopped.c and stream.c share. */
#ifndef TABIQUE_GUEST_BACKUP_PRIV_H
#define TABIQUE_GUEST_BACKUP_PRIV_H

#include <jansson.h>

struct backup_source;
struct control_request;
struct disk_copy_begun;
struct disk_job;
struct error;
struct home;

/* Has the guest's VM process begin, and waits until it has. A descriptor to which it sends; or -errno with
 * *err, of which the errno is the VM process's if it refused. */
int backup_ask(const struct home *home, const char *guest, const struct control_request *request,
               const struct disk_job *job, struct disk_copy_begun *begun, struct error **err);
/* The number of a disk by its name ("vda"; NULL: the only one). -errno with *err. */
int backup_disk_number(const struct home *home, const char *guest, const char *disk, struct error **err);

/* ---- backup_stopped.c ---- */

/* Opens a disk of a guest that does not run, and is held. 0 or -errno with *err. */
int backup_source_open(struct backup_source **out, const json_t *config, unsigned number, struct error **err);
/* As backup_ask, of a VM process that there is none of. */
int backup_source_ask(struct backup_source *source, const struct control_request *request,
                      const struct disk_job *job, struct disk_copy_begun *begun, struct error **err);
/* When the copy is there, or is not to be. 0 or -errno with *err: its bitmap is not there. NULL is fine. */
int backup_source_close(struct backup_source *source, struct error **err);

#endif
