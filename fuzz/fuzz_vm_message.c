/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a VM process that its guest has taken over can tell its supervisor, and the other way round. The first
 * byte chooses the direction, the rest is the message. */
#include "machine/vm_message.h"
#include "require.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vm_message whole, m, untouched;

    if (size < 1)
        return 0;
    bool from_vm = data[0] & 1;
    memset(&m, 0x55, sizeof(m));
    memset(&untouched, 0x55, sizeof(untouched));
    if (vm_message_parse(data + 1, size - 1, from_vm, &m)) {
        REQUIRE(memcmp(&m, &untouched, sizeof(m)) == 0);
        /* A text that is cut by the input's end is no message; with zeros behind it may be one. */
        memset(&whole, 0, sizeof(whole));
        memcpy(&whole, data + 1, size - 1 < sizeof(whole) ? size - 1 : sizeof(whole));
        if (vm_message_parse(&whole, sizeof(whole), from_vm, &m))
            return 0;
    }
    REQUIRE(from_vm ? m.type >= VM_CONFINED && m.type <= VM_FROM_LAST
                    : m.type >= VM_POWER_BUTTON && m.type <= VM_TO_LAST);
    REQUIRE(m.end < VM_ENDS && *vm_end_name((enum vm_end)m.end));
    REQUIRE(m.status >= 0 && m.status <= 255);
    REQUIRE(m.engine.cpus <= ENGINE_MAX_CPUS);
    REQUIRE(m.profile.n <= ENGINE_SAMPLES_MAX && m.profile.hz <= ENGINE_PROFILE_HZ_MAX);
    for (unsigned i = 0; i < m.profile.n; i++)
        REQUIRE(m.profile.samples[i].depth <= ENGINE_STACK_MAX && m.profile.samples[i].cpu < ENGINE_MAX_CPUS);
    REQUIRE(memchr(m.text, 0, sizeof(m.text)));
    for (const char *p = m.text; *p; p++)
        REQUIRE((unsigned char)*p >= 0x20 && *p != 0x7f);
    return 0;
}
