/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Intel's Resource Director Technology: a container's class of service in the resctrl file system
 * (config-linux.md, "IntelRdt"). */
#ifndef TABIQUE_CONTAINER_INTEL_RDT_H
#define TABIQUE_CONTAINER_INTEL_RDT_H

#include "container/config.h"

struct error;

/* Makes or finds the class, sets it, and puts the process into it. -errno with *err. */
int intel_rdt_enter(const struct container_intel_rdt *rdt, const char *id, pid_t pid, struct error **err);

/* What is to be removed with the container: a class that was made for it alone. JSON, or NULL. */
json_t *intel_rdt_save(const struct container_intel_rdt *rdt, const char *id);
void intel_rdt_remove(json_t *saved);

#endif
