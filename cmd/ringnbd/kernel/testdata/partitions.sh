# partitions.sh PORT BLOCKSIZE EXPORT: the partitions that the kernel finds on a device: "part NUMBER START SIZE SUM" for each, start and size in sectors of 512 bytes.
. /t/lib.sh
attach 10.0.2.2 "$1" 1 "$2" "$3"
head -c 512 /dev/nbd0 > /dev/null # the kernel looks for partitions when the device is opened first
for at in /sys/block/nbd0/nbd0p*; do
	[ -e "$at/partition" ] || continue
	note "part $(cat "$at/partition") $(cat "$at/start") $(cat "$at/size") $(md5sum "/dev/${at##*/}" | cut -d ' ' -f 1)"
done
detach
