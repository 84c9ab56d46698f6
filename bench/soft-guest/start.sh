#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# In the guest's initial RAM disk: enters the userland on the first disk and gives bench/soft its driver there.
mkdir -p /userland
mount -t ext4 -o ro /dev/vda /userland || exit 1
mount -t tmpfs -o size=80% tmpfs /userland/tmp
for name in dev proc sys; do
    mount -o bind /$name /userland/$name
done
if ip link set eth0 up 2>/dev/null; then
    ip addr add 10.0.2.15/24 dev eth0
    ip route add default via 10.0.2.2 dev eth0
fi
stty -echo
exec chroot /userland /bench/driver /tmp/output
