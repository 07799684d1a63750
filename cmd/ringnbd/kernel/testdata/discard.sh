# discard.sh PORT CONNECTIONS BLOCKSIZE EXPORT discard|zeroes: the whole device is filled, discarded or zeroed, and reads as zeroes.
. /t/lib.sh
attach 10.0.2.2 "$1" "$2" "$3" "$4"
size=$(blockdev --getsize64 /dev/nbd0)
i=0
while [ $i -lt $((size / 2097152)) ]; do
	dd if=/tmp/seed of=/dev/nbd0 bs=2M seek=$i conv=notrunc 2> /dev/null
	i=$((i + 1))
done
drop
cmp -n 2097152 /tmp/seed /dev/nbd0 || fail "what was written first is not there"
case $5 in
discard) /sbin/blkdiscard -f /dev/nbd0 || fail "blkdiscard failed" ;;
zeroes) /sbin/blkdiscard -f -z /dev/nbd0 || fail "blkdiscard -z failed" ;;
esac
drop
cmp -n "$size" /dev/zero /dev/nbd0 || fail "the device does not read as zeroes"
case $(queue write_zeroes_max_bytes) in
0) how="this nbd.ko has no WRITE_ZEROES: zeroes go as writes" ;;
*) how="WRITE_ZEROES up to $(queue write_zeroes_max_bytes) bytes" ;;
esac
said "$((size >> 20)) MiB; discard up to $(queue discard_max_bytes) bytes, granularity $(queue discard_granularity); $how"
detach
