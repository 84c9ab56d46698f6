#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What tests/oci/test_unified.py has a guest do whose host is Debian: cgroup v2 alone, and systemd. Each part prints a line
# "RESULT name: value", which the test holds against what it expects.
P=/mnt
export LD_LIBRARY_PATH=$P/lib PATH=$PATH:/usr/sbin
S=/tmp/state
oci() { $P/bin/tabique-oci --root $S "$@"; }
say() { echo "RESULT $1: $2"; }
group() { echo /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$1/cgroup); }
pid() { oci state $1 | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }
files() { for f in "${@:2}"; do printf '%s=%s ' $f "$(cat $1/$f)"; done; }

say layout "$(findmnt -no FSTYPE /sys/fs/cgroup) $(grep -c cgroup /proc/mounts)"
for t in cgroup cgroup_v2; do
    $P/bin/test_container_$t >/tmp/out 2>&1
    say unit-$t "$? $(grep -c '^\[       OK' /tmp/out)"
    grep -E 'ERROR|LINE|FAILED' /tmp/out
done

cp -r $P/bundle /tmp/bundle
cd /tmp/bundle
# ---- groups made by us ----
oci create --bundle . one >/dev/null </dev/null 2>&1 && oci start one
G=$(group $(pid one))
say limits "$(files $G memory.max memory.swap.max memory.low pids.max cpu.max cpu.weight cpuset.cpus)"
say inside "$(oci exec one sh -c 'cat /proc/self/cgroup; echo x >/dev/null && echo written; mknod /tmp/x c 1 11; cat /tmp/x' 2>&1 | tr '\n' ' ')"
oci pause one
say paused "$(oci state one | grep -o '"status": *"[a-z]*"') $(cat $G/cgroup.freeze) $(grep -o 'frozen 1' $G/cgroup.events)"
oci resume one
oci update --memory 100m --memory-swap 300m --cpu-quota 70000 --pids-limit 9 one
say updated "$(files $G memory.max memory.swap.max pids.max cpu.max)"
say stats "$(oci events --stats one | grep -o '"limit":104857600' | head -1)"
say ps "$(oci ps --format json one | tr -cd '[,]')"
oci delete --force one
say gone "$(ls -d $G 2>&1 | grep -c 'No such file')"

# ---- an OOM kill ----
sed 's/"sleep", "1000"/"tail", "\/dev\/zero"/; s/33554432/16777216/' config.json >/tmp/c && cp config.json /tmp/keep && cp /tmp/c config.json
oci create --bundle . greedy >/dev/null </dev/null 2>&1
oci events --interval 1h greedy >/tmp/events &
E=$!
sleep 1
oci start greedy
for i in $(seq 100); do oci state greedy | grep -q stopped && break; sleep 0.1; done
wait $E
say oom "$(tr -d '\n' </tmp/events)"
oci delete --force greedy
cp /tmp/keep config.json

# ---- half a mebibyte ----
sed 's/"sleep", "1000"/"true"/; s/33554432/524288/' config.json >/tmp/c && cp /tmp/c config.json
oci run --bundle . small </dev/null
say small $?
cp /tmp/keep config.json

# ---- groups made by systemd ----
sed 's/"linux": {/"linux": {"cgroupsPath": "system.slice:tests:two",/' config.json >/tmp/c && cp /tmp/c config.json
oci --systemd-cgroup create --bundle . two >/dev/null </dev/null && oci start two
G=$(group $(pid two))
say scope "$G $(systemctl is-active tests-two.scope) $(systemctl show -p MemoryMax -p TasksMax -p Delegate tests-two.scope | sort | tr '\n' ' ')"
say scope-limits "$(files $G memory.max pids.max cpu.weight)"
oci --systemd-cgroup update --memory 64m two
systemctl daemon-reload
say scope-updated "$(files $G memory.max pids.max cpu.weight)"
oci pause two && say scope-paused "$(cat $G/cgroup.freeze)"
oci delete --force two
sleep 1
say scope-gone "$(ls -d $G 2>&1 | grep -c 'No such file') $(systemctl is-active tests-two.scope)"

# ---- checkpoint and restore: the program goes on where it was, in groups like those it had ----
export PATH=$P/bin:$PATH
wait_to_count() { # beyond $1
    for i in $(seq 300); do [ "$(tail -n 1 $COUNTS 2>/dev/null | cut -d' ' -f1)0" -gt "${1}0" ] 2>/dev/null && return; sleep 0.1; done
    echo "it stands still at $1"
}
counted() { # whether each number is there once
    cp $COUNTS /tmp/counted
    cut -d' ' -f1 /tmp/counted | cmp -s - <(seq "$(wc -l </tmp/counted)") && echo "counts on, none missing" || echo "wrong: $(tail -n 3 /tmp/counted | tr '\n' ' ')"
}
begin() {
    oci "$@" create --bundle . counter </dev/null >/dev/null 2>/tmp/errors && oci start counter || cat /tmp/errors
    G=$(group $(pid counter))
}
checkpoint() {
    wait_to_count 3
    oci "$@" checkpoint $PARENT --image-path /tmp/image counter || tail -n 20 /tmp/image/dump.log
}
restore() {
    BEFORE=$(tail -n 1 $COUNTS | cut -d' ' -f1)
    oci "$@" restore --detach --bundle . --image-path /tmp/image counter </dev/null >/dev/null 2>/tmp/errors || cat /tmp/errors
    wait_to_count $((BEFORE + 3))
    G=$(group $(pid counter))
}
COUNTS=/tmp/bundle/rootfs/tmp/counts
cp /tmp/keep config.json
sed 's/"sleep", "1000"/"counter"/' config.json >/tmp/c && cp /tmp/c config.json
begin
wait_to_count 3
oci checkpoint --pre-dump --image-path /tmp/pre counter || tail -n 20 /tmp/pre/dump.log
PARENT="--parent-path ../pre"
checkpoint
PARENT=
say pre-dump "$(oci state counter 2>/dev/null | grep -c running) $(($(cat /tmp/pre/pages-*.img | wc -c) > 4 << 20)) $(($(cat /tmp/image/pages-*.img | wc -c) < 2 << 20))"
say checkpoint "$(oci state counter 2>/dev/null | grep -o 'stopped' || echo stopped) $(ls -d $G >/dev/null 2>&1 || echo gone)"
oci delete --force counter 2>/dev/null
restore
say restored "$(oci state counter | grep -o running) $(counted) $(files $G memory.max pids.max cpu.max)"
oci delete --force counter
say checkpoint-left "$(pgrep -c counter)"
rm -rf /tmp/image $COUNTS
sed 's/"linux": {/"linux": {"cgroupsPath": "system.slice:tests:counter",/' config.json >/tmp/c && cp /tmp/c config.json
begin --systemd-cgroup
checkpoint --systemd-cgroup
say checkpoint-scope "$(systemctl is-active tests-counter.scope)"
oci delete --force counter 2>/dev/null
restore --systemd-cgroup
say restored-scope "$G $(systemctl is-active tests-counter.scope) $(counted) $(files $G memory.max pids.max)"
oci delete --force counter
cp /tmp/keep config.json

# ---- a person to whom a group was handed over, without systemd's help ----
cat >/tmp/person.sh <<'END'
export LD_LIBRARY_PATH=/mnt/lib HOME=/tmp
oci() { /mnt/bin/tabique-oci --root /tmp/person/state "$@"; }
say() { echo "RESULT $1: $2"; }
cd /tmp/person
oci spec --rootless && sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sleep", "1000"/' config.json
oci create p </dev/null >/dev/null 2>/tmp/person/errors && oci start p || cat /tmp/person/errors
P=$(oci state p | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
G=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$P/cgroup)
say person "$(basename $G) $(stat -c %U $G) $(oci ps --format json p | tr -cd '[,]')"
oci pause p && say person-paused "$(oci state p | grep -o '"status": *"[a-z]*"') $(cat $G/cgroup.freeze)"
oci resume p && oci exec p true && say person-resumed $?
say person-refused "$(oci update --memory 64m p 2>&1 | grep -o 'memory.limit: this container.s group has no memory.max')"
oci delete --force p
say person-gone "$(ls -d $G 2>&1 | grep -c 'No such file')"
END
mkdir -p /tmp/person && cp -r $P/bundle/rootfs /tmp/person/ && chown -R daemon: /tmp/person
systemd-run --quiet --wait --pipe --uid=daemon -p Delegate=yes bash /tmp/person.sh </dev/null
say left "$(ls $S 2>/dev/null | wc -l) $(pgrep -c tabique-oci) $(find /sys/fs/cgroup -name '*tabique*' | wc -l)"
echo "RESULT end: end"
