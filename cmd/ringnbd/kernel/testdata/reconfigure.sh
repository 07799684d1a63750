# reconfigure.sh PORT CONNECTIONS EXPORT: a file system that sees nothing of its server's restarts. The kernel keeps the requests of a dead connection for a
# while and sends them again over the one that replaces it (NBD_ATTR_DEAD_CONN_TIMEOUT, NBD_CMD_RECONFIGURE). Debian 12's nbd-client cannot ask for that, so
# a small program of the test does.
. /t/lib.sh
RINGNBD_GUEST=attach /bin/guest 10.0.2.2:"$1" "$3" "$2" &
attached=$!
for i in $(seq 100); do
	[ -e /sys/block/nbd0/pid ] && break
	sleep 0.1
done
[ -e /sys/block/nbd0/pid ] || fail "the device was not attached"
/sbin/mkfs.ext4 -q -F /dev/nbd0
mount /dev/nbd0 /mnt
for i in $(seq 60); do
	{ echo "$i"; head -c 500000 /tmp/seed; } > "/mnt/file$i" || fail "file $i could not be written"
	sync "/mnt/file$i" || fail "file $i could not be synchronised"
	[ $((i % 20)) = 10 ] && note "at file $i"
done
drop
for i in $(seq 60); do
	{ echo "$i"; head -c 500000 /tmp/seed; } | cmp - "/mnt/file$i" || fail "file $i has changed"
done
umount /mnt
/sbin/e2fsck -f -n /dev/nbd0 || fail "e2fsck found faults"
kill $attached
wait $attached || fail "attach ended with $?"
# Connections that died are not worth a complaint; failed requests are.
dmesg > /tmp/kernel
if grep -E 'I/O error|EXT4-fs (error|warning)' /tmp/kernel; then fail "the restart was seen"; fi
: > /run/expected
said "60 files, $(cat /tmp/reconnected) connections made again"
