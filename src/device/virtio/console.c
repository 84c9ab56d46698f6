/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio console (virtio 1.2, 5.3) with one port: /dev/hvc0 in Linux. Queue 0 takes input to the guest, queue
 * 1 its output; the far side is a struct char_backend.
 *
 * The queues are served in the loop's thread, input comes in any thread; both hold the device's lock. The
 * backend is called with the lock held, which device/char.h allows.
 */
#include "device/virtio/console.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/char.h"
#include "device/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>

#define CONSOLE_CLASS      0x078000 /* PCI: communication controller, other */
#define CONSOLE_QUEUE_SIZE 128
#define RECEIVE            0
#define TRANSMIT           1

#define CONSOLE_F_SIZE        0
#define CONSOLE_F_EMERG_WRITE 2

/* Device configuration (5.3.4). */
enum { CONFIG_COLUMNS = 0, CONFIG_ROWS = 2, CONFIG_PORTS = 4, CONFIG_EMERGENCY = 8, CONFIG_SIZE = 12 };

/* Output to pass on before others get their turn of the loop. */
#define OUTPUT_BUDGET 65536u

struct virtio_console {
    struct virtio_device vdev;
    struct char_backend *backend;
    uint16_t columns, rows;
    bool input_refused; /* the backend waits for input_ready */
    /* A buffer of which the backend has taken only `sent` bytes yet. */
    bool sending;
    size_t sent;
    struct virtqueue_element output;
};

static struct virtio_console *console_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_console, vdev);
}

/* Passes on what is left of the current buffer, at most *budget bytes, which it lowers. True once all of it
 * is gone. */
static bool send_rest(struct virtio_console *console, size_t *budget)
{
    const struct virtqueue_element *elem = &console->output;
    size_t skip = console->sent;
    for (unsigned i = 0; i < elem->n_out; i++) {
        const struct iovec *v = &virtqueue_out(elem)[i];
        if (skip >= v->iov_len) {
            skip -= v->iov_len;
            continue;
        }
        if (!*budget)
            return false;
        size_t want = v->iov_len - skip < *budget ? v->iov_len - skip : *budget;
        size_t took = console->backend->output(console->backend, (const uint8_t *)v->iov_base + skip, want);
        console->sent += took;
        *budget -= took;
        if (took < v->iov_len - skip)
            return false;
        skip = 0;
    }
    return true;
}

static void transmit(struct virtio_console *console, struct virtqueue *queue)
{
    size_t budget = OUTPUT_BUDGET;
    unsigned n = 0;
    while (n < queue->size && (console->sending || virtqueue_pop(queue, &console->output))) {
        if (!console->sending)
            console->sent = 0;
        console->sending = !send_rest(console, &budget);
        if (console->sending)
            break; /* output_ready comes, unless it was our own budget */
        virtqueue_push(queue, &console->output, 0);
        n++;
    }
    virtqueue_notify(queue);
    if (n == queue->size || !budget)
        virtqueue_kick(queue);
}

static void console_queue_notify(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_console *console = console_of(vdev);
    if (queue->index == TRANSMIT) {
        transmit(console, queue);
    } else if (console->input_refused) {
        console->input_refused = false;
        console->backend->input_ready(console->backend);
    }
}

/* The backend has input. What finds no buffer stays with it until the driver adds one. */
static size_t console_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct virtio_console *console = opaque;
    struct virtqueue *queue = &console->vdev.queues[RECEIVE];
    struct virtqueue_element elem;
    size_t done = 0;
    LOCK_SCOPE(&console->vdev.lock);
    for (unsigned n = 0; done < len; n++) {
        if (n == queue->size) {
            virtqueue_kick(queue); /* buffers without room, again and again: not now */
            break;
        }
        if (!virtqueue_pop(queue, &elem))
            break;
        size_t part = virtqueue_write(&elem, 0, bytes + done, len - done);
        virtqueue_push(queue, &elem, (uint32_t)part);
        done += part;
    }
    virtqueue_notify(queue);
    console->input_refused = done < len;
    return done;
}

/* Any thread. Goes on in the loop's. */
static void console_output_ready(void *opaque)
{
    struct virtio_console *console = opaque;
    virtqueue_kick(&console->vdev.queues[TRANSMIT]);
}

static void console_queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    if (queue->index == TRANSMIT)
        console_of(vdev)->sending = false;
}

static void console_reset(struct virtio_device *vdev)
{
    console_of(vdev)->sending = false;
}

static void console_config_read(struct virtio_device *vdev, uint8_t *config)
{
    const struct virtio_console *console = console_of(vdev);
    put_le16(config + CONFIG_COLUMNS, console->columns);
    put_le16(config + CONFIG_ROWS, console->rows);
    put_le32(config + CONFIG_PORTS, 1);
}

/* Output without a queue, for a guest in trouble: a byte a write; what the backend can't take now is lost. */
static void console_config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint64_t value)
{
    struct virtio_console *console = console_of(vdev);
    uint8_t byte = (uint8_t)value;
    if (offset == CONFIG_EMERGENCY)
        console->backend->output(console->backend, &byte, 1);
}

static const uint16_t console_queues[] = {CONSOLE_QUEUE_SIZE, CONSOLE_QUEUE_SIZE};

static const struct virtio_device_class console_type = {
    .type = VIRTIO_TYPE_CONSOLE,
    .pci_class = CONSOLE_CLASS,
    .features = VIRTIO_FEATURE(CONSOLE_F_SIZE) | VIRTIO_FEATURE(CONSOLE_F_EMERG_WRITE),
    .config_size = CONFIG_SIZE,
    .n_queues = ARRAY_SIZE(console_queues),
    .queue_max = console_queues,
    .queue_notify = console_queue_notify,
    .reset = console_reset,
    .queue_reset = console_queue_reset,
    .config_read = console_config_read,
    .config_write = console_config_write,
};

static void console_destroy(struct device *device)
{
    struct virtio_console *console = container_of(device, struct virtio_console, vdev.device);
    console->backend->input = NULL;
    console->backend->output_ready = NULL;
    console->backend->device = NULL;
    virtio_device_fini(&console->vdev);
    free(console);
}

static int console_create(struct device **out, const struct device_env *env, const void *config,
                          struct error **err)
{
    const struct virtio_console_config *how = config;
    if (!how || !how->backend)
        return error_set(err, EINVAL, "virtio-console: no backend given");
    struct virtio_console *console = calloc(1, sizeof(*console));
    if (!console)
        return error_set_errno(err, ENOMEM, "virtio-console");
    console->backend = how->backend;
    console->columns = how->columns;
    console->rows = how->rows;
    int rc = virtio_device_init(&console->vdev, &virtio_console_class, &console_type, env, NULL, err);
    if (rc < 0) {
        free(console);
        return rc;
    }
    rc = virtio_device_plug(&console->vdev, err);
    if (rc < 0) {
        console_destroy(&console->vdev.device);
        return rc;
    }
    console->backend->device = console;
    console->backend->input = console_input;
    console->backend->output_ready = console_output_ready;
    *out = &console->vdev.device;
    return 0;
}

void virtio_console_resize(struct device *device, uint16_t columns, uint16_t rows)
{
    struct virtio_console *console = container_of(device, struct virtio_console, vdev.device);
    LOCK_SCOPE(&console->vdev.lock);
    if (console->columns == columns && console->rows == rows)
        return;
    console->columns = columns;
    console->rows = rows;
    virtio_config_changed(&console->vdev);
}

bool virtio_console_running(struct device *device)
{
    struct virtio_console *console = container_of(device, struct virtio_console, vdev.device);
    LOCK_SCOPE(&console->vdev.lock);
    return (console->vdev.status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
           VIRTIO_STATUS_DRIVER_OK;
}

const struct device_class virtio_console_class = {
    .name = "virtio-console",
    .summary = "virtio console with one port",
    .create = console_create,
    .reset = virtio_device_power_on,
    .destroy = console_destroy,
};
