# What the checks share. Invariant: a device that attach attached is /dev/nbd0 and has the size and block size that was asked for.

# fail ends the check.
fail() { echo "FAIL: $*"; echo "$*" > /run/reason; exit 1; }
# note tells the test something at once; said is for the line that it logs at the end.
note() { printf '\nringnbd-test: NOTE %s\n' "$*" >&3; }
said() { echo "$*" > /run/said; }
# queue FILE is a limit or a property of the device.
queue() { cat "/sys/block/nbd0/queue/$1"; }

# attach ADDRESS PORT CONNECTIONS BLOCKSIZE EXPORT FLAGS...
attach() {
	address=$1 port=$2 connections=$3 blocksize=$4 export=$5
	shift 5
	set -- "$@" -N "$export" -C "$connections" -b "$blocksize" "$address" "$port" /dev/nbd0
	/sbin/nbd-client "$@" || fail "nbd-client $* failed"
	# With ioctl nbd-client is a daemon, which has not always set up the device when its parent ends.
	for i in $(seq 100); do
		size=$(queue logical_block_size)
		[ -e /sys/block/nbd0/pid ] && [ "$(cat /sys/block/nbd0/size)" != 0 ] && [ "$size" = "$blocksize" ] && break
		sleep 0.1
	done
	[ "$size" = "$blocksize" ] || fail "the device has blocks of $size, not $blocksize"
}

# detach ends all connections and waits until the device is free.
detach() {
	/sbin/nbd-client -d /dev/nbd0 || fail "nbd-client -d failed"
	for i in $(seq 50); do
		[ -e /sys/block/nbd0/pid ] || return 0
		sleep 0.1
	done
	fail "the device is still in use 5 seconds after nbd-client -d"
}

# drop makes the next read come from the server.
drop() {
	sync
	echo 3 > /proc/sys/vm/drop_caches
}

# fill FOLDER: about 18 MiB of files whose sums go to /tmp/sums.
fill() {
	for i in $(seq 8); do
		{ echo "$i"; cat /tmp/seed; } > "$1/large$i"
	done
	for i in $(seq 30); do
		head -c $((i * 353)) /tmp/seed > "$1/small$i"
	done
	# In place, and at no block's edge.
	dd if=/tmp/seed of="$1/large1" bs=1000 seek=777 count=300 conv=notrunc 2> /dev/null
	(cd "$1" && md5sum large* small*) > /tmp/sums
}

# verify FOLDER: what fill wrote, from the server.
verify() {
	drop
	(cd "$1" && md5sum -c /tmp/sums > /tmp/verdicts) || { grep -v OK /tmp/verdicts; fail "files in $1 have changed"; }
}
