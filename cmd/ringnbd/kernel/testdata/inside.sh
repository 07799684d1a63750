# inside.sh start|bench|attach|stop ...: ringnbd on this kernel, serving a file of an ext4 on /dev/vda and that of /dev/vdb as it is.
. /t/lib.sh
case $1 in
start)
	/sbin/mkfs.ext4 -q -F /dev/vda
	mkdir -p /data
	mount /dev/vda /data
	truncate -s 160M /data/disk.img
	/bin/ringnbd serve --verbose --memory 192M --listen 127.0.0.1:10809 --listen unix:/run/nbd.sock \
		--export file=/data/disk.img --export disk=/dev/vdb > /run/ready 2> /run/log &
	echo $! > /run/pid
	for i in $(seq 100); do
		[ -s /run/ready ] && break
		[ -d "/proc/$(cat /run/pid)" ] || break
		sleep 0.1
	done
	cat /run/log
	if ! [ -s /run/ready ]; then
		fail "ringnbd is not ready: $(tail -n 3 /run/log | tr '\n' ' ')"
	fi
	note "$(uname -r)"
	while read -r line; do note "$line"; done < /run/log
	;;
bench)
	/bin/ringnbd bench "nbd+unix:///$2?socket=/run/nbd.sock" --verify --pattern randrw --bs 4k --connections 2 --depth 8 --duration 3s --warmup 0s --size 32M ||
		fail "ringnbd bench found a fault"
	;;
attach)
	[ "$3" = unix ] && address="-u /run/nbd.sock" || address="127.0.0.1 10809"
	/sbin/nbd-client -N "$2" -C "$4" -b "$5" $address /dev/nbd0 || fail "nbd-client failed"
	/usr/bin/fio --eta=never --name=verify --filename=/dev/nbd0 --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange="$5"-64k --blockalign="$5" --size=8m \
		--fsync=64 --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 --output=/tmp/fio.txt || { cat /tmp/fio.txt; fail "fio found a block that is not what it wrote"; }
	/sbin/mkfs.ext4 -q -F /dev/nbd0
	mount /dev/nbd0 /mnt
	fill /mnt
	verify /mnt
	/sbin/fstrim -v /mnt
	umount /mnt
	/sbin/e2fsck -f -n /dev/nbd0 || fail "e2fsck found faults"
	/sbin/blkdiscard -f /dev/nbd0
	cmp -n 16777216 /dev/zero /dev/nbd0 || fail "the device does not read as zeroes after blkdiscard"
	detach
	;;
stop)
	kill "$(cat /run/pid)"
	for i in $(seq 150); do
		[ -d "/proc/$(cat /run/pid)" ] || break
		sleep 0.1
	done
	cat /run/log
	[ ! -d "/proc/$(cat /run/pid)" ] || fail "ringnbd does not end"
	if grep -E 'level=ERROR|panic|fatal' /run/log; then fail "ringnbd's log has errors"; fi
	umount /data
	/sbin/e2fsck -f -n /dev/vda || fail "e2fsck found faults in the file system below"
	;;
esac
