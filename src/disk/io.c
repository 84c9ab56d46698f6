/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asynchronous input and output on an image's files. With io_uring, operations go to the kernel in batches
 * and run at the same time. Without it they are done one after the other by system calls: a disk has a thread
 * of its own, so nobody but the disk waits. Either way completions come from the loop, woken by an eventfd.
 *
 * A ring is a way around a seccomp filter, so ours is restricted before it is enabled: to four kinds of
 * operation, on the image's files. One thread; no locks.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RING_SIZE 128u
/* What the kernel has room to answer: twice that. More answers would take memory of the kernel's. */
#define IN_RING_MAX (2 * RING_SIZE)

/* How many files may be put before those that there are, and still be read by the ring. */
#define SPARE_SLOTS 64u
#define NO_SLOT     (~0u)

struct io_file {
    int fd;
    unsigned slot;  /* where the ring has it, or NO_SLOT */
    int sync_error; /* of the first sync that failed */
};

struct disk_io {
    struct io_file *files; /* as struct disk_files has them */
    unsigned n_files;
    unsigned n_slots, next_slot;
    int event_fd;
    struct loop_watch *watch;
    struct disk_io_op *todo, **todo_tail; /* to be done by system calls, or already done */
    bool has_ring;
    struct io_uring ring;
    unsigned in_ring; /* operations that the kernel has, or gets with the next disk_io_start */
    void (*batch_end)(void *opaque);
    void *opaque;
};

static void wake(struct disk_io *io)
{
    /* Fails only when the counter is about to overflow: then it is readable anyway. */
    eventfd_write(io->event_fd, 1);
}

/* Debian 12's liburing declares functions for these two but does not export them. */
static int ring_register(const struct io_uring *ring, unsigned what, void *argument, unsigned n)
{
    return syscall(__NR_io_uring_register, ring->ring_fd, what, argument, n) < 0 ? -errno : 0;
}

/* The files that there are, and room for more. 0 or -errno. */
static int register_files(struct disk_io *io)
{
    cleanup_free int *fds = malloc(io->n_slots * sizeof(*fds));

    if (!fds)
        return -ENOMEM;
    for (unsigned i = 0; i < io->n_slots; i++)
        fds[i] = i < io->n_files ? io->files[i].fd : -1;
    return io_uring_register_files(&io->ring, fds, io->n_slots);
}

static int ring_create(struct disk_io *io)
{
    static const struct {
        uint8_t operation;
    } allowed[] = {{IORING_OP_READV}, {IORING_OP_WRITEV}, {IORING_OP_FSYNC}, {IORING_OP_FALLOCATE}};
    struct io_uring_restriction limits[7] = {0};
    unsigned n = 0;
    int rc = io_uring_queue_init(RING_SIZE, &io->ring, IORING_SETUP_R_DISABLED);

    if (rc < 0)
        return rc;
    for (; n < 4; n++) {
        limits[n].opcode = IORING_RESTRICTION_SQE_OP;
        limits[n].sqe_op = allowed[n].operation;
    }
    limits[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    limits[n++].sqe_flags = IOSQE_FIXED_FILE;
    limits[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
    limits[n++].sqe_flags = IOSQE_FIXED_FILE;
    limits[n].opcode = IORING_RESTRICTION_REGISTER_OP;
    limits[n++].register_op = IORING_REGISTER_FILES_UPDATE;
    rc = register_files(io);
    if (rc == 0)
        rc = io_uring_register_eventfd(&io->ring, io->event_fd);
    if (rc == 0)
        rc = ring_register(&io->ring, IORING_REGISTER_RESTRICTIONS, limits, n);
    if (rc == 0)
        rc = ring_register(&io->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (rc < 0)
        io_uring_queue_exit(&io->ring);
    return rc < 0 ? rc : 0;
}

int disk_io_create(struct disk_io **out, const struct disk_file *files, unsigned n)
{
    struct disk_io *io = calloc(1, sizeof(*io));

    if (!io)
        return -ENOMEM;
    io->todo_tail = &io->todo;
    io->files = calloc(n, sizeof(*io->files));
    if (!io->files) {
        free(io);
        return -ENOMEM;
    }
    io->n_files = io->next_slot = n;
    io->n_slots = n + SPARE_SLOTS;
    for (unsigned i = 0; i < n; i++)
        io->files[i] = (struct io_file){.fd = files[i].fd, .slot = i};
    io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (io->event_fd < 0) {
        int rc = -errno;
        free(io->files);
        free(io);
        return rc;
    }
    io->has_ring = ring_create(io) == 0;
    *out = io;
    return 0;
}

void disk_io_avoid_uring(struct disk_io *io)
{
    if (io->has_ring)
        io_uring_queue_exit(&io->ring);
    io->has_ring = false;
}

bool disk_io_has_uring(const struct disk_io *io)
{
    return io->has_ring;
}

void disk_io_free(struct disk_io *io)
{
    if (!io)
        return;
    loop_watch_remove(io->watch);
    disk_io_avoid_uring(io);
    cleanup_close_fn(&io->event_fd);
    free(io->files);
    free(io);
}

bool disk_io_is_idle(const struct disk_io *io)
{
    return !io->in_ring && !io->todo;
}

int disk_io_push(struct disk_io *io, int fd)
{
    struct io_file *files = realloc(io->files, (io->n_files + 1) * sizeof(*files));
    unsigned slot = NO_SLOT;

    if (!files)
        return -ENOMEM;
    io->files = files;
    if (io->has_ring && io->next_slot < io->n_slots &&
        io_uring_register_files_update(&io->ring, io->next_slot, &fd, 1) == 1)
        slot = io->next_slot++;
    memmove(files + 1, files, io->n_files++ * sizeof(*files));
    files[0] = (struct io_file){.fd = fd, .slot = slot};
    return 0;
}

void disk_io_pop(struct disk_io *io)
{
    const int none = -1;

    /* A slot is not used again: the kernel may still let go of the file. */
    if (io->has_ring && io->files[0].slot != NO_SLOT)
        io_uring_register_files_update(&io->ring, io->files[0].slot, &none, 1);
    memmove(io->files, io->files + 1, --io->n_files * sizeof(*io->files));
}

void disk_io_keep_first(struct disk_io *io, unsigned n)
{
    const int none = -1;

    for (unsigned i = n; i < io->n_files; i++)
        if (io->has_ring && io->files[i].slot != NO_SLOT)
            io_uring_register_files_update(&io->ring, io->files[i].slot, &none, 1);
    io->n_files = n;
}

/* ---- system calls ---- */

/* Skips `skip` bytes of *iov; false when nothing is left. `first` is the piece that begins in the middle. */
static bool skip_bytes(const struct iovec **iov, unsigned *n, size_t skip, struct iovec *first)
{
    while (*n && skip >= (*iov)->iov_len) {
        skip -= (*iov)->iov_len;
        ++*iov;
        --*n;
    }
    if (*n)
        *first =
            (struct iovec){.iov_base = (char *)(*iov)->iov_base + skip, .iov_len = (*iov)->iov_len - skip};
    return *n;
}

static ssize_t transfer_once(int fd, bool write, const struct iovec *iov, unsigned n, uint64_t offset)
{
    ssize_t done;

    do
        done = write ? pwritev(fd, iov, (int)n, (off_t)offset) : preadv(fd, iov, (int)n, (off_t)offset);
    while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

/* All but the first `done` bytes of a read or write: whatever a short one has left. */
static int transfer_rest(int fd, const struct disk_io_op *op, uint64_t done)
{
    const struct iovec *iov = op->iov;
    unsigned n = op->n_iov;
    bool write = op->kind == DISK_IO_WRITE;
    struct iovec first;
    size_t skip = done;

    while (skip_bytes(&iov, &n, skip, &first)) {
        /* As many pieces as there are while we are at the start of one; else the rest of that one. */
        bool whole = first.iov_base == iov->iov_base;
        ssize_t got = transfer_once(fd, write, whole ? iov : &first, whole ? n : 1, op->offset + done);
        if (got < 0)
            return (int)got;
        if (got == 0 && write)
            return -EIO;
        if (got == 0) {
            memset(first.iov_base, 0, first.iov_len);
            got = (ssize_t)first.iov_len;
        }
        done += (uint64_t)got;
        skip = (size_t)((char *)first.iov_base - (char *)iov->iov_base) + (size_t)got;
    }
    return 0;
}

/*
 * After a sync has failed, the kernel takes what it could not write for written, and the next sync finds
 * nothing to do. It would be a lie to call that a success, and what is written in the belief that others are
 * there already would point to nothing: from then on every sync fails.
 */
static int sync_result(struct disk_io *io, unsigned file, int result)
{
    int *first = &io->files[file].sync_error;

    if (result < 0 && result != -EINTR && !*first)
        *first = result;
    return *first ? *first : result;
}

int disk_sync_now(struct disk_io *io, unsigned file)
{
    return sync_result(io, file, fdatasync(io->files[file].fd) < 0 ? -errno : 0);
}

static int run(struct disk_io *io, const struct disk_io_op *op)
{
    int fd = io->files[op->file].fd, rc = 0;

    switch ((enum disk_io_kind)op->kind) {
    case DISK_IO_NONE:
        return op->result;
    case DISK_IO_READ:
    case DISK_IO_WRITE:
        return transfer_rest(fd, op, 0);
    case DISK_IO_SYNC:
        return disk_sync_now(io, op->file);
    case DISK_IO_PUNCH:
        rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset, (off_t)op->length);
        break;
    case DISK_IO_ZERO:
        rc = fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset, (off_t)op->length);
        break;
    }
    return rc < 0 ? -errno : 0;
}

static int at(int fd, bool write, void *buf, size_t len, uint64_t offset)
{
    const struct iovec iov = {.iov_base = buf, .iov_len = len};
    const struct disk_io_op op = {
        .kind = write ? DISK_IO_WRITE : DISK_IO_READ, .offset = offset, .iov = &iov, .n_iov = 1};

    return transfer_rest(fd, &op, 0);
}

int disk_read_at(int fd, void *buf, size_t len, uint64_t offset)
{
    return at(fd, false, buf, len, offset);
}

int disk_write_at(int fd, const void *buf, size_t len, uint64_t offset)
{
    return at(fd, true, (void *)(uintptr_t)buf, len, offset);
}

int disk_writev_at(int fd, const struct iovec *iov, unsigned n, uint64_t offset)
{
    const struct disk_io_op op = {.kind = DISK_IO_WRITE, .offset = offset, .iov = iov, .n_iov = n};

    return transfer_rest(fd, &op, 0);
}

void disk_punch_at(int fd, uint64_t offset, uint64_t len)
{
    /* Where that can't be, the space stays taken. */
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0)
        return;
}

uint64_t disk_alike_at(int fd, uint64_t offset, uint64_t length, bool *hole)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA), end = (off_t)(offset + length);

    *hole = false;
    if (data < 0 && errno == ENXIO) {
        *hole = true; /* to the end */
    } else if (data > (off_t)offset) {
        *hole = true;
        if (data < end)
            end = data;
    } else if (data >= 0) {
        off_t next = lseek(fd, (off_t)offset, SEEK_HOLE);
        if (next > (off_t)offset && next < end)
            end = next;
    }
    /* Holes end where the file system's blocks do, files anywhere: a sector that is torn counts as data. */
    uint64_t alike = (uint64_t)end - offset, torn = alike % DISK_SECTOR;
    if (torn && *hole && alike > torn)
        return alike - torn;
    if (torn) {
        *hole = false;
        alike += DISK_SECTOR - torn;
    }
    return alike < length ? alike : length;
}

/* ---- the ring ---- */

static struct io_uring_sqe *take_sqe(struct disk_io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);

    if (!sqe) {
        io_uring_submit(&io->ring);
        sqe = io_uring_get_sqe(&io->ring);
    }
    return sqe;
}

static bool ring_submit(struct disk_io *io, struct disk_io_op *op)
{
    struct io_uring_sqe *sqe = take_sqe(io);
    int file = (int)io->files[op->file].slot;

    if (!sqe)
        return false;
    switch ((enum disk_io_kind)op->kind) {
    case DISK_IO_READ:
        io_uring_prep_readv(sqe, file, op->iov, op->n_iov, op->offset);
        break;
    case DISK_IO_WRITE:
        io_uring_prep_writev(sqe, file, op->iov, op->n_iov, op->offset);
        break;
    case DISK_IO_SYNC:
        io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
        break;
    case DISK_IO_PUNCH:
        io_uring_prep_fallocate(sqe, file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset,
                                (off_t)op->length);
        break;
    case DISK_IO_ZERO:
        io_uring_prep_fallocate(sqe, file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset,
                                (off_t)op->length);
        break;
    case DISK_IO_NONE:
        break; /* does not come here */
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, op);
    io->in_ring++;
    return true;
}

/* What the kernel says of an operation, with the rest of a short one done. */
static int ring_result(struct disk_io *io, const struct disk_io_op *op, int res)
{
    bool transfer = op->kind == DISK_IO_READ || op->kind == DISK_IO_WRITE;

    if (res == -EINTR || res == -EAGAIN)
        return run(io, op);
    if (op->kind == DISK_IO_SYNC)
        return sync_result(io, op->file, res);
    if (res < 0)
        return res;
    return transfer && (uint64_t)res < op->length ? transfer_rest(io->files[op->file].fd, op, (uint64_t)res)
                                                  : 0;
}

static bool reap(struct disk_io *io)
{
    struct io_uring_cqe *cqe;
    bool any = false;

    while (io->has_ring && io_uring_peek_cqe(&io->ring, &cqe) == 0) {
        struct disk_io_op *op = io_uring_cqe_get_data(cqe);
        int res = cqe->res;

        io_uring_cqe_seen(&io->ring, cqe);
        io->in_ring--;
        op->done(op, ring_result(io, op, res));
        any = true;
    }
    return any;
}

static bool run_todo(struct disk_io *io)
{
    /* What these add themselves is for the next round: the loop has others to serve. */
    struct disk_io_op *op = steal_ptr(io->todo), *next;

    io->todo_tail = &io->todo;
    for (struct disk_io_op *first = op; op; op = next) {
        next = op->next;
        op->done(op, run(io, op));
        if (!next)
            return first;
    }
    return false;
}

static void on_event(void *opaque, uint32_t events)
{
    struct disk_io *io = opaque;
    eventfd_t count;

    eventfd_read(io->event_fd, &count);
    bool any = reap(io);
    any |= run_todo(io);
    disk_io_start(io);
    if (any && io->batch_end)
        io->batch_end(io->opaque);
}

int disk_io_attach(struct disk_io *io, struct loop *loop)
{
    loop_watch_remove(io->watch);
    io->watch = NULL;
    return loop ? loop_watch_add(loop, io->event_fd, EPOLLIN, on_event, io, &io->watch) : 0;
}

/*
 * Reads of what the host has cached end as they are submitted, but the kernel gives writes to files to a
 * worker thread: waking it takes longer than copying the bytes, many times longer where processors are
 * scarce. So a write goes there only where it would make something else wait. What is too much for the ring
 * waits here, and is done between the answers.
 */
static bool suits_ring(const struct disk_io *io, const struct disk_io_op *op)
{
    return io->has_ring && op->kind != DISK_IO_NONE && io->in_ring < IN_RING_MAX &&
           io->files[op->file].slot != NO_SLOT && (op->kind != DISK_IO_WRITE || io->in_ring);
}

void disk_io_submit(struct disk_io *io, struct disk_io_op *op)
{
    if (suits_ring(io, op) && ring_submit(io, op))
        return;
    op->next = NULL;
    if (!io->todo)
        wake(io);
    *io->todo_tail = op;
    io->todo_tail = &op->next;
}

void disk_io_start(struct disk_io *io)
{
    /* With the kernel out of resources for now, what is left goes with the next event: there is one, for
     * something is under way, or we make it. */
    if (io->has_ring && io_uring_sq_ready(&io->ring) && io_uring_submit(&io->ring) < 0)
        wake(io);
}

void disk_io_on_batch_end(struct disk_io *io, void (*fn)(void *opaque), void *opaque)
{
    io->batch_end = fn;
    io->opaque = opaque;
}
