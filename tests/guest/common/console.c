/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a test guest says and how it ends: COM1, checks, the debug-exit port. */
#include "guest_priv.h"

#include <stdarg.h>

#define COM1       0x3f8
#define DEBUG_EXIT 0xf4

static unsigned failures;
static volatile char print_lock;

void console_init(void)
{
    outb(COM1 + 1, 0);    /* no interrupts */
    outb(COM1 + 3, 0x80); /* divisor latch */
    outb(COM1 + 0, 1);    /* 115200 baud */
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3); /* 8N1 */
    outb(COM1 + 2, 7); /* FIFOs on and empty */
    outb(COM1 + 4, 3); /* DTR, RTS */
}

static void put(char c)
{
    if (c == '\n')
        put('\r');
    while (!(inb(COM1 + 5) & 0x20))
        cpu_relax();
    outb(COM1, (uint8_t)c);
}

static void put_number(uint64_t v, unsigned base, unsigned width, bool negative)
{
    char digits[20];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    if (negative)
        put('-');
    for (unsigned i = n; i < width; i++)
        put('0');
    while (n)
        put(digits[--n]);
}

void print(const char *format, ...)
{
    va_list args;

    while (__atomic_test_and_set(&print_lock, __ATOMIC_ACQUIRE))
        cpu_relax();
    va_start(args, format);
    for (const char *p = format; *p; p++) {
        unsigned width = 0;
        bool wide = false;

        if (*p != '%') {
            put(*p);
            continue;
        }
        for (p++; *p >= '0' && *p <= '9'; p++)
            width = width * 10 + (unsigned)(*p - '0');
        for (; *p == 'l'; p++)
            wide = true;
        if (*p == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++)
                put(*s);
        } else if (*p == 'c') {
            put((char)va_arg(args, int));
        } else if (*p == 'd') {
            int64_t v = wide ? va_arg(args, int64_t) : va_arg(args, int);
            put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10, width, v < 0);
        } else if (*p == 'u' || *p == 'x' || *p == 'p') {
            uint64_t v = wide || *p == 'p' ? va_arg(args, uint64_t) : va_arg(args, unsigned);
            put_number(v, *p == 'u' ? 10 : 16, width, false);
        } else if (*p) {
            put(*p);
        } else {
            break;
        }
    }
    va_end(args);
    __atomic_clear(&print_lock, __ATOMIC_RELEASE);
}

bool check_result(bool ok, const char *file, int line, const char *what)
{
    if (!ok) {
        __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
        print("not ok: %s:%d: %s\n", file, line, what);
    }
    return ok;
}

bool check_equal(uint64_t is, uint64_t expected, const char *file, int line, const char *what)
{
    if (is != expected) {
        __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
        print("not ok: %s:%d: %s is 0x%lx, expected 0x%lx\n", file, line, what, is, expected);
    }
    return is == expected;
}

static void count_failure(bool ok)
{
    if (!ok)
        __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
}

unsigned check_failures(void)
{
    return failures;
}

bool check_value(const char *name, uint64_t got, uint64_t want)
{
    bool ok = got == want;

    count_failure(ok);
    if (ok)
        print("ok %s\n", name);
    else
        print("FAIL %s: got 0x%lx want 0x%lx\n", name, got, want);
    return ok;
}

bool check_trap(const char *name, const struct trap_result *r, int vector, uint64_t error)
{
    bool ok = r->vector == vector && (vector < 0 || r->error == error);

    count_failure(ok);
    if (ok)
        print("ok %s\n", name);
    else
        print("FAIL %s: got trap %d error 0x%lx want trap %d error 0x%lx (rip 0x%lx cr2 0x%lx)\n", name,
              r->vector, r->error, vector, error, r->rip, r->cr2);
    return ok;
}

const char *check_name(const char *first, ...)
{
    static char name[128];
    unsigned n = 0;
    va_list args;

    va_start(args, first);
    for (const char *part = first; part; part = va_arg(args, const char *))
        while (*part && n < sizeof(name) - 1)
            name[n++] = *part++;
    va_end(args);
    name[n] = 0;
    return name;
}

void check_skip(const char *name, const char *why)
{
    print("skip %s (%s)\n", name, why);
}

void guest_exit(unsigned code)
{
    outl(DEBUG_EXIT, code);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* Called by start.S in long mode. */
void guest_start(void)
{
    console_init();
    boot_info_init();
    page_init();
    trap_init_cpu(0);
    guest_main();
    print(failures ? "guest: %u checks failed\n" : "guest: passed\n", failures);
    guest_exit(failures ? GUEST_FAILED : GUEST_PASSED);
}

/* The compiler calls these for what it does not inline. */
void *memset(void *to, int value, size_t n)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *at = to;

    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;

    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x < *y ? -1 : 1;
    return 0;
}
