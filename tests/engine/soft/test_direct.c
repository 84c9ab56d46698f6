/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Direct execution: the mirrors of address spaces in stubs, and what leaves them. test_direct_stub.c has the
 * stubs. */
#include "base/error.h"
#include "cpu_fixture.h"
#include "engine/soft/direct.h"
#include "engine/soft/direct_space.h"
#include "engine/soft/direct_stub.h"
#include "engine/soft/soft.h"
#include "engine/soft/soft_priv.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cmocka.h>

#define PAGE   4096u
#define LINUX3 0x2bu /* the stack's selector that stubs have */

#define PT_ENTRY(linear)    (0x103000u + 8 * ((linear) >> 12 & 511))
#define PD_ENTRY(linear)    (0x102000u + 8 * ((linear) >> 21 & 511))
#define PDPT_ENTRY(address) (0x101000 + 8 * ((address) >> 30 & 511))
#define USER_CODE           (HOLE_AT + 0x10000)
#define USER_DATA           (HOLE_AT + 0x20000)
#define CODE_PAGE           0x310000u
#define DATA_PAGE           0x320000u

static struct soft_vcpu *begin_guest(const uint8_t *code, size_t length)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);
    struct error *err = NULL;

    c->seg[CPU_SS].selector = LINUX3;
    c->iflag = FLAG_IF;
    for (unsigned seg = CPU_ES; seg < CPU_SEGMENTS; seg++) {
        if (seg != CPU_CS && seg != CPU_SS)
            c->seg[seg] = (struct cpu_segment_state){0};
    }
    memcpy(fixture_ram(CODE_PAGE), code, length);
    fixture_map(USER_CODE, CODE_PAGE);
    fixture_map(USER_DATA, DATA_PAGE);
    c->rip = USER_CODE;
    c->gpr[CPU_RBX] = USER_DATA;
    if (!c->direct && soft_direct_start(c, &err) < 0)
        fail_msg("%s", error_message(err));
    c->pending = 0;
    soft_direct_note(c, false);
    return c;
}
#define BEGIN(...) begin_guest((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static int end_guest(void **state)
{
    soft_direct_end(fixture_vcpu());
    fixture_end();
    return 0;
}

static int processors(void)
{
    cpu_set_t set;

    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    return CPU_COUNT(&set);
}

static void the_thread_stays_with_its_stubs_while_it_runs_them(void **state)
{
    int before = processors();
    struct soft_vcpu *c = BEGIN(0x0f, 0x05); /* syscall */

    assert_int_equal(processors(), before);
    soft_direct_run(c);
    assert_int_equal(processors(), 1);
    soft_direct_rest(c);
    assert_int_equal(processors(), 1); /* it may run one again at once */
    usleep(20000);
    soft_direct_rest(c);
    assert_int_equal(processors(), before);
}

static void code_runs_until_it_calls(void **state)
{
    /* mov ecx, 1000; next: add [rbx], rcx; loop next; stc; mov eax, 39; syscall */
    struct soft_vcpu *c =
        BEGIN(0xb9, 0xe8, 0x03, 0, 0, 0x48, 0x01, 0x0b, 0xe2, 0xfb, 0xf9, 0xb8, 39, 0, 0, 0, 0x0f, 0x05);

    fixture_write(DATA_PAGE, 1, 8);
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 16);
    assert_int_equal(c->gpr[CPU_RAX], 39);
    assert_true(c->flags & FLAG_CF);
    assert_int_equal(fixture_read(DATA_PAGE, 8), 1 + 1000 * 1001 / 2);
    /* As the access itself would have set them. */
    assert_int_equal(fixture_read(PT_ENTRY(USER_DATA), 1) & 0x60, 0x60);
    assert_int_equal(fixture_read(PT_ENTRY(USER_CODE), 1) & 0x60, 0x20);
}

static void vector_registers_go_there_and_back(void **state)
{
    /* paddd xmm1, xmm0; movdqu [rbx], xmm1; syscall */
    struct soft_vcpu *c = BEGIN(0x66, 0x0f, 0xfe, 0xc8, 0xf3, 0x0f, 0x7f, 0x0b, 0x0f, 0x05);

    c->xsave[512] = 3;
    for (unsigned n = 0; n < 32; n++)
        c->xsave[160 + n] = (uint8_t)n;
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 8);
    for (unsigned n = 0; n < 16; n++) {
        assert_int_equal(((uint8_t *)fixture_ram(DATA_PAGE))[n], 2 * n + 16);
        assert_int_equal(c->xsave[176 + n], 2 * n + 16);
    }
}

/* Registers that the guest has not been told of: another address space does not find what one has left in
 * them. */
static void registers_beyond_the_guests_begin_anew(void **state)
{
    static const uint8_t set[] = {0x62, 0x03, 0x05, 0x40, 0x25,
                                  0xff, 0xff, 0x0f, 0x05}; /* zmm31 = all ones */
    static const uint8_t show[] = {0x62, 0x61, 0xfe, 0x48,
                                   0x7f, 0x3b, 0x0f, 0x05}; /* [rbx] = zmm31; syscall */

    struct soft_vcpu *c = begin_guest(set, sizeof(set));
    if (!__builtin_cpu_supports("avx512f"))
        skip();
    memcpy(fixture_ram(CODE_PAGE + 256), show, sizeof(show));
    memset(fixture_ram(DATA_PAGE), 0x55, 64);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 7);
    /* As many other address spaces as there are stubs, and each stub gets another one. */
    for (unsigned n = 1; n <= 4; n++) {
        uint64_t table = 0x330000 + n * PAGE;
        memcpy(fixture_ram(table), fixture_ram(c->cr3), PAGE);
        c->cr3 = table;
        soft_tlb_flush(c, false);
        c->rip = USER_CODE + 256;
        soft_direct_run(c);
        assert_true(c->rip == USER_CODE + 256 + 6);
        for (unsigned byte = 0; byte < 64; byte++)
            assert_int_equal(((uint8_t *)fixture_ram(DATA_PAGE))[byte], 0);
    }
}

static void what_the_guest_takes_away_is_gone_after_its_flush(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0x8b, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; syscall */

    fixture_write(DATA_PAGE, 77, 8);
    soft_direct_run(c);
    assert_int_equal(c->gpr[CPU_RAX], 77);
    fixture_write(DATA_PAGE + PAGE, 78, 8);
    fixture_map(USER_DATA, DATA_PAGE + PAGE); /* flushes the page */
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_int_equal(c->gpr[CPU_RAX], 78);
    fixture_write(PT_ENTRY(USER_DATA), 0, 8);
    soft_tlb_flush(c, false);
    c->rip = USER_CODE;
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE); /* the translator raises the page fault */
    ASSERT_FAULT(soft_step(c), VEC_PF, 4);
}

static uint64_t read_directly(uint64_t address)
{
    struct soft_vcpu *c = fixture_vcpu();

    c->rip = USER_CODE;
    c->gpr[CPU_RBX] = address;
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 3);
    return c->gpr[CPU_RAX];
}

static void single_pages_are_dropped(void **state)
{
    const uint64_t large = 0x400000, other = 0x600000, inside = 0x5000, gib = 1u << 30;

    BEGIN(0x48, 0x8b, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; syscall */
    for (uint64_t n = 0; n < 8; n++)
        fixture_write(DATA_PAGE + n * PAGE, n, 8);
    /* Some at a time, and more than are kept in mind. */
    for (unsigned count = 1; count <= 3 * FLUSHED_MAX; count += FLUSHED_MAX - 1) {
        for (unsigned round = 0; round < 3; round++) {
            for (unsigned n = 0; n < count; n++)
                fixture_map(USER_DATA + n * PAGE, DATA_PAGE + (n + round) % 8 * PAGE);
            for (unsigned n = 0; n < count; n++)
                assert_int_equal(read_directly(USER_DATA + n * PAGE), (n + round) % 8);
        }
    }
    /* By any of its addresses. */
    fixture_write(large + inside, 1, 8);
    fixture_write(other + inside, 2, 8);
    assert_int_equal(read_directly(large + inside), 1);
    fixture_write(PD_ENTRY(large), other | 0xe7, 8);
    soft_tlb_flush_page(fixture_vcpu(), large + 0x100000);
    assert_int_equal(read_directly(large + inside), 2);
    /* In its stead a table, of which all is gone. */
    fixture_write(PD_ENTRY(large), 0x103000 | 7, 8);
    soft_tlb_flush_page(fixture_vcpu(), large);
    assert_int_equal(read_directly(large + (USER_DATA & 0x1fffff)), 2);
    /* Of a page of 1 GiB, too. */
    fixture_write(PDPT_ENTRY(gib), 0xe7, 8);
    assert_int_equal(read_directly(gib + other + inside), 2);
    fixture_write(PDPT_ENTRY(gib), 0, 8);
    soft_tlb_flush_page(fixture_vcpu(), gib + (gib >> 1));
    fixture_vcpu()->rip = USER_CODE;
    assert_int_equal(soft_direct_run(fixture_vcpu()), SOFT_JUMP);
    assert_true(fixture_vcpu()->rip == USER_CODE);
}

static void rights_are_those_of_the_page_tables(void **state)
{
    struct soft_vcpu *c =
        BEGIN(0x48, 0x8b, 0x03, 0x48, 0x89, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; mov [rbx], rax */

    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 5, 8);
    soft_tlb_flush(c, false);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 3);
    /* A page of the kernel's. */
    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 3, 8);
    soft_tlb_flush(c, false);
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    /* Clean pages are not written without our notice. */
    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 7, 8);
    soft_tlb_flush(c, false);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 6);
    assert_int_equal(fixture_read(PT_ENTRY(USER_DATA), 1) & 0x60, 0x60);
    /* The kernel's half is out of reach. */
    c->rip = USER_CODE;
    c->gpr[CPU_RBX] = 0xffff800000000000;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    c->gpr[CPU_RBX] = 0x7ffffffff000;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
}

static void stores_to_translated_code_are_noticed(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0x89, 0x03, 0x0f, 0x05); /* mov [rbx], rax; syscall */

    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 3);
    /* Now the page is executed by the translator: mov al, 5; nop ... */
    fixture_write(DATA_PAGE, 0x9090909090900590 | 0xb000, 8);
    fixture_write(DATA_PAGE, 0x90909090909005b0, 8);
    c->rip = USER_DATA;
    assert_int_equal(soft_step(c), SOFT_JUMP);
    assert_int_equal(c->gpr[CPU_RAX] & 0xff, 5);
    c->rip = USER_CODE;
    c->gpr[CPU_RAX] = 0x90909090909006b0;
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE); /* for the translator */
    assert_int_equal(soft_step(c), SOFT_JUMP);
    c->rip = USER_DATA;
    assert_int_equal(soft_step(c), SOFT_JUMP);
    assert_int_equal(c->gpr[CPU_RAX] & 0xff, 6);
}

static void what_tells_of_the_host_is_translated(void **state)
{
    static const uint8_t cpuid[] = {0x0f, 0xa2}, rdtscp[] = {0x0f, 0x01, 0xf9},
                         rdpid[] = {0xf3, 0x0f, 0xc7, 0xf8};
    static const uint8_t wrpkru[] = {0x0f, 0x01, 0xef}, xgetbv[] = {0x0f, 0x01, 0xd0};
    const struct {
        const uint8_t *code;
        size_t length;
    } cases[] = {{cpuid, 2}, {rdtscp, 3}, {rdpid, 4}, {wrpkru, 3}, {xgetbv, 3}};

    for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        struct soft_vcpu *c = begin_guest(cases[n].code, cases[n].length);
        assert_int_equal(soft_direct_run(c), SOFT_JUMP);
        assert_true(c->rip == USER_CODE);
        end_guest(NULL);
    }
    BEGIN(0x90);
}

static void the_tsc_is_read_where_it_is_the_hosts(void **state)
{
    struct soft_vcpu *c = BEGIN(0x0f, 0x31, 0x0f, 0x05); /* rdtsc; syscall */

    uint64_t before = __rdtsc();
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 2);
    uint64_t value = c->gpr[CPU_RDX] << 32 | c->gpr[CPU_RAX];
    assert_true(value > before && value < __rdtsc());
    /* Not where the guest has set it, or forbids it. */
    c->tsc_offset = 1000;
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    c->tsc_offset = 0;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 2);
    c->cr4 |= CR4_TSD;
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    c->cr4 &= ~(uint64_t)CR4_TSD;
}

static void one_instruction_is_left_to_the_translator(void **state)
{
    struct soft_vcpu *c = BEGIN(0x0f, 0x0b, 0x0f, 0x05); /* ud2; syscall */

    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(soft_direct_left_one(c));
    assert_false(soft_direct_left_one(c));
    c->rip = USER_CODE + 2;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 2);
    assert_false(soft_direct_left_one(c));
}

/* The kernel is in no hurry to be asked twice. */
static void what_a_page_fault_brings_is_there_at_once(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0x8b, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; syscall */

    fixture_write(PT_ENTRY(USER_DATA), 0, 8);
    soft_tlb_flush(c, false);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    uint64_t before = c->stats.stops[ENGINE_STOP_MAP];
    fixture_write(DATA_PAGE, 79, 8);
    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 0x67, 8);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 3);
    assert_int_equal(c->gpr[CPU_RAX], 79);
    assert_int_equal(c->stats.stops[ENGINE_STOP_MAP], before);
}

static void go_to(struct soft_vcpu *c, unsigned cpl)
{
    c->cpl = (uint8_t)cpl;
    soft_update_key(c);
    soft_direct_note(c, false);
}

/* What has run for long is sent to a stub, but not a new program in the same address space. */
static void a_program_proves_that_it_computes(void **state)
{
    struct soft_vcpu *c = BEGIN(0x0f, 0x05);

    c->cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    c->xcr0 = 7;
    for (unsigned n = 0; n < 3; n++) {
        go_to(c, 3);
        usleep(10000);
        go_to(c, 0);
    }
    go_to(c, 3);
    assert_true(soft_direct_due(c));
    go_to(c, 0);
    memset(c->gpr, 0, sizeof(c->gpr));
    c->gpr[CPU_RSP] = USER_DATA;
    go_to(c, 3);
    assert_false(soft_direct_due(c));
}

/* Of a page that user code can't write to, all but the instruction itself runs. */
static void what_tells_of_the_host_is_cut_out(void **state)
{
    uint8_t code[PAGE];

    memset(code, 0x90, sizeof(code));
    memcpy(code + 1000, (const uint8_t[]){0x0f, 0xa2, 0xff, 0xc3, 0x0f, 0x05},
           6); /* cpuid; inc ebx; syscall */
    struct soft_vcpu *c = begin_guest(code, sizeof(code));
    fixture_write(PT_ENTRY(USER_CODE), CODE_PAGE | 5, 8);
    soft_tlb_flush(c, false);
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 1000);
    c->rip = USER_CODE + 1002;
    c->gpr[CPU_RBX] = 5;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1004);
    assert_int_equal(c->gpr[CPU_RBX], 6);
    /* The guest's own is as it was, and what its kernel changes there comes to pass. */
    assert_memory_equal(fixture_ram(CODE_PAGE), code, sizeof(code));
    memcpy(fixture_ram(CODE_PAGE + 1002), (const uint8_t[]){0xff, 0xcb}, 2); /* dec ebx */
    c->rip = USER_CODE + 1002;
    soft_direct_run(c);
    assert_int_equal(c->gpr[CPU_RBX], 5);
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1000);
    memcpy(fixture_ram(CODE_PAGE + 1000), (const uint8_t[]){0x90, 0x90}, 2);
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1004);
}

static void what_is_only_read_is_whole(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0x8b, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; syscall */

    memset(fixture_ram(DATA_PAGE), 0x90, PAGE);
    memcpy(fixture_ram(DATA_PAGE + 1000), (const uint8_t[]){0x0f, 0xa2}, 2);
    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 5, 8);
    soft_tlb_flush(c, false);
    c->gpr[CPU_RBX] = USER_DATA + 1000;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 3);
    assert_true(c->gpr[CPU_RAX] == 0x909090909090a20f);
    c->rip = USER_DATA;
    soft_direct_run(c);
    assert_true(c->rip == USER_DATA + 1000);
}

static void breakpoints_are_where_they_are(void **state)
{
    struct soft_vcpu *c = BEGIN(0x90, 0xcc);

    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1);
    memcpy(fixture_ram(CODE_PAGE), (const uint8_t[]){0x90, 0xf1}, 2);
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1);
}

/* POPF that sets TF: the trap comes after the next instruction. */
static void single_steps_that_the_code_asks_for(void **state)
{
    /* pushf; or dword [rsp], 0x100; popf; inc eax; inc eax */
    struct soft_vcpu *c = BEGIN(0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0xff, 0xc0, 0xff, 0xc0);

    c->gpr[CPU_RSP] = USER_DATA + 0x800;
    c->gpr[CPU_RAX] = 0;
    assert_int_equal(soft_direct_run(c), SOFT_FAULT);
    assert_int_equal(c->fault.vector, VEC_DB);
    assert_int_equal(c->fault.dr6, 1u << 14);
    assert_true(c->rip == USER_CODE + 11);
    assert_int_equal(c->gpr[CPU_RAX], 1);
    assert_true(c->sysflags & FLAG_TF);
}

static void scattered_pages_beyond_every_limit(void **state)
{
    /* next: inc qword [rbx]; add rbx, 4096; dec ecx; jnz next; syscall */
    struct soft_vcpu *c =
        BEGIN(0x48, 0xff, 0x03, 0x48, 0x81, 0xc3, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf2, 0x0f, 0x05);

    /* Every other page twice: no two of them make one area. */
    for (unsigned n = 0; n < 128; n++)
        fixture_map(USER_DATA + n * PAGE, DATA_PAGE + (n % 64) * 2 * PAGE % 0x80000);
    for (unsigned round = 0; round < 600; round++) {
        c->rip = USER_CODE;
        c->gpr[CPU_RBX] = USER_DATA;
        c->gpr[CPU_RCX] = 128;
        /* Anew each time, so that the count of areas only grows. */
        for (unsigned n = 0; n < 128; n++)
            fixture_write(PT_ENTRY(USER_DATA + n * PAGE),
                          DATA_PAGE + ((n + round) % 64) * 2 * PAGE % 0x80000 + 7, 8);
        soft_tlb_flush(c, false);
        assert_int_equal(soft_direct_run(c), SOFT_JUMP);
        assert_true(c->rip == USER_CODE + 14);
    }
}

static unsigned kill_children(void)
{
    char path[64], line[256] = "";
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)gettid());
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    fclose(file);
    for (char *at = line, *end;; at = end, n++) {
        long pid = strtol(at, &end, 10);
        if (end == at)
            return n;
        kill((pid_t)pid, SIGKILL);
    }
}

/* As the host does when its memory runs short. What the stub was given is still here, and the translator goes
 * on. */
static void a_waiting_stub_that_is_killed_takes_nothing_along(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0xff, 0x03, 0x0f, 0x05); /* inc qword [rbx]; syscall */

    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 3);
    assert_true(kill_children() >= 4);
    usleep(50000);
    for (unsigned n = 0; n < 3; n++) {
        c->rip = USER_CODE;
        assert_int_equal(soft_direct_run(c), SOFT_JUMP);
        assert_true(c->rip == USER_CODE);
        assert_false(c->halted);
    }
    assert_int_equal(soft_step(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 3);
    assert_int_equal(fixture_read(DATA_PAGE, 8), 2);
}

int main(void)
{
    const struct CMUnitTest code[] = {
        cmocka_unit_test_teardown(code_runs_until_it_calls, end_guest),
        cmocka_unit_test_teardown(the_thread_stays_with_its_stubs_while_it_runs_them, end_guest),
        cmocka_unit_test_teardown(vector_registers_go_there_and_back, end_guest),
        cmocka_unit_test_teardown(registers_beyond_the_guests_begin_anew, end_guest),
        cmocka_unit_test_teardown(what_the_guest_takes_away_is_gone_after_its_flush, end_guest),
        cmocka_unit_test_teardown(single_pages_are_dropped, end_guest),
        cmocka_unit_test_teardown(rights_are_those_of_the_page_tables, end_guest),
        cmocka_unit_test_teardown(stores_to_translated_code_are_noticed, end_guest),
        cmocka_unit_test_teardown(what_tells_of_the_host_is_translated, end_guest),
        cmocka_unit_test_teardown(the_tsc_is_read_where_it_is_the_hosts, end_guest),
        cmocka_unit_test_teardown(one_instruction_is_left_to_the_translator, end_guest),
        cmocka_unit_test_teardown(what_a_page_fault_brings_is_there_at_once, end_guest),
        cmocka_unit_test_teardown(a_program_proves_that_it_computes, end_guest),
        cmocka_unit_test_teardown(what_tells_of_the_host_is_cut_out, end_guest),
        cmocka_unit_test_teardown(what_is_only_read_is_whole, end_guest),
        cmocka_unit_test_teardown(breakpoints_are_where_they_are, end_guest),
        cmocka_unit_test_teardown(single_steps_that_the_code_asks_for, end_guest),
        cmocka_unit_test_teardown(scattered_pages_beyond_every_limit, end_guest),
        cmocka_unit_test_teardown(a_waiting_stub_that_is_killed_takes_nothing_along, end_guest),
    };
    struct direct_stub trial;
    struct error *err = NULL;

    int fd = memfd_create("trial", MFD_CLOEXEC);
    if (direct_stub_create(&trial, fd, &err) < 0) {
        printf("this host does not permit stubs: %s\n", error_message(err));
        return 77;
    }
    direct_stub_destroy(&trial);
    close(fd);
    return cmocka_run_group_tests_name("engine/soft/direct", code, NULL, NULL);
}
