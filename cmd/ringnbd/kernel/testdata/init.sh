#!/bin/sh
# The first process of every guest, and once more of one that has its root on a disk. It loads the modules and then does what the test says: each line that
# comes over ttyS1 names a script of /t and its arguments. Invariant: each is answered with one line, PASS or FAIL, after what it said by itself (NOTE);
# all else goes to the console.
export PATH=/sbin:/usr/bin:/bin
if [ -e /modules/order ]; then
	busybox mount -t proc proc /proc
	busybox mount -t sysfs sys /sys
	busybox mount -t devtmpfs dev /dev
	while read -r module; do
		insmod "/modules/$module.ko" || echo "insmod $module: $?"
	done < /modules/order
	if grep -q root=/dev/vda /proc/cmdline; then
		. /t/toroot.sh
	fi
fi
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
exec 3<> /dev/ttyS1
stty -F /dev/ttyS1 raw -echo

# What the file systems are filled with.
dd if=/dev/urandom of=/tmp/seed bs=1M count=2 2> /dev/null

tell() { printf '\nringnbd-test: %s\n' "$*" >&3; }
dmesg -n 4
dmesg -c > /dev/null
tell READY
while read -r script arguments <&3; do
	[ -n "$script" ] || continue
	rm -f /run/reason /run/said /run/expected
	echo "==== $script $arguments"
	sh -e "/t/$script.sh" $arguments
	status=$?
	# What a file system or the device complained of fails a check that did not say that it would.
	dmesg -c > /run/kernel
	if [ ! -e /run/expected ] && grep -qE 'I/O error|EXT4-fs (error|warning)|XFS.*([Cc]orrupt|error)|BUG|Oops|Call Trace|timed out' /run/kernel; then
		cat /run/kernel
		[ $status = 0 ] && status=1 && echo "the kernel complained" > /run/reason
	fi
	if [ $status = 0 ]; then
		tell PASS "$(cat /run/said 2> /dev/null)"
	else
		tell FAIL "$(cat /run/reason 2> /dev/null || echo "exit status $status")"
	fi
done
