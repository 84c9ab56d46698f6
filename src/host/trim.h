/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory of short-lived processes. */
#ifndef TABIQUE_HOST_TRIM_H
#define TABIQUE_HOST_TRIM_H

/*
 * Lets go of the pages of code that the dynamic linker and the libraries' initialization have touched; what
 * is needed again is mapped again. The kernel maps 16 pages for each that is touched, so of a library much is
 * mapped that never was needed, and what the start and the rest need is never needed at the same time.
 */
void trim_code(void);

#endif
