/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The processor's side of the host report: CPUID (SDM vol. 2A CPUID, APM vol. 3 appendix E). No locks. */
#include "guest/check_priv.h"

#include <cpuid.h>
#include <string.h>

#define LEAF1_ECX_VMX        (1u << 5)
#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define EXT1_ECX_SVM         (1u << 2)

static void brand(char out[49])
{
    unsigned regs[4];

    strcpy(out, "a processor without a name");
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) < 0x80000004u)
        return;
    for (unsigned i = 0; i < 3; i++) {
        __cpuid(0x80000002u + i, regs[0], regs[1], regs[2], regs[3]);
        memcpy(out + 16 * i, regs, 16);
    }
    out[48] = '\0';
    size_t spaces = strspn(out, " ");
    memmove(out, out + spaces, strlen(out + spaces) + 1);
}

/* Who runs this host as a guest, as leaf 0x40000000 tells it. */
static const char *hypervisor(void)
{
    static const struct {
        const char signature[13], *name;
    } known[] = {
        {"KVMKVMKVM", "KVM"},           {"Microsoft Hv", "Hyper-V"}, {"VMwareVMware", "VMware"},
        {"XenVMMXenVMM", "Xen"},        {"TCGTCGTCGTCG", "QEMU"},    {"bhyve bhyve ", "bhyve"},
        {"VBoxVBoxVBox", "VirtualBox"},
    };
    unsigned max, regs[3];
    char signature[13] = "";

    __cpuid(0x40000000u, max, regs[0], regs[1], regs[2]);
    memcpy(signature, regs, 12);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(signature, known[i].signature) == 0)
            return known[i].name;
    return "a hypervisor";
}

void check_processor(struct check_report *report)
{
    unsigned eax, ebx, ecx = 0, edx, ext_ecx = 0;
    char name[49];

    brand(name);
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        ecx = 0;
    if (!__get_cpuid(0x80000001u, &eax, &ebx, &ext_ecx, &edx))
        ext_ecx = 0;
    bool guest = ecx & LEAF1_ECX_HYPERVISOR;
    check_add(report, "processor", true, NULL, "%s%s%s", name, guest ? ", itself a guest of " : "",
              guest ? hypervisor() : "");
    bool vmx = ecx & LEAF1_ECX_VMX, svm = ext_ecx & EXT1_ECX_SVM;
    check_add(
        report, "VT-x, AMD-V", vmx || svm,
        guest ? "the machine above would have to allow nested virtualization; the soft engine needs none"
              : "a processor without it, or with it switched off in the firmware's setup; the soft engine "
                "needs none",
        "%s",
        vmx   ? "the processor has VT-x"
        : svm ? "the processor has AMD-V"
              : "the processor shows neither");
}
