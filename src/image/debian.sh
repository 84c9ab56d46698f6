# SPDX-License-Identifier: GPL-2.0-or-later
# Makes a Debian for a virtual machine: OUT/disk.raw (ext4), OUT/kernel, OUT/modules/ (what the initial RAM disk
# loads, in the order of OUT/modules/order); and for containers: OUT/root.tar. Run by debian.c as root, or as the root of a user namespace, in mount
# and process namespaces of its own where the host has them. Says where it is in lines that begin with '@'.
#
# From the environment: OUT, CACHE (directories), SUITE, ARCH, MIRROR (may be empty), SIZE (bytes), PACKAGES.
set -eu

root=$OUT/root
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

fail() {
    echo "@error $*"
    exit 1
}

missing=
command -v mmdebstrap >/dev/null || missing="$missing mmdebstrap"
command -v apt-get >/dev/null || missing="$missing apt"
command -v mkfs.ext4 >/dev/null || missing="$missing e2fsprogs"
[ -e "$keyring" ] || missing="$missing debian-archive-keyring"
[ -z "$missing" ] || fail "this host lacks what builds images: apt-get install$missing"

# ---- where packages come from: the mirrors that this host uses, as they may be the only ones in reach ----

main=$MIRROR
security=
if [ -z "$MIRROR" ]; then
    for uri in $(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sort -u); do
        case ${uri%/} in
        */debian-security) security=${security:-${uri%/}} ;;
        */debian) main=${main:-${uri%/}} ;;
        esac
    done
    if [ -z "$main" ]; then
        main=http://deb.debian.org/debian
        security=http://deb.debian.org/debian-security
    fi
fi
{
    echo "deb [signed-by=$keyring] $main $SUITE main"
    echo "deb [signed-by=$keyring] $main $SUITE-updates main"
    [ -z "$security" ] || echo "deb [signed-by=$keyring] $security $SUITE-security main"
} >"$OUT/sources.list"

# ---- packages ----

# tiny-initramfs: the kernel's package wants a maker of initial RAM disks, and this is the smallest; ours is made
# outside. usr-is-merged keeps usrmerge away, which needs all of Perl.
include=systemd-sysv,systemd-resolved,udev,dbus,kmod,login,passwd,iproute2,iputils-ping,netbase,ca-certificates,e2fsprogs
include=$include,linux-image-cloud-$ARCH,tiny-initramfs,less,procps
for package in $PACKAGES; do
    include=$include,$package
done

echo "@phase packages from $main"
mkdir -p "$CACHE"
# Files come into the cache whole: by a link or a rename. Nothing is synced on the way, for until it is finished
# the result is worth nothing.
mmdebstrap --mode=root --variant=apt --format=directory --architectures="$ARCH" --verbose \
    --include="$include" \
    --aptopt='Acquire::Retries "3"' \
    --aptopt='Acquire::Languages "none"' \
    --aptopt='APT::Update::Error-Mode "any"' \
    --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives" "$1/etc/dpkg/dpkg.cfg.d"
        echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/99unsafe"
        for deb in "$CACHE"/*.deb; do
            [ ! -e "$deb" ] || ln "$deb" "$1/var/cache/apt/archives/" 2>/dev/null || cp "$deb" "$1/var/cache/apt/archives/"
        done' \
    --skip=essential/unlink \
    --customize-hook='for deb in "$1"/var/cache/apt/archives/*.deb; do
            name=${deb##*/}
            if [ ! -e "$CACHE/$name" ]; then
                ln "$deb" "$CACHE/" 2>/dev/null || { cp "$deb" "$CACHE/.$$" && mv "$CACHE/.$$" "$CACHE/$name"; } || :
            fi
        done
        rm "$1/etc/dpkg/dpkg.cfg.d/99unsafe"' \
    "$SUITE" "$root" - <"$OUT/sources.list"

# ---- what makes it a guest ----

echo "@phase configuration"

cd "$root"
echo debian >etc/hostname
echo LANG=C.UTF-8 >etc/default/locale
printf '127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n' >etc/hosts
ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
# The signed-by of the building host would be this one's only by luck.
sed 's/ \[signed-by=[^]]*\]//' "$OUT/sources.list" >etc/apt/sources.list
# The check at each boot (the last number) would have it wait for udev; the initial RAM disk's init has the file
# system repaired where it says that it needs it, and is consistent through its journal otherwise.
echo 'LABEL=root / ext4 errors=remount-ro,x-systemd.growfs 0 0' >etc/fstab

# Each guest gets an id, a random seed and keys of its own.
: >etc/machine-id
rm -f var/lib/dbus/machine-id var/lib/systemd/random-seed
if ls etc/ssh/ssh_host_* >/dev/null 2>&1; then
    rm -f etc/ssh/ssh_host_*
    mkdir -p etc/systemd/system/ssh.service.d
    # An empty ExecStartPre= drops the package's own check, which fails as long as there are no keys.
    printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n' \
        >etc/systemd/system/ssh.service.d/host-keys.conf
fi

# The console logs root in. The password is locked, so that nothing else does. The virtio console knows the
# terminal's size and is the faster one; the serial line is for machines without: both would meet on one terminal.
# They are started as files, not as devices that udev has seen, which takes its time on a slow machine.
chroot . usermod -p '*' root
cat >etc/systemd/system/console-login@.service <<'END'
[Unit]
Description=Console login on %I
After=systemd-user-sessions.service
ConditionPathExists=/dev/%I
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - $TERM
Restart=always
RestartSec=0
UtmpIdentifier=%I
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/%I
TTYReset=yes
TTYVHangup=yes
IgnoreSIGPIPE=no
SendSIGHUP=yes

[Install]
WantedBy=getty.target
END
mkdir -p etc/systemd/system/console-login@ttyS0.service.d
printf '[Unit]\nConditionPathExists=!/dev/hvc0\n' >etc/systemd/system/console-login@ttyS0.service.d/one-console.conf
chroot . systemctl --quiet enable console-login@hvc0.service console-login@ttyS0.service
chroot . systemctl --quiet mask serial-getty@hvc0.service serial-getty@ttyS0.service 2>/dev/null

# In a container it is one service, which systemd starts on the console that it finds there.
mkdir -p etc/systemd/system/console-getty.service.d
printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud - 115200,38400,9600 $TERM\n' \
    >etc/systemd/system/console-getty.service.d/autologin.conf

# Whatever Ethernet there is asks DHCP. Nothing listens to the network.
cat >etc/systemd/network/80-ethernet.network <<'END'
[Match]
Type=ether
Kind=!*

[Network]
DHCP=yes

[DHCPv4]
ClientIdentifier=mac
END
mkdir -p etc/systemd/resolved.conf.d etc/systemd/system/systemd-networkd-wait-online.service.d
printf '[Resolve]\nLLMNR=no\nMulticastDNS=no\n' >etc/systemd/resolved.conf.d/quiet.conf
# A guest without a network does not wait for one.
printf '[Unit]\nConditionPathExistsGlob=/sys/class/net/e*\n' \
    >etc/systemd/system/systemd-networkd-wait-online.service.d/with-ethernet.conf

chroot . systemctl --quiet enable systemd-networkd.service systemd-resolved.service fstrim.timer
chroot . systemctl --quiet set-default multi-user.target
# What a virtual machine, or one of many, can do without: screens, LVM's scrubbing, a network from the kernel's
# command line, each guest's own daily update; and modules that load by themselves when they are used.
chroot . systemctl --quiet mask getty@tty1.service e2scrub_reap.service e2scrub_all.timer apt-daily.timer \
    apt-daily-upgrade.timer systemd-network-generator.service modprobe@configfs.service modprobe@dm_mod.service \
    modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service \
    sys-kernel-config.mount sys-fs-fuse-connections.mount 2>/dev/null
# Modules for what the processor can do (ciphers, power meters) are slow to start; ciphers come when they are asked for.
echo 'SUBSYSTEM=="cpu", ENV{MODALIAS}=""' >etc/udev/rules.d/79-no-cpu-modules.rules

rm -rf var/cache/apt/*.bin var/cache/apt/archives/*.deb var/lib/apt/lists/* var/log/apt var/log/*.log var/log/lastlog \
    var/cache/ldconfig/aux-cache tmp/* dev/* run/*
# systemd does not look for updates at the first boot: there were none since.
chroot . /bin/sh -c 'for f in /etc/.updated /var/.updated; do
        printf "# This file was created when the image was built.\nTIMESTAMP_NSEC=%s\n" "$(date -r /usr +%s%N)" >$f
        touch -r /usr $f
    done'

# ---- kernel and what it needs to find its root ----

set -- boot/vmlinuz-*
[ $# = 1 ] && [ -e "$1" ] || fail "expected one kernel in the packages, found: $*"
version=${1#boot/vmlinuz-}
cp "$1" "$OUT/kernel"
mkdir "$OUT/modules"
for module in virtio_pci virtio_blk virtio_console ext4; do
    chroot . modprobe --show-depends --set-version "$version" "$module" >"$OUT/depends" ||
        fail "kernel $version has no module $module"
    while read -r action file _; do
        [ "$action" = insmod ] || continue # builtin
        name=${file##*/}
        [ ! -e "$OUT/modules/$name" ] || continue
        cp ".$file" "$OUT/modules/$name"
        echo "$name" >>"$OUT/modules/order"
    done <"$OUT/depends"
done
cd "$OUT"

# ---- the file system ----

# A container has the host's kernel, devices and mounts: what is for those of a machine is left out.
echo "@phase layer"
tar --create --file root.tar --directory "$root" --format=posix --pax-option=delete=atime,delete=ctime --sort=name \
    --numeric-owner --xattrs --xattrs-include=security.capability --exclude='./boot/*' --exclude='./dev/*' \
    --exclude='./usr/lib/modules/*' --exclude=./etc/fstab .

echo "@phase disk"
# Everything is initialized now, where zeroes are holes: later it would be written by the guest, into its own disk.
truncate -s "$SIZE" disk.raw
mkfs.ext4 -q -F -L root -m 1 -E lazy_itable_init=0,lazy_journal_init=0 -d "$root" disk.raw
rm -rf "$root"
