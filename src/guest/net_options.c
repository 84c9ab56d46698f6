/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text to networks. A message names the flag, what was given, and what would do. No state, no locks. */
#include "guest/net_options.h"

#include "base/error.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NET_FORMS "user, user,restrict, tap=INTERFACE, tap=INTERFACE,create, or none"

/* What follows `prefix` in `text`, or NULL. */
static const char *after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

static int parse_tap(const char *text, struct net_config *config, struct error **err)
{
    size_t len = strcspn(text, ",");
    config->kind = NET_TAP;
    if (text[len] == ',') {
        if (strcmp(text + len, ",create") != 0)
            return error_set(err, EINVAL, "--net: '%s' after the interface's name: only 'create' may follow",
                             text + len + 1);
        config->create = true;
    }
    if (!len || len >= sizeof(config->tap))
        return error_set(err, EINVAL, "--net: '%.*s' is no name of an interface: it has 1 to %zu characters",
                         (int)len, text, sizeof(config->tap) - 1);
    memcpy(config->tap, text, len);
    config->tap[len] = '\0';
    return 0;
}

static int parse_net(const char *text, struct net_config *config, struct error **err)
{
    const char *tap = after(text, "tap=");
    *config = (struct net_config){.kind = NET_NONE};
    if (tap)
        return parse_tap(tap, config, err);
    if (strcmp(text, "none") == 0)
        return 0;
    config->kind = NET_USER;
    config->restricted = strcmp(text, "user,restrict") == 0;
    if (config->restricted || strcmp(text, "user") == 0)
        return 0;
    return error_set(err, EINVAL, "--net: '%s' is no network: choose " NET_FORMS, text);
}

static int hex(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

static int parse_mac(const char *text, uint8_t mac[NET_MAC_SIZE], struct error **err)
{
    uint8_t got[NET_MAC_SIZE], any = 0;
    bool good = strlen(text) == 3 * NET_MAC_SIZE - 1;
    for (unsigned i = 0; good && i < NET_MAC_SIZE; i++) {
        const char *p = text + 3 * i;
        good = isxdigit((unsigned char)p[0]) && isxdigit((unsigned char)p[1]) &&
               (p[2] == ':' || i == NET_MAC_SIZE - 1);
        if (good)
            any |= got[i] = (uint8_t)(hex(p[0]) << 4 | hex(p[1]));
    }
    if (!good)
        return error_set(err, EINVAL, "--mac: '%s' is no address of the form 52:54:00:12:34:56", text);
    if (got[0] & 1 || !any)
        return error_set(err, EINVAL,
                         "--mac: %s is no card's address: its first byte must be even, and one must not be 0",
                         text);
    memcpy(mac, got, NET_MAC_SIZE);
    return 0;
}

/* A port of `len` characters; 0 if it is none. */
static uint16_t parse_port(const char *text, size_t len)
{
    unsigned long n = 0;
    if (!len || len > 5)
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)text[i]))
            return 0;
        n = n * 10 + (unsigned)(text[i] - '0');
    }
    return n <= UINT16_MAX ? (uint16_t)n : 0;
}

/* [udp:|tcp:][ADDRESS:]HOST:GUEST */
static bool parse_publish(const char *text, struct net_publish *port)
{
    char address[INET_ADDRSTRLEN];
    const char *rest = after(text, "udp:");
    *port = (struct net_publish){.udp = rest != NULL};
    if (!rest)
        rest = after(text, "tcp:");
    if (!rest)
        rest = text;
    const char *guest = strrchr(rest, ':');
    if (!guest)
        return false;
    const char *host = rest;
    for (const char *p = rest; p < guest; p++)
        if (*p == ':')
            host = p + 1;
    if (host != rest) {
        size_t len = (size_t)(host - 1 - rest);
        if (len >= sizeof(address))
            return false;
        memcpy(address, rest, len);
        address[len] = '\0';
        if (inet_pton(AF_INET, address, port->address) != 1)
            return false;
    }
    port->host = parse_port(host, (size_t)(guest - host));
    port->guest = parse_port(guest + 1, strlen(guest + 1));
    return port->host && port->guest;
}

static int parse_ports(struct net_options *options, const char *const *ports, size_t n, struct error **err)
{
    struct net_config *user = NULL;
    for (size_t i = 0; !user && i < options->n_nets; i++)
        if (options->nets[i].config.kind == NET_USER)
            user = &options->nets[i].config;
    if (!n)
        return 0;
    if (!user)
        return error_set(err, EINVAL, "--publish is for the user network: add --net user");
    options->ports = calloc(n, sizeof(*options->ports));
    if (!options->ports)
        return error_set_errno(err, ENOMEM, "arguments");
    for (size_t i = 0; i < n; i++) {
        struct net_publish *port = &options->ports[i];
        if (!parse_publish(ports[i], port))
            return error_set(
                err, EINVAL,
                "--publish: '%s' is not of the form [udp:][ADDRESS:]HOST:GUEST, with an IPv4 address "
                "of this host and ports from 1 to 65535",
                ports[i]);
        for (size_t k = 0; k < i; k++)
            if (options->ports[k].udp == port->udp && options->ports[k].host == port->host &&
                memcmp(options->ports[k].address, port->address, sizeof(port->address)) == 0)
                return error_set(err, EINVAL, "--publish: '%s' takes the host's port %u a second time",
                                 ports[i], port->host);
    }
    user->ports = options->ports;
    user->n_ports = n;
    return 0;
}

static int parse_nets(struct net_options *options, const char *const *nets, size_t n_nets,
                      const char *const *macs, size_t n_macs, unsigned cpus, struct error **err)
{
    unsigned subnet = 0;
    bool none = false;
    if (n_nets > VM_NETS_MAX)
        return error_set(err, EINVAL, "--net is given %zu times: a guest has up to %u cards", n_nets,
                         VM_NETS_MAX);
    for (size_t i = 0; i < n_nets; i++) {
        struct vm_net *net = &options->nets[options->n_nets];
        int rc = parse_net(nets[i], &net->config, err);
        if (rc)
            return rc;
        none |= net->config.kind == NET_NONE;
        if (net->config.kind == NET_USER)
            net->config.subnet = subnet++;
        net->config.queues = cpus;
        options->n_nets += net->config.kind != NET_NONE;
    }
    if (none && n_nets > 1)
        return error_set(err, EINVAL, "--net none and another --net: choose one");
    if (n_macs > options->n_nets)
        return error_set(err, EINVAL, "--mac is given %zu times for %zu network card%s", n_macs,
                         options->n_nets, options->n_nets == 1 ? "" : "s");
    for (size_t i = 0; i < n_macs; i++) {
        int rc = parse_mac(macs[i], options->nets[i].mac, err);
        if (rc)
            return rc;
        for (size_t k = 0; k < i; k++)
            if (memcmp(options->nets[k].mac, options->nets[i].mac, NET_MAC_SIZE) == 0)
                return error_set(err, EINVAL, "--mac: %s is given twice", macs[i]);
    }
    return 0;
}

int net_options_parse(struct net_options *options, const char *const *nets, size_t n_nets,
                      const char *const *macs, size_t n_macs, const char *const *ports, size_t n_ports,
                      const char *name, unsigned cpus, struct error **err)
{
    static const char *const user[] = {"user"};
    *options = (struct net_options){0};
    int rc = n_nets ? parse_nets(options, nets, n_nets, macs, n_macs, cpus, err)
                    : parse_nets(options, user, 1, macs, n_macs, cpus, err);
    if (rc == 0)
        rc = parse_ports(options, ports, n_ports, err);
    if (rc) {
        net_options_free(options);
        return rc;
    }
    for (size_t i = n_macs; i < options->n_nets; i++)
        net_mac_from_name(options->nets[i].mac, name, (unsigned)i);
    return 0;
}

void net_options_free(struct net_options *options)
{
    free(options->ports);
    options->ports = NULL;
}
