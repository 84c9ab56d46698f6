/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the translator share: the code cache and its blocks, sites and exits, the common stubs,
 * and the engine's structure. Handlers of instructions need vcpu.h only.
 *
 * The code cache is shared by all vCPUs. Threads run translated code without any lock; translation, linking
 * and invalidation hold `lock`. Memory of blocks is reused only by a whole flush, with every vCPU outside
 * translated code.
 */
#ifndef TABIQUE_ENGINE_SOFT_PRIV_H
#define TABIQUE_ENGINE_SOFT_PRIV_H

#include "engine/engine.h"
#include "engine/soft/vcpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define CODE_SIZE (26u << 20) /* COLD_SIZE of it for what is rarely run */
#define COLD_SIZE (13u << 19)
#define META_SIZE (12u << 20)
/* What each further vCPU takes of these, so that a guest of eight costs the host no more than one of one. */
#define CODE_LESS       (11u << 17)
#define COLD_LESS       (3u << 17) /* of CODE_LESS */
#define META_LESS       (5u << 17)
#define DIRECT_VERDICTS 8192u
#define MAX_BLOCKS      (118u << 10)
#define HASH_SIZE       (256u << 10)
#define BLOCK_INSNS     32
/* No block's code or metadata gets larger than this. */
#define BLOCK_CODE_MAX (48u << 10)
#define BLOCK_META_MAX (16u << 10)

#define NO_PAGE UINT64_MAX

#define SOFT_ISA_EXTS 128

struct soft_block;

/* A way out of a block that may lead to the dispatcher: vcpu->exit_link points to it then. */
struct soft_exit {
    uint64_t target;  /* less page_rip: guest RIP; for an indirect branch, the branch instruction's own */
    int32_t undo_rsp; /* indirect: what to add to RSP if the target turns out non-canonical */
    uint8_t kind;
    uint8_t leave; /* of a link, from `unlinked`: the rel32 of the jump out of the block; or 0 */
};
/* PLAIN: to the same instruction in a block with KEY_PLAIN. */
enum { EXIT_KIND_DIRECT, EXIT_KIND_FAR_PAGE, EXIT_KIND_INDIRECT, EXIT_KIND_PLAIN };

/* The direct and plain ones: a jump that is patched once its target's block is known. There are more of these
 * than of anything else here, so they are small: blocks are told by index, other links by soft_link_offset.
 */
struct soft_link {
    struct soft_exit exit;
    uint32_t patch;    /* offset of the rel32 in the code cache */
    uint32_t unlinked; /* where the jump goes while not linked */
    uint32_t from;
    uint32_t to; /* + 1, or 0 */
    uint32_t next_incoming, next_outgoing;
};

/* A place that accesses guest memory: what its slow path must know. */
struct soft_site {
    uint32_t resume; /* offset in the code cache: the access itself, with its address in s1 + s2 */
    uint32_t block;  /* index */
    uint16_t post;   /* from the block's `cold`: a copy of the access that reports its write afterwards; 0 for
                        reads */
    uint16_t after;  /* from `resume` */
    uint16_t insn;   /* offset of the instruction from the block's first */
    uint16_t slots, slots_after; /* registers whose value is in vcpu->gpr, before and after the access */
    uint8_t length;              /* of the instruction */
    uint8_t s1, s2;
    uint8_t size;
    uint8_t flags;
    uint8_t segment;
};
#define SITE_READ    1u
#define SITE_WRITE   2u
#define SITE_LAST    8u  /* nothing but the way out of the block follows */
#define SITE_ALIGNED 16u /* #GP unless aligned to its size, before any page fault */
#define SITE_WAITS   32u /* a pending x87 exception comes first */
#define SITE_LOCKED  64u /* atomic: LOCK, or XCHG */
#define SITE_CHECKED 4u  /* s1 is an offset in `segment`, which has a base or a limit */

/* An instruction that the host may fault on: a copied one, at this offset of the code cache. In their order
 * there. */
struct soft_record {
    uint32_t host;
    uint16_t insn;
    uint16_t slots;
};

/* A call of a C handler from translated code. `insn` is what the handler gets. */
struct soft_call {
    soft_handler *handler;
    uint8_t *resume;
    uint64_t rip; /* less page_rip */
    struct soft_insn insn;
};

struct soft_block {
    /* What finding a block looks at, in one line of the host's cache. */
    uint64_t rip;                 /* less page_rip */
    uint64_t gpa;                 /* of the first byte */
    uint64_t gpa2;                /* of the second page, or NO_PAGE */
    struct soft_block *hash_next; /* atomic: read without the lock */
    uint32_t cs_base;
    uint32_t key;
    uint32_t code;   /* offset in the cache */
    uint16_t length; /* guest bytes */
    bool valid;      /* atomic */
    /* Looked at when a page of code is written. */
    struct soft_block *page_next[2];
    /* The rest. */
    uint32_t code_length;
    uint32_t cold, cold_length; /* what is rarely run, apart from the rest */
    uint32_t n_records;
    uint32_t source_hash;
    struct soft_record *records;
    uint32_t exits; /* a link's offset: through next_outgoing */
    uint32_t incoming;
} __attribute__((aligned(64)));

static inline bool soft_block_valid(const struct soft_block *b)
{
    return __atomic_load_n(&b->valid, __ATOMIC_SEQ_CST);
}

/* A page of guest RAM that holds translated code. */
struct soft_code_page {
    struct soft_block *blocks; /* through page_next[0] or [1] */
    uint32_t next_free;
    uint32_t next_unsettled;
    bool unsettled;  /* in the list of pages that some vCPU may still write to without our notice */
    uint8_t waiting; /* those vCPUs, by bit */
    uint64_t gpa;
};

/* Where the stubs of strings keep their struct soft_call. */
#define STRING_CALL FIELD(scratch[1])
enum soft_string_kind { STRING_MOVS, STRING_STOS, STRING_KINDS };

/* Addresses of the common stubs in the cache. */
struct soft_stubs {
    uint64_t (*enter)(struct soft_vcpu *c, const void *code);
    uint8_t *call; /* rcx: struct soft_call; guest rcx in its slot */
    /* REP MOVS and STOS with elements of 1 << n bytes: as `call`, which does what they can't. */
    uint8_t *string[STRING_KINDS][4][MMU_MODES];
    uint8_t *string_fill;       /* from these: their pages into the TLB; rcx: where to go on then */
    uint8_t *slow[CPU_GPRS];    /* rcx: struct soft_site, by the register of the address */
    uint8_t *post;              /* rcx: struct soft_site; guest rcx in scratch[0] */
    uint8_t *fpu_load;          /* rcx: where to go on */
    uint8_t *exit_link;         /* rcx: struct soft_exit; guest rcx in its slot */
    uint8_t *exit_target;       /* the same for an exit whose target is in no jump cache */
    uint8_t *exit_next;         /* rip is set */
    uint8_t *find;              /* rip and exit_link are set */
    uint8_t *exit_fault;        /* from the signal handler */
    uint8_t *lookup[MMU_MODES]; /* rcx: struct soft_exit; guest rcx in its slot; rip is set */
    uint8_t *lookup_moves;      /* the same for code that holds at any address */
    uint8_t *lookup_exit[MMU_MODES],
        *lookup_exit_moves; /* the same for an exit to its target; rip is not set */
    uint8_t *lookup_return[MMU_MODES],
        *lookup_return_moves; /* as lookup, after a return that has popped nothing else; with PEXT only */
};

/* What `enter` returns; enum engine_exit in the same order. */
enum soft_left {
    LEFT_LINK = 1, /* exit_link is a direct exit to its target */
    LEFT_LOOKUP,   /* rip is not in the jump cache, or something is pending */
    LEFT_NEXT,     /* rip is set; the mode may have changed */
    LEFT_HANDLER,  /* c->result */
    LEFT_FAULT,    /* c->fault */
};

struct irqchip;
struct pvclock;
struct soft_profile;
struct cpuid_table;

struct soft {
    struct engine engine;
    struct engine_config config;
    struct guest_memory *memory;
    struct soft_vcpu *vcpu[ENGINE_MAX_CPUS];
    unsigned n_vcpus;
    unsigned phys_bits;

    /* the host's processor */
    bool use_pext, have_xsave, have_avx;
    uint64_t host_xcr0;
    uint64_t host_flags; /* of RFLAGS, what is no flag of the guest's */

    bool amd;                   /* the guest sees a processor of AMD's or Hygon's, as on such a host */
    uint8_t isa[SOFT_ISA_EXTS]; /* by ZydisISAExt: whether the guest's CPUID has it; decode.c */

    /* the code cache, all under `lock` but for running the code */
    pthread_mutex_t lock;
    uint8_t *cache;      /* CODE_SIZE of code, then META_SIZE of metadata */
    uint32_t code_start; /* after the stubs */
    uint32_t code_end, meta_end;
    uint32_t code_used, meta_used;
    uint32_t cold_start, cold_end, cold_used; /* between code and metadata */
    struct soft_block *blocks;
    uint32_t n_blocks;
    struct soft_block **hash;
    struct soft_stubs stubs;
    uint32_t
        *page_index; /* of each page of RAM and ROM: into code_pages, 0 for none; read without the lock */
    uint64_t n_pages, ram_pages;
    uint64_t rom_base; /* ROM is from here to GUEST_ROM_END, if not empty */
    struct soft_code_page *code_pages;
    struct soft_decode_cache *decoded; /* under the lock too */
    uint32_t n_code_pages, free_code_page, unsettled;
    uint64_t flushes;
    _Atomic uint64_t invalidations;

    /* Direct execution: by page of RAM and ROM, whether a stub may have it writable; and how many such pages
     * have become code pages since. */
    _Atomic uint64_t *direct_writable;
    _Atomic uint64_t direct_code_pages;
    /* On pages of code, which every program may have anew: direct_scan_hash but for its lowest two bits,
     * which hold enum direct_verdict + 1. */
    _Atomic uint64_t direct_verdicts[DIRECT_VERDICTS];

    /* One vCPU alone, to empty the cache or for a locked operand in two places: `exclusive` keeps the others
     * from entering translated code. */
    pthread_mutex_t exclusive_lock;
    _Atomic uint32_t exclusive;

    /* threads, under run_lock */
    pthread_mutex_t run_lock;
    pthread_cond_t run_cond;
    unsigned n_threads, n_stopped;
    bool stopping;
    atomic_bool quit;
    pthread_t threads[ENGINE_MAX_CPUS];
    clockid_t thread_clocks[ENGINE_MAX_CPUS];     /* the processor time that each has used */
    struct timespec thread_used[ENGINE_MAX_CPUS]; /* ... when it was looked at last */

    struct irqchip *irqchip;
    struct pvclock *pvclock;
    struct loop_timer *clock_timer, *sample_timer;
    uint64_t sample_until; /* of loop_now */
    struct soft_profile *profile;
    struct cpuid_table *cpuid;
    uint64_t tsc_hz;
    char failure[160];   /* why the engine can't go on */
    char no_direct[160]; /* why everything is translated */
};

/* The components of the vector state that guests have, as in XSTATE_BV: x87, SSE, and where the host has it
 * AVX. */
static inline uint8_t soft_xstate_components(const struct soft *s)
{
    return s->have_avx ? 7 : 3;
}

#define JUMP_MIX        11
#define JUMP_INDEX_BITS ((uint64_t)(JC_SIZE - 1) << 2)
/* Mixes the page's number into the offset: hot functions lie at the same offsets of many pages. */
static inline uint32_t soft_jump_index(uint64_t rip)
{
    return (uint32_t)((rip + (rip >> JUMP_MIX | rip << (64 - JUMP_MIX))) >> 2) & (JC_SIZE - 1);
}
static inline unsigned soft_jump_page(uint64_t rip)
{
    return (rip >> 12) & (JUMP_PAGES - 1);
}
/* A tag that no address of this index hits. */
static inline uint64_t soft_jump_empty(uint32_t index)
{
    return index == JC_SIZE - 1 ? 0 : 1;
}

/* ---- cache.c ---- */
/* Zeroed memory that is taken when it is touched, 2 MiB at a time where the host has such pages: for what is
 * spread widely and used all over, as translated code is. NULL with errno. */
void *soft_reserve_large(size_t size, int prot);
void soft_release_large(void *p, size_t size);
int soft_cache_create(struct soft *s, unsigned cpus, struct error **err);
void soft_cache_destroy(struct soft *s);
static inline uint32_t soft_cache_hash(uint64_t rip, uint64_t gpa, uint32_t key)
{
    uint64_t h = (gpa ^ rip >> 12) * 0x9e3779b97f4a7c15ull + key * 0xff51afd7ed558ccdull;
    return (uint32_t)(h >> 40) & (HASH_SIZE - 1);
}
/* The valid block for this place (`rip` less page_rip) and key, or NULL. Under `lock`, or between enter_code
 * and leave_code, when what is found may become invalid any moment. */
static inline struct soft_block *soft_cache_find(struct soft *s, uint64_t rip, uint64_t cs_base, uint64_t gpa,
                                                 uint64_t gpa2, uint32_t key)
{
    struct soft_block *b = __atomic_load_n(&s->hash[soft_cache_hash(rip, gpa, key)], __ATOMIC_ACQUIRE);

    for (; b; b = __atomic_load_n(&b->hash_next, __ATOMIC_ACQUIRE)) {
        if (b->gpa == gpa && b->key == key && b->rip == rip && b->cs_base == cs_base &&
            (b->gpa2 == NO_PAGE || b->gpa2 == gpa2) && soft_block_valid(b))
            return b;
    }
    return NULL;
}
void soft_cache_insert_locked(struct soft *s, struct soft_block *b);
/* Space for one more block (the largest). False: flush first. */
bool soft_cache_has_room_locked(struct soft *s);
/* Forget everything; every vCPU is outside translated code. */
void soft_cache_flush_locked(struct soft *s);
/* Make `gpa`'s page a code page, before its bytes are read for translation. False if not RAM. */
bool soft_cache_mark_page_locked(struct soft *s, struct soft_vcpu *self, uint64_t gpa);
/* Links are told by their place after `cache`; 0 is none. */
static inline struct soft_link *soft_link_at(const struct soft *s, uint32_t offset)
{
    return offset ? (struct soft_link *)(void *)(s->cache + offset) : NULL;
}
static inline uint32_t soft_link_offset(const struct soft *s, const struct soft_link *link)
{
    return (uint32_t)((const uint8_t *)link - s->cache);
}
void soft_cache_link_locked(struct soft *s, struct soft_link *e, struct soft_block *to);
/* From now on the exit looks for its target in the jump cache, as long as it has no link. */
void soft_cache_look_up_locked(struct soft *s, struct soft_link *e);
/* RAM was written: drop translations of what it held. Any thread, not under `lock`. */
void soft_cache_written(struct soft *s, uint64_t gpa, uint64_t len);
/* In a vCPU's thread, asked by REQUEST_FLUSH_WRITE: gives up its writable TLB entries for pages that have
 * become code, then drops blocks of
 * pages that it could have written to until now and whose source has changed. */
void soft_cache_revalidate(struct soft *s, struct soft_vcpu *c);
/* The block whose code holds `host`, or NULL. Safe in a signal handler of a thread in translated code. */
struct soft_block *soft_cache_block_at(struct soft *s, const uint8_t *host);
/* The guest's RIP of the copied instruction at (or last before) `host`; 0 if that is in no block. `page`: the
 * block's page_rip if it moves. */
uint64_t soft_cache_guest_rip(struct soft *s, const uint8_t *host, uint64_t page);
static inline bool soft_is_rom(const struct soft *s, uint64_t gpa)
{
    return gpa >= s->rom_base && gpa < GUEST_ROM_END;
}
/* The page's place in page_index: RAM's in order, then ROM's; at least n_pages for what is neither. */
static inline uint64_t soft_page_number(const struct soft *s, uint64_t gpa)
{
    uint64_t page = gpa >> 12;
    if (soft_is_rom(s, gpa))
        return s->ram_pages + ((gpa - s->rom_base) >> 12);
    if (gpa >= GUEST_HIGH_RAM)
        page -= (GUEST_HIGH_RAM - GUEST_LOW_RAM_END) >> 12;
    return page < s->ram_pages ? page : UINT64_MAX;
}
/* Whether a page may hold translated code: stores to it must go through soft_cache_written. */
static inline bool soft_is_code_page(const struct soft *s, uint64_t gpa)
{
    uint64_t page = soft_page_number(s, gpa);
    return page < s->n_pages && __atomic_load_n(&s->page_index[page], __ATOMIC_ACQUIRE);
}

/* Whether stores to a page must not go to it directly: code, or ROM, which they don't change. */
static inline bool soft_is_guarded_page(const struct soft *s, uint64_t gpa)
{
    return soft_is_code_page(s, gpa) || soft_is_rom(s, gpa);
}

/* ---- stubs.c, stubs_string.c ---- */
struct emitter;
void soft_stubs_generate(struct soft *s);
void soft_stubs_generate_strings(struct soft *s, struct emitter *e);

/* ---- decode.c ---- */
/* Fills in s->isa and s->amd from s->cpuid. */
void soft_isa_init(struct soft *s);

/* ---- translate.c ---- */
/* Translate at c->rip under `key`: c->key, or that with KEY_PLAIN. NULL with SOFT_FAULT in *result if
 * fetching faults. Under `lock`. */
struct soft_block *soft_translate_block_locked(struct soft_vcpu *c, uint64_t gpa, uint32_t key, int *result);

/* A hash of the guest bytes that the block was made from, as they are now. */
uint32_t soft_block_hash(const struct soft *s, const struct soft_block *b);

/* ---- slow.c: called by the stubs; return 0 to go on at c->resume, else an enum soft_left ---- */
uint64_t soft_slow_access(struct soft_vcpu *c, const struct soft_site *site);
/* fast.c: the same for the common case, leaving the vector registers alone; 1: soft_slow_access must do it.
 */
uint64_t soft_fast_access(struct soft_vcpu *c, const struct soft_site *site);
/* fast.c: for REP MOVS and STOS of 64-bit code at gpr[]'s addresses. 0: the TLB has pages now that it had
 * not; 1: their handler must do it. */
uint64_t soft_fast_string(struct soft_vcpu *c, const struct soft_call *call);
/* RIP is not in the jump cache: its code, or 0 if the dispatcher must find it (or has to do something else
 * first). */
uint64_t soft_fast_find(struct soft_vcpu *c);
/* From now on RIP is in the jump cache. `global`: its page. */
void soft_note_jump(struct soft_vcpu *c, enum soft_mmu mmu, const struct soft_block *b, bool global);
uint64_t soft_slow_post(struct soft_vcpu *c, const struct soft_site *site);

/* ---- mmu.c ---- */
uint64_t soft_mmio_read(struct soft_vcpu *c, uint64_t gpa, unsigned size);
void soft_mmio_write(struct soft_vcpu *c, uint64_t gpa, unsigned size, uint64_t value);
/* Copy to or from guest-physical addresses, RAM or device; [gpa, gpa + len) lies in one page. Reports writes.
 */
void soft_physical(struct soft_vcpu *c, uint64_t gpa, uint8_t *buf, unsigned len, bool write);
uint8_t *soft_ram_page(const struct soft *s, uint64_t gpa);
/* Let translated code reach the page directly. */
static inline void soft_tlb_fill(struct soft_vcpu *c, enum soft_mmu mmu, uint64_t linear, bool write,
                                 uint8_t *host_page, bool global)
{
    unsigned i = (linear >> 12) & (TLB_SIZE - 1);
    uint64_t page = linear & ~4095ull;
    struct soft_tlb *tlb = &c->tlb[mmu][write];

    tlb->addend[i] = (uint64_t)(uintptr_t)host_page - page;
    tlb->tag[i] = -page;
    struct soft_fills *fills = &c->tlb_fills[mmu];
    fills->n++;
    if (global)
        return;
    if (fills->nonglobal < NONGLOBAL_MAX)
        c->nonglobal_at[mmu][fills->nonglobal] = (uint16_t)(i | (write ? NONGLOBAL_WRITE : 0));
    fills->nonglobal++;
}
struct soft_walk {
    uint64_t gpa;
    bool global;
};
int soft_walk(struct soft_vcpu *c, uint64_t linear, unsigned access, enum soft_mmu mmu,
              struct soft_walk *out);
/* `linear` is in a page of 1 << shift bytes: one of more than 4 KiB is kept in mind for INVLPG. */
static inline void soft_note_page_size(struct soft_vcpu *c, uint64_t linear, unsigned shift, bool global)
{
    struct soft_large *large = &c->large[global];
    uint64_t number = linear >> 21;

    if (shift == 12)
        return;
    large->any = true;
    if (shift > 22) {
        large->gigabytes |= 1ull << (number >> 9) % 64;
        return;
    }
    large->regions[number % LARGE_REGIONS / 64] |= 1ull << number % 64;
    if (shift == 22) /* the other half of a page of 4 MiB */
        large->regions[number % LARGE_REGIONS / 64] |= 1ull << (number ^ 1) % 64;
}
/* Stores to this page (of soft_ram_page), wherever it is mapped, take the slow path from now on. */
void soft_tlb_drop_write(struct soft_vcpu *c, const uint8_t *page);
void soft_jump_flush(struct soft_vcpu *c, enum soft_mmu mmu);
/* Forgets what others have made invalid: to be called before the jump cache is looked at. */
static inline void soft_jump_settle(struct soft_vcpu *c)
{
    if (atomic_load(&c->jump_stale) && atomic_exchange(&c->jump_stale, false))
        soft_jump_flush(c, MMU_USER);
}
/* A data breakpoint may lie in this page: it must not be in the TLB. */
bool soft_page_watched(const struct soft_vcpu *c, uint64_t linear);

/* ---- signal.c ---- */
int soft_signals_install(struct error **err);
/* For each vCPU thread: the alternate stack, the gs base. */
int soft_signals_thread_start(struct soft_vcpu *c, struct error **err);
void soft_signals_thread_end(struct soft_vcpu *c);

/* ---- run.c ---- */
/* `shadow`: that of the instruction before, after which only one instruction is run; 0 for none. */
int soft_run_once(struct soft_vcpu *c, unsigned shadow);
/* Called by the stubs: 0 to go on at c->resume, else LEFT_HANDLER with c->result. */
uint64_t soft_call_handler(struct soft_vcpu *c, const struct soft_call *call);
void soft_request(struct soft_vcpu *c, uint32_t request);

#endif
