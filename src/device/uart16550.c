/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serial port: 16550A (National Semiconductor PC16550D data sheet). Registers are used by vCPU threads, input
 * and the flush timer by the loop's; one mutex covers all and is held over calls of the backend and irq_set.
 *
 * The line has no speed: a byte that is written is sent at once as far as the guest can tell. It goes to a
 * buffer, which is handed on when it is full or a millisecond old, since guests write byte by byte. Only a
 * backend that takes no more makes the transmitter look busy.
 */
#include "device/uart16550.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/char.h"
#include "device/io_bytes.h"
#include "host/loop.h"

#include <errno.h>

enum { REG_DATA, REG_IER, REG_IIR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REGS };

#define IER_RX    0x01u
#define IER_TX    0x02u
#define IER_LINE  0x04u
#define IER_MODEM 0x08u
#define IER_BITS  0x0fu

#define IIR_NONE    0x01u
#define IIR_MODEM   0x00u
#define IIR_TX      0x02u
#define IIR_RX      0x04u
#define IIR_LINE    0x06u
#define IIR_TIMEOUT 0x0cu
#define IIR_FIFO    0xc0u

#define FCR_ENABLE        0x01u
#define FCR_CLEAR_RX      0x02u
#define FCR_TRIGGER_SHIFT 6

#define LCR_DLAB 0x80u

#define MCR_DTR  0x01u
#define MCR_RTS  0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_BITS 0x1fu

#define LSR_DATA    0x01u
#define LSR_OVERRUN 0x02u
#define LSR_THRE    0x20u
#define LSR_TEMT    0x40u

#define MSR_DELTA_CTS 0x01u
#define MSR_DELTA_DSR 0x02u
#define MSR_RI_ENDS   0x04u
#define MSR_DELTA_DCD 0x08u
#define MSR_CTS       0x10u
#define MSR_DSR       0x20u
#define MSR_RI        0x40u
#define MSR_DCD       0x80u
#define MSR_LINES     0xf0u

#define FIFO_SIZE     16u
#define OUT_SIZE      4096u
#define FLUSH_NS      1000000u
#define DEFAULT_SPEED 12u /* divisor of 9600 baud */

struct uart {
    struct device device;
    struct io_region region;
    struct char_backend *backend;
    struct loop_timer *flush_timer;
    unsigned irq;

    pthread_mutex_t lock;
    uint8_t ier, fcr, lcr, mcr, msr, scr;
    bool irq_level;
    bool overrun;
    bool tx_pending; /* "transmitter empty" has not been told yet */
    uint16_t divisor;
    uint8_t fifo[FIFO_SIZE];
    unsigned fifo_at, fifo_len;
    bool input_waits;  /* the backend was refused */
    bool output_waits; /* the backend refused, and will call */
    unsigned out_len;
    uint8_t out[OUT_SIZE];
};

/* ---- state; the lock is held ---- */

static unsigned fifo_room(const struct uart *u)
{
    return (u->fcr & FCR_ENABLE ? FIFO_SIZE : 1) - u->fifo_len;
}

/* Room for a driver that fills a whole FIFO each time it is told "empty". */
static bool can_send(const struct uart *u)
{
    return OUT_SIZE - u->out_len >= FIFO_SIZE;
}

static uint8_t interrupt_source(const struct uart *u)
{
    static const uint8_t triggers[4] = {1, 4, 8, 14};

    if ((u->ier & IER_LINE) && u->overrun)
        return IIR_LINE;
    if ((u->ier & IER_RX) && u->fifo_len) {
        if (!(u->fcr & FCR_ENABLE) || u->fifo_len >= triggers[u->fcr >> FCR_TRIGGER_SHIFT])
            return IIR_RX;
        /* Nothing more is on the line at this moment, so waiting for it is over at once. */
        return IIR_TIMEOUT;
    }
    if ((u->ier & IER_TX) && u->tx_pending)
        return IIR_TX;
    if ((u->ier & IER_MODEM) && (u->msr & ~MSR_LINES))
        return IIR_MODEM;
    return IIR_NONE;
}

/* On a PC, OUT2 connects the interrupt. Told only when it changes: it is asked at every byte. */
static void update_irq(struct uart *u)
{
    const struct device_env *env = u->device.env;
    bool level = (u->mcr & MCR_OUT2) && interrupt_source(u) != IIR_NONE;

    if (level == u->irq_level)
        return;
    u->irq_level = level;
    env->irq_set(env->opaque, u->irq, level);
}

/* A terminal is always there and ready; in loopback the outputs are the inputs. */
static void update_modem(struct uart *u)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD;

    if (u->mcr & MCR_LOOP) {
        lines = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
                (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
    }
    uint8_t changed = (u->msr ^ lines) & MSR_LINES;
    uint8_t delta = u->msr & ~MSR_LINES;

    if (changed & MSR_CTS)
        delta |= MSR_DELTA_CTS;
    if (changed & MSR_DSR)
        delta |= MSR_DELTA_DSR;
    if ((changed & MSR_RI) && !(lines & MSR_RI))
        delta |= MSR_RI_ENDS;
    if (changed & MSR_DCD)
        delta |= MSR_DELTA_DCD;
    u->msr = lines | delta;
}

static void fifo_put(struct uart *u, uint8_t byte)
{
    if (!fifo_room(u)) {
        u->overrun = true;
        /* Without FIFO the new byte replaces the one that was not read. */
        if (!(u->fcr & FCR_ENABLE))
            u->fifo[u->fifo_at] = byte;
        return;
    }
    u->fifo[(u->fifo_at + u->fifo_len++) % FIFO_SIZE] = byte;
}

static void fifo_clear(struct uart *u)
{
    u->fifo_at = u->fifo_len = 0;
}

/* The backend is told once half of the FIFO is free, so that its next bytes come in time. */
static void invite_input(struct uart *u)
{
    if (!u->input_waits || (u->mcr & MCR_LOOP) || u->fifo_len > FIFO_SIZE / 2 || !fifo_room(u))
        return;
    u->input_waits = false;
    u->backend->input_ready(u->backend);
}

static void flush(struct uart *u)
{
    bool could = can_send(u);
    unsigned done = 0;

    if (!u->out_len)
        return;
    if (u->backend)
        done = (unsigned)u->backend->output(u->backend, u->out, u->out_len);
    else
        done = u->out_len;
    if (done > u->out_len)
        done = u->out_len;
    u->output_waits = done < u->out_len;
    memmove(u->out, u->out + done, u->out_len - done);
    u->out_len -= done;
    if (!could && can_send(u))
        u->tx_pending = true;
}

static void send(struct uart *u, uint8_t byte)
{
    if (u->mcr & MCR_LOOP) {
        fifo_put(u, byte);
        u->tx_pending = true;
        return;
    }
    if (u->out_len == OUT_SIZE) /* the guest did not ask whether it may send */
        return;
    u->out[u->out_len++] = byte;
    if (!can_send(u) && !u->output_waits)
        flush(u);
    else if (u->out_len == 1)
        loop_timer_arm(u->flush_timer, loop_now() + FLUSH_NS);
    u->tx_pending = can_send(u);
}

/* ---- registers; the lock is held ---- */

static uint8_t read_data(struct uart *u)
{
    if (!u->fifo_len)
        return 0;
    uint8_t byte = u->fifo[u->fifo_at];
    u->fifo_at = (u->fifo_at + 1) % FIFO_SIZE;
    u->fifo_len--;
    invite_input(u);
    return byte;
}

static uint8_t read_iir(struct uart *u)
{
    uint8_t source = interrupt_source(u);

    if (source == IIR_TX)
        u->tx_pending = false;
    return source | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct uart *u)
{
    uint8_t value = u->fifo_len ? LSR_DATA : 0;

    if (u->overrun)
        value |= LSR_OVERRUN;
    if (can_send(u))
        value |= LSR_THRE | LSR_TEMT;
    u->overrun = false;
    return value;
}

static uint8_t read_byte(void *opaque, unsigned offset)
{
    struct uart *u = opaque;
    bool divisor = u->lcr & LCR_DLAB;
    uint8_t value = 0;

    switch (offset % REGS) {
    case REG_DATA:
        value = divisor ? u->divisor & 0xff : read_data(u);
        break;
    case REG_IER:
        value = divisor ? u->divisor >> 8 : u->ier;
        break;
    case REG_IIR:
        value = read_iir(u);
        break;
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        /* What a driver polls while it sends: nothing changes unless there was an error. */
        if (!u->overrun)
            return read_lsr(u);
        value = read_lsr(u);
        break;
    case REG_MSR:
        value = u->msr;
        u->msr &= MSR_LINES;
        break;
    case REG_SCR:
        return u->scr;
    }
    update_irq(u);
    return value;
}

static void write_fcr(struct uart *u, uint8_t value)
{
    /* Switching the FIFOs on or off empties them, and the other bits count only with them on. */
    if (((value ^ u->fcr) & FCR_ENABLE) || (value & FCR_ENABLE && value & FCR_CLEAR_RX))
        fifo_clear(u);
    u->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | 3u << FCR_TRIGGER_SHIFT) : 0;
    invite_input(u);
}

static void write_ier(struct uart *u, uint8_t value)
{
    if (!(u->ier & IER_TX) && (value & IER_TX) && can_send(u))
        u->tx_pending = true;
    u->ier = value & IER_BITS;
}

static void write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct uart *u = opaque;
    bool divisor = u->lcr & LCR_DLAB;

    switch (offset % REGS) {
    case REG_DATA:
        if (divisor)
            u->divisor = (u->divisor & 0xff00) | value;
        else
            send(u, value);
        break;
    case REG_IER:
        if (divisor)
            u->divisor = (uint16_t)((u->divisor & 0xff) | value << 8);
        else
            write_ier(u, value);
        break;
    case REG_IIR:
        write_fcr(u, value);
        break;
    case REG_LCR:
        u->lcr = value;
        return;
    case REG_MCR:
        u->mcr = value & MCR_BITS;
        update_modem(u);
        invite_input(u);
        break;
    case REG_SCR:
        u->scr = value;
        return;
    default: /* line and modem status can't be written */
        return;
    }
    update_irq(u);
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
    struct uart *u = opaque;
    LOCK_SCOPE(&u->lock);
    return io_read_bytes(read_byte, u, offset, size);
}

static void uart_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct uart *u = opaque;
    LOCK_SCOPE(&u->lock);
    io_write_bytes(write_byte, u, offset, size, value);
}

/* ---- the backend's side ---- */

static size_t uart_input(void *device, const uint8_t *bytes, size_t len)
{
    struct uart *u = device;
    LOCK_SCOPE(&u->lock);
    size_t room = u->mcr & MCR_LOOP ? 0 : fifo_room(u);
    size_t n = len < room ? len : room;

    for (size_t i = 0; i < n; i++)
        fifo_put(u, bytes[i]);
    u->input_waits = n < len;
    if (n)
        update_irq(u);
    return n;
}

static void flush_and_tell(struct uart *u)
{
    LOCK_SCOPE(&u->lock);
    flush(u);
    update_irq(u);
}

static void uart_output_ready(void *device)
{
    flush_and_tell(device);
}

static void on_flush_timer(void *opaque)
{
    struct uart *u = opaque;
    LOCK_SCOPE(&u->lock);
    if (u->output_waits)
        return;
    flush(u);
    update_irq(u);
}

/* ---- the device ---- */

static void reset_locked(struct uart *u)
{
    flush(u);
    u->ier = u->fcr = u->lcr = u->mcr = u->scr = 0;
    u->divisor = DEFAULT_SPEED;
    u->overrun = u->tx_pending = false;
    u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    fifo_clear(u);
    invite_input(u);
    update_irq(u);
}

static void uart_reset(struct device *device)
{
    struct uart *u = container_of(device, struct uart, device);
    LOCK_SCOPE(&u->lock);
    reset_locked(u);
}

static void uart_free(struct uart *u)
{
    loop_timer_free(u->flush_timer);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

static void uart_destroy(struct device *device)
{
    struct uart *u = container_of(device, struct uart, device);

    io_space_remove(device->env->pio, &u->region);
    pthread_mutex_lock(&u->lock);
    flush(u);
    pthread_mutex_unlock(&u->lock);
    if (u->backend) {
        u->backend->input = NULL;
        u->backend->output_ready = NULL;
        u->backend->device = NULL;
    }
    uart_free(u);
}

static int uart_create(struct device **out, const struct device_env *env, const void *config,
                       struct error **err)
{
    static const struct uart16550_config defaults;
    const struct uart16550_config *c = config ? config : &defaults;
    struct uart *u = calloc(1, sizeof(*u));
    if (!u)
        return error_set_errno(err, ENOMEM, "serial port");
    u->device = (struct device){&uart16550_class, env};
    u->backend = c->backend;
    u->irq = c->irq ? c->irq : UART16550_COM1_IRQ;
    pthread_mutex_init(&u->lock, NULL);
    u->flush_timer = loop_timer_new(env->loop, on_flush_timer, u);
    u->region = (struct io_region){
        "uart16550", c->port ? c->port : UART16550_COM1_PORT, REGS, uart_read, uart_write, u};
    pthread_mutex_lock(&u->lock);
    reset_locked(u);
    pthread_mutex_unlock(&u->lock);
    int rc = u->flush_timer ? io_space_add(env->pio, &u->region) : -ENOMEM;
    if (rc) {
        uart_free(u);
        return error_set_errno(err, -rc, "serial port");
    }
    if (u->backend) {
        u->backend->device = u;
        u->backend->input = uart_input;
        u->backend->output_ready = uart_output_ready;
    }
    *out = &u->device;
    return 0;
}

const struct device_class uart16550_class = {
    .name = "uart16550",
    .summary = "serial port (16550A)",
    .create = uart_create,
    .reset = uart_reset,
    .destroy = uart_destroy,
};
