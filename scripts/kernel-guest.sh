#!/bin/busybox sh
# SPDX-License-Identifier: MIT
#
# /init of the guest of test-kernels.sh, twice: in the initial memory disk it loads modules and goes
# over to the disk; there it runs the plan.
#
# The second serial line carries the results: "@start NAME", what the test wrote (each line behind a
# blank), "@end NAME STATUS SECONDS"; "@probe" and what cow probe says of this kernel; "@done".
# The first is the kernel's console. cow.skip=N on the kernel's command line goes on after the first N
# tests, where an earlier guest died. Everything is thrown away afterwards, so tests may tune it.

/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev 2>/dev/null

if [ ! -d /plan ]; then
	for module in /modules/*.ko; do
		/bin/busybox insmod "$module" || echo "guest: $module does not load"
	done
	/bin/busybox mkdir -p /disk
	tries=0
	until /bin/busybox mount -t ext4 /dev/vda /disk 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 50 ] || { echo "guest: no disk"; /bin/busybox reboot -f; }
		/bin/busybox usleep 200000
	done
	exec /bin/busybox switch_root /disk /init
fi

/bin/busybox --install -s /bin
dash=$(PATH=/usr/bin:/bin command -v dash)
[ "$dash" = /bin/sh ] || /bin/busybox ln -sf "$dash" /bin/sh
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root TERM=dumb
export COW_TEST_ALLOW_TUNING=1 COW_TEST_SCALE=10
mkdir -p /dev/shm /dev/pts /tmp /run /root
chmod 1777 /tmp
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tracefs tracing /sys/kernel/tracing
ifconfig lo 127.0.0.1 up
ulimit -c 0
ulimit -Hn 20000
exec 3>/dev/ttyS1
stty raw <&3 2>/dev/null || stty -F /dev/ttyS1 raw

number=0
skip=$(sed -n 's/.*cow\.skip=\([0-9]*\).*/\1/p' /proc/cmdline)
[ "${skip:-0}" -gt 0 ] || . /plan/probe | sed 's/^/@probe /' >&3
while read -r name seconds; do
	number=$((number + 1))
	[ $number -gt "${skip:-0}" ] || continue
	echo "@start $name" >&3
	begin=$(date +%s)
	timeout -k 10 "$seconds" "$dash" "/plan/$name" >/output 2>&1 </dev/null 3>&-
	status=$?
	sed 's/^/ /' /output >&3
	[ $status -lt 128 ] || dmesg | tail -n 5 | sed 's/^/ # the kernel: /' >&3
	echo "@end $name $status $(($(date +%s) - begin))" >&3
done </plan/list
echo "@done" >&3
stty -F /dev/ttyS1 sane 2>/dev/null
sync
reboot -f
