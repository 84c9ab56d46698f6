/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The engine that lets the host's processor run the guest, through the kernel's KVM. */
#ifndef TABIQUE_ENGINE_KVM_KVM_H
#define TABIQUE_ENGINE_KVM_KVM_H

#include "engine/engine.h"

extern const struct engine_class engine_kvm;

#endif
