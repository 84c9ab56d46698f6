/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes AML, the byte code of ACPI's namespace (ACPI 6.5, chapter 20), and resource templates (6.4) into a
 * buffer of fixed size. What does not fit sets `overflow` and is dropped, so that only the end has to be
 * checked. Objects that contain others are opened and closed: `size_t m = aml_scope(a, "\\_SB_"); ...;
 * aml_end(a, m);`
 */
#ifndef TABIQUE_MACHINE_ACPI_AML_H
#define TABIQUE_MACHINE_ACPI_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
    uint8_t *buf;
    size_t size, used;
    bool overflow;
};

/* --- objects that contain others: give the mark for aml_end -------------------------------------------- */

size_t aml_scope(struct aml *a, const char *path);
size_t aml_device(struct aml *a, const char *name);
/* `arguments`: 0..7. Serialized, since methods here create named fields. */
size_t aml_method(struct aml *a, const char *name, unsigned arguments);
/* `elements`: 0..255, to be written before the end. */
size_t aml_package(struct aml *a, unsigned elements);
size_t aml_if(struct aml *a); /* the predicate follows first */
void aml_end(struct aml *a, size_t mark);

/* --- names and data ------------------------------------------------------------------------------------ */

/* Name(name, ...): the object follows. Names have four letters: "_HID". */
void aml_name(struct aml *a, const char *name);
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_buffer(struct aml *a, const void *data, size_t n);
/* A compressed device id, such as "PNP0A08": three capitals and four hexadecimal digits. */
void aml_eisa_id(struct aml *a, const char *id);

/* --- statements ---------------------------------------------------------------------------------------- */

void aml_arg(struct aml *a, unsigned n);
void aml_path(struct aml *a, const char *name); /* a reference to a named object */
void aml_return(struct aml *a);                 /* the value follows */
void aml_equal(struct aml *a);                  /* both operands follow */
/* Or(target, value, target) for a named target. */
void aml_or_into(struct aml *a, const char *target, uint64_t value);
/* CreateDWordField(ArgN, byte_offset, name). */
void aml_create_dword_field(struct aml *a, unsigned arg, unsigned byte_offset, const char *name);

/* --- resource templates -------------------------------------------------------------------------------- */

/* A buffer: ResourceTemplate () { ... }. */
size_t aml_resources(struct aml *a);
void aml_resources_end(struct aml *a, size_t mark);
void aml_io(struct aml *a, uint16_t port, uint8_t length);
void aml_irq(struct aml *a, unsigned irq); /* edge, active high, exclusive */
void aml_memory32(struct aml *a, uint32_t base, uint32_t length);
/* Ranges that a bridge passes on. `last` is inclusive. */
void aml_window_bus(struct aml *a, uint16_t first, uint16_t last);
void aml_window_io(struct aml *a, uint16_t first, uint16_t last);
void aml_window_memory32(struct aml *a, uint32_t first, uint32_t last);

#endif
