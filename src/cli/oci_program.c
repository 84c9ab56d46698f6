/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program tabique-oci: what `tabique` does under that name, without what only virtual machines need,
 * which each of its short lives would load. */
#include "cli/oci.h"
#include "host/trim.h"

int main(int argc, char **argv)
{
    trim_code();
    return oci_main(argc, argv);
}
