/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keyboard controller (8042, IBM PS/2 technical reference) with no keyboard and no mouse plugged in, and
 * system control port A beside it: what kernels need of it is the reset line, and answers that make their
 * search for a keyboard end at once. Ports 0x60, 0x64 and 0x92; one mutex, held over irq_set.
 *
 * Every command answers at once. What is sent to a device that is not there comes back as "resend" with the
 * timeout bit set, as from a controller that got no clock from the device.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "device/io_bytes.h"

#include <errno.h>

#define STATUS_OUTPUT  0x01u /* a byte waits at 0x60 */
#define STATUS_SYSTEM  0x04u /* self-test passed */
#define STATUS_COMMAND 0x08u /* the last write went to 0x64 */
#define STATUS_UNLOCK  0x10u
#define STATUS_AUX     0x20u /* the byte is the mouse's */
#define STATUS_TIMEOUT 0x40u

#define MODE_IRQ1      0x01u
#define MODE_IRQ12     0x02u
#define MODE_SYSTEM    0x04u
#define MODE_NO_KBD    0x10u
#define MODE_NO_AUX    0x20u
#define MODE_TRANSLATE 0x40u

#define OUT_NO_RESET 0x01u /* output port; 0 holds the processor in reset */
#define OUT_A20      0x02u

#define PORT_A_RESET 0x01u
#define PORT_A_A20   0x02u

#define SELF_TEST_PASSED 0x55
#define LINE_STUCK       0x03 /* interface test: the data line does not move */
#define RESEND           0xfe
#define RAM_SIZE         32u
#define NO_COMMAND       0

#define CMD_READ_RAM     0x20 /* 0x20-0x3f; byte 0 is the mode */
#define CMD_WRITE_RAM    0x60 /* 0x60-0x7f */
#define CMD_AUX_OFF      0xa7
#define CMD_AUX_ON       0xa8
#define CMD_AUX_TEST     0xa9
#define CMD_SELF_TEST    0xaa
#define CMD_KBD_TEST     0xab
#define CMD_KBD_OFF      0xad
#define CMD_KBD_ON       0xae
#define CMD_READ_INPUT   0xc0
#define CMD_READ_OUTPUT  0xd0
#define CMD_WRITE_OUTPUT 0xd1
#define CMD_KBD_LOOP     0xd2
#define CMD_AUX_LOOP     0xd3
#define CMD_AUX_SEND     0xd4
#define CMD_PULSE        0xf0 /* 0xf0-0xff: lines whose bit is 0 go low for 6 us */

struct i8042 {
    struct device device;
    struct io_region data_region, command_region, port_a_region;
    pthread_mutex_t lock;
    uint8_t status;
    uint8_t output;  /* what 0x60 reads */
    uint8_t command; /* that waits for its byte at 0x60, or NO_COMMAND */
    uint8_t output_port;
    uint8_t ram[RAM_SIZE];
};

/* ---- state; the lock is held ---- */

static void update_irqs(struct i8042 *k)
{
    const struct device_env *env = k->device.env;
    bool full = k->status & STATUS_OUTPUT, aux = k->status & STATUS_AUX;

    env->irq_set(env->opaque, 1, full && !aux && (k->ram[0] & MODE_IRQ1));
    env->irq_set(env->opaque, 12, full && aux && (k->ram[0] & MODE_IRQ12));
}

/* `flags`: STATUS_AUX, STATUS_TIMEOUT. A byte that was not read is overwritten: there is one output buffer.
 */
static void answer(struct i8042 *k, uint8_t byte, uint8_t flags)
{
    k->output = byte;
    k->status = (k->status & ~(STATUS_AUX | STATUS_TIMEOUT)) | STATUS_OUTPUT | flags;
}

static void ask_reset(struct i8042 *k)
{
    const struct device_env *env = k->device.env;
    env->event(env->opaque, MACHINE_RESET, 0);
}

/* A20 is never low here (no processor in use wraps at 1 MiB), but reads back as it was set. */
static void set_output_port(struct i8042 *k, uint8_t value)
{
    k->output_port = value;
    if (!(value & OUT_NO_RESET))
        ask_reset(k);
}

static void reset_state(struct i8042 *k)
{
    k->status = STATUS_UNLOCK | STATUS_SYSTEM;
    k->output = 0;
    k->command = NO_COMMAND;
    k->output_port = OUT_NO_RESET | OUT_A20;
    memset(k->ram, 0, sizeof(k->ram));
    k->ram[0] = MODE_SYSTEM | MODE_TRANSLATE | MODE_NO_AUX | MODE_IRQ1;
}

/* ---- commands; the lock is held ---- */

static void do_command(struct i8042 *k, uint8_t command)
{
    k->command = NO_COMMAND;
    switch (command) {
    case CMD_READ_RAM ... CMD_READ_RAM + RAM_SIZE - 1:
        answer(k, k->ram[command - CMD_READ_RAM], 0);
        break;
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + RAM_SIZE - 1:
    case CMD_WRITE_OUTPUT:
    case CMD_KBD_LOOP:
    case CMD_AUX_LOOP:
    case CMD_AUX_SEND:
        k->command = command;
        break;
    case CMD_AUX_OFF:
        k->ram[0] |= MODE_NO_AUX;
        break;
    case CMD_AUX_ON:
        k->ram[0] &= ~MODE_NO_AUX;
        break;
    case CMD_AUX_TEST:
        answer(k, LINE_STUCK, 0);
        break;
    case CMD_SELF_TEST:
        k->status |= STATUS_SYSTEM;
        answer(k, SELF_TEST_PASSED, 0);
        break;
    case CMD_KBD_TEST: /* the interface itself works */
        answer(k, 0, 0);
        break;
    case CMD_KBD_OFF:
        k->ram[0] |= MODE_NO_KBD;
        break;
    case CMD_KBD_ON:
        k->ram[0] &= ~MODE_NO_KBD;
        break;
    case CMD_READ_INPUT: /* not locked, no jumpers */
        answer(k, 0x80, 0);
        break;
    case CMD_READ_OUTPUT:
        answer(k, k->output_port, 0);
        break;
    case CMD_PULSE ... 0xff:
        if (!(command & OUT_NO_RESET))
            ask_reset(k);
        break;
    default: /* unknown ones are taken without an answer */
        break;
    }
}

static void do_data(struct i8042 *k, uint8_t value)
{
    uint8_t command = k->command;

    k->command = NO_COMMAND;
    switch (command) {
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + RAM_SIZE - 1:
        k->ram[command - CMD_WRITE_RAM] = value;
        break;
    case CMD_WRITE_OUTPUT:
        set_output_port(k, value);
        break;
    case CMD_KBD_LOOP:
        answer(k, value, 0);
        break;
    case CMD_AUX_LOOP: /* a controller with no mouse port can't say that the byte came from there */
        answer(k, (uint8_t)~value, 0);
        break;
    case CMD_AUX_SEND:
        answer(k, RESEND, STATUS_AUX | STATUS_TIMEOUT);
        break;
    default:
        k->ram[0] &= ~MODE_NO_KBD;
        answer(k, RESEND, STATUS_TIMEOUT);
    }
}

/* ---- ports ---- */

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i8042 *k = opaque;
    LOCK_SCOPE(&k->lock);
    k->status &= ~(STATUS_OUTPUT | STATUS_AUX | STATUS_TIMEOUT);
    update_irqs(k);
    return k->output;
}

static void data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *k = opaque;
    LOCK_SCOPE(&k->lock);
    k->status &= ~STATUS_COMMAND;
    do_data(k, (uint8_t)value);
    update_irqs(k);
}

static uint64_t command_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i8042 *k = opaque;
    LOCK_SCOPE(&k->lock);
    return k->status;
}

static void command_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *k = opaque;
    LOCK_SCOPE(&k->lock);
    k->status |= STATUS_COMMAND;
    do_command(k, (uint8_t)value);
    update_irqs(k);
}

static uint64_t port_a_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i8042 *k = opaque;
    LOCK_SCOPE(&k->lock);
    return k->output_port & OUT_A20 ? PORT_A_A20 : 0;
}

static void port_a_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *k = opaque;
    LOCK_SCOPE(&k->lock);
    k->output_port = (k->output_port & ~OUT_A20) | (value & PORT_A_A20 ? OUT_A20 : 0);
    if (value & PORT_A_RESET)
        ask_reset(k);
}

/* ---- the device ---- */

extern const struct device_class i8042_class;

static void i8042_reset(struct device *device)
{
    struct i8042 *k = container_of(device, struct i8042, device);
    LOCK_SCOPE(&k->lock);
    reset_state(k);
    update_irqs(k);
}

static void i8042_destroy(struct device *device)
{
    struct i8042 *k = container_of(device, struct i8042, device);
    io_space_remove(device->env->pio, &k->data_region);
    io_space_remove(device->env->pio, &k->command_region);
    io_space_remove(device->env->pio, &k->port_a_region);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

static int i8042_create(struct device **out, const struct device_env *env, const void *config,
                        struct error **err)
{
    struct i8042 *k = calloc(1, sizeof(*k));
    if (!k)
        return error_set_errno(err, ENOMEM, "keyboard controller");
    k->device = (struct device){&i8042_class, env};
    pthread_mutex_init(&k->lock, NULL);
    reset_state(k);
    k->data_region = (struct io_region){"i8042-data", 0x60, 1, data_read, data_write, k};
    k->command_region = (struct io_region){"i8042-command", 0x64, 1, command_read, command_write, k};
    k->port_a_region = (struct io_region){"system-control-a", 0x92, 1, port_a_read, port_a_write, k};
    int rc = io_space_add(env->pio, &k->data_region);
    if (rc == 0)
        rc = io_space_add(env->pio, &k->command_region);
    if (rc == 0)
        rc = io_space_add(env->pio, &k->port_a_region);
    if (rc) {
        i8042_destroy(&k->device);
        return error_set_errno(err, -rc, "keyboard controller");
    }
    *out = &k->device;
    return 0;
}

const struct device_class i8042_class = {
    .name = "i8042",
    .summary = "keyboard controller: reset line, A20",
    .create = i8042_create,
    .reset = i8042_reset,
    .destroy = i8042_destroy,
};
