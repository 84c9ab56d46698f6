/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtio console device (virtio 1.2, 5.3) that is no console: one named port, for a program in the guest
 * that talks to the host. Port 0, which a driver without multiport takes for a console, leads nowhere; the
 * named one is port 1:
 *
 *     queue 0, 1   port 0, to the guest and from it
 *     queue 2, 3   control messages likewise: le32 port, le16 event, le16 value, and a name's bytes
 *     queue 4, 5   port 1
 *
 * The far side is a struct char_backend that takes all that comes. The queues are served in the loop's
 * thread, input comes in any; both hold the device's lock.
 */
#include "device/virtio/port.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/char.h"
#include "device/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORT_CLASS      0x078000 /* PCI: communication controller, other */
#define PORT_QUEUE_SIZE 16
#define PORT_NUMBER     1u

enum { IGNORED_RECEIVE, IGNORED_TRANSMIT, CONTROL_RECEIVE, CONTROL_TRANSMIT, RECEIVE, TRANSMIT, QUEUES };

#define CONSOLE_F_MULTIPORT 1

/* Device configuration (5.3.4). */
enum { CONFIG_PORTS = 4, CONFIG_SIZE = 8 };

/* Control messages (5.3.6.2). */
#define CONTROL_SIZE 8u
enum {
    CONTROL_DEVICE_READY = 0,
    CONTROL_PORT_ADD = 1,
    CONTROL_PORT_READY = 3,
    CONTROL_PORT_OPEN = 6,
    CONTROL_PORT_NAME = 7
};

/* Output to pass on before others get their turn of the loop, in pieces. */
#define OUTPUT_BUDGET 65536u
#define OUTPUT_PIECE  4096u

struct virtio_port {
    struct virtio_device vdev;
    struct char_backend *backend;
    const char *name;
    uint32_t pending; /* a bit for each event that the driver is to be told */
    bool open;        /* by a program in the guest */
};

static struct virtio_port *port_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_port, vdev);
}

/* ---- control ---- */

/* Tells what is pending, in the order of a port's life, as long as there are buffers. */
static void send_control(struct virtio_port *port)
{
    static const uint16_t order[] = {CONTROL_PORT_ADD, CONTROL_PORT_NAME, CONTROL_PORT_OPEN};
    struct virtqueue *queue = &port->vdev.queues[CONTROL_RECEIVE];
    struct virtqueue_element elem;
    uint8_t message[CONTROL_SIZE + VIRTIO_PORT_NAME_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        size_t len = CONTROL_SIZE;

        if (!(port->pending & 1u << order[i]))
            continue;
        if (!virtqueue_pop(queue, &elem))
            break;
        put_le32(message, PORT_NUMBER);
        put_le16(message + 4, order[i]);
        put_le16(message + 6, 1);
        if (order[i] == CONTROL_PORT_NAME) {
            memcpy(message + len, port->name, strlen(port->name));
            len += strlen(port->name);
        }
        virtqueue_push(queue, &elem, (uint32_t)virtqueue_write(&elem, 0, message, len));
        port->pending &= ~(1u << order[i]);
    }
    virtqueue_notify(queue);
}

static void take_control(struct virtio_port *port, const struct virtqueue_element *elem)
{
    uint8_t message[CONTROL_SIZE];

    if (virtqueue_read(elem, 0, message, sizeof(message)) < sizeof(message))
        return;
    uint32_t number = get_le32(message);
    uint16_t event = get_le16(message + 4), value = get_le16(message + 6);

    if (event == CONTROL_DEVICE_READY && value)
        port->pending |= 1u << CONTROL_PORT_ADD;
    else if (event == CONTROL_PORT_READY && number == PORT_NUMBER && value)
        port->pending |= 1u << CONTROL_PORT_NAME | 1u << CONTROL_PORT_OPEN; /* the host's end always is */
    else if (event == CONTROL_PORT_OPEN && number == PORT_NUMBER)
        port->open = value;
}

static void control_notify(struct virtio_port *port, struct virtqueue *queue)
{
    struct virtqueue_element elem;
    unsigned n = 0;

    for (; n < queue->size && virtqueue_pop(queue, &elem); n++) {
        take_control(port, &elem);
        virtqueue_push(queue, &elem, 0);
    }
    virtqueue_notify(queue);
    if (n == queue->size)
        virtqueue_kick(queue);
    send_control(port);
}

/* ---- data ---- */

static size_t pass_on(struct virtio_port *port, const struct virtqueue_element *elem)
{
    size_t done = 0;

    for (unsigned i = 0; i < elem->n_out && done < OUTPUT_BUDGET; i++) {
        const struct iovec *v = &virtqueue_out(elem)[i];

        for (size_t at = 0, n; at < v->iov_len && done < OUTPUT_BUDGET; at += n) {
            n = v->iov_len - at < OUTPUT_PIECE ? v->iov_len - at : OUTPUT_PIECE;
            port->backend->output(port->backend, (const uint8_t *)v->iov_base + at, n);
            done += n;
        }
    }
    return done;
}

/* What no program of sense sends, a buffer beyond the budget, is cut there. */
static void transmit(struct virtio_port *port, struct virtqueue *queue)
{
    struct virtqueue_element elem;
    size_t done = 0;
    unsigned n = 0;

    for (; n < queue->size && done < OUTPUT_BUDGET && virtqueue_pop(queue, &elem); n++) {
        if (queue->index == TRANSMIT)
            done += pass_on(port, &elem);
        virtqueue_push(queue, &elem, 0);
    }
    virtqueue_notify(queue);
    if (n == queue->size || done >= OUTPUT_BUDGET)
        virtqueue_kick(queue);
}

static void port_queue_notify(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_port *port = port_of(vdev);

    switch (queue->index) {
    case CONTROL_RECEIVE:
        send_control(port);
        break;
    case CONTROL_TRANSMIT:
        control_notify(port, queue);
        break;
    case IGNORED_TRANSMIT:
    case TRANSMIT:
        transmit(port, queue);
        break;
    case RECEIVE:
        port->backend->input_ready(port->backend);
        break;
    default:
        break;
    }
}

/* What finds no buffer stays with the backend. */
static size_t port_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct virtio_port *port = opaque;
    struct virtqueue *queue = &port->vdev.queues[RECEIVE];
    struct virtqueue_element elem;
    size_t done = 0;
    LOCK_SCOPE(&port->vdev.lock);

    for (unsigned n = 0; port->open && done < len && n < queue->size && virtqueue_pop(queue, &elem); n++) {
        size_t part = virtqueue_write(&elem, 0, bytes + done, len - done);

        virtqueue_push(queue, &elem, (uint32_t)part);
        done += part;
    }
    virtqueue_notify(queue);
    return done;
}

static void port_output_ready(void *opaque)
{
    struct virtio_port *port = opaque;

    virtqueue_kick(&port->vdev.queues[TRANSMIT]);
}

static void port_reset(struct virtio_device *vdev)
{
    struct virtio_port *port = port_of(vdev);

    port->pending = 0;
    port->open = false;
}

static void port_config_read(struct virtio_device *vdev, uint8_t *config)
{
    put_le32(config + CONFIG_PORTS, PORT_NUMBER + 1);
}

static const uint16_t port_queues[QUEUES] = {PORT_QUEUE_SIZE, PORT_QUEUE_SIZE, PORT_QUEUE_SIZE,
                                             PORT_QUEUE_SIZE, PORT_QUEUE_SIZE, PORT_QUEUE_SIZE};

static const struct virtio_device_class port_type = {
    .type = VIRTIO_TYPE_CONSOLE,
    .pci_class = PORT_CLASS,
    .features = VIRTIO_FEATURE(CONSOLE_F_MULTIPORT),
    .config_size = CONFIG_SIZE,
    .n_queues = QUEUES,
    .queue_max = port_queues,
    .queue_notify = port_queue_notify,
    .reset = port_reset,
    .config_read = port_config_read,
};

static void port_destroy(struct device *device)
{
    struct virtio_port *port = container_of(device, struct virtio_port, vdev.device);

    port->backend->input = NULL;
    port->backend->output_ready = NULL;
    port->backend->device = NULL;
    virtio_device_fini(&port->vdev);
    free(port);
}

static int port_create(struct device **out, const struct device_env *env, const void *config,
                       struct error **err)
{
    const struct virtio_port_config *how = config;

    if (!how || !how->backend || !how->name || strlen(how->name) > VIRTIO_PORT_NAME_MAX)
        return error_set(err, EINVAL, "virtio-port: no backend or no name given");
    struct virtio_port *port = calloc(1, sizeof(*port));
    if (!port)
        return error_set_errno(err, ENOMEM, "virtio-port");
    port->backend = how->backend;
    port->name = how->name;
    int rc = virtio_device_init(&port->vdev, &virtio_port_class, &port_type, env, NULL, err);
    if (rc < 0) {
        free(port);
        return rc;
    }
    rc = virtio_device_plug(&port->vdev, err);
    if (rc < 0) {
        port_destroy(&port->vdev.device);
        return rc;
    }
    port->backend->device = &port->vdev.device;
    port->backend->input = port_input;
    port->backend->output_ready = port_output_ready;
    *out = &port->vdev.device;
    return 0;
}

bool virtio_port_is_open(struct device *device)
{
    struct virtio_port *port = container_of(device, struct virtio_port, vdev.device);
    LOCK_SCOPE(&port->vdev.lock);

    return port->open && !(port->vdev.status & VIRTIO_STATUS_NEEDS_RESET);
}

const struct device_class virtio_port_class = {
    .name = "virtio-port",
    .summary = "virtio port by which an agent in the guest is reached",
    .create = port_create,
    .reset = virtio_device_power_on,
    .destroy = port_destroy,
};
