/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What backup.c and stream.c share. */
#ifndef TABIQUE_GUEST_BACKUP_PRIV_H
#define TABIQUE_GUEST_BACKUP_PRIV_H

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

#endif
