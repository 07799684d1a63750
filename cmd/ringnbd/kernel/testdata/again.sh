# again.sh PORT EXPORT BLOCKS: nbd-client is started again whenever it ends, as a service is, while the server is restarted. What is under way then fails; so each
# write is tried until it succeeds, as a database does, and then all of them are there. (nbd-client 3.24 -persist is no help: on Linux 6.1 it
# did not attach again. By its source it does so only if NBD_DO_IT fails.)
. /t/lib.sh
: > /run/expected
rm -f /tmp/stop
while [ ! -e /tmp/stop ]; do
	/sbin/nbd-client -L -nofork -b 4096 -N "$2" 10.0.2.2 "$1" /dev/nbd0 || true
	echo again >> /tmp/again
	sleep 0.2
done &
for i in $(seq 100); do
	[ -e /sys/block/nbd0/pid ] && [ "$(cat /sys/block/nbd0/size)" != 0 ] && break
	sleep 0.1
done
failed=0
i=0
while [ $i -lt "$3" ]; do
	tries=0
	until dd if=/tmp/seed of=/dev/nbd0 bs=65536 skip=$((i % 32)) seek=$i count=1 conv=notrunc,fsync 2> /dev/null; do
		failed=$((failed + 1)) tries=$((tries + 1))
		[ $tries -lt 300 ] || fail "block $i could not be written for 30 seconds"
		sleep 0.1
	done
	[ $((i % 40)) = 20 ] && note "at block $i"
	sleep 0.05 # so that the server's last second does not suffice for the rest
	i=$((i + 1))
done
drop
i=0
while [ $i -lt "$3" ]; do
	tries=0
	until dd if=/dev/nbd0 of=/tmp/piece bs=65536 skip=$i count=1 2> /dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || fail "block $i could not be read for 30 seconds"
		sleep 0.1
	done
	cat /tmp/piece
	i=$((i + 1))
done > /tmp/got
for i in $(seq 0 $(($3 - 1))); do
	dd if=/tmp/seed bs=65536 skip=$((i % 32)) count=1 2> /dev/null
done | cmp - /tmp/got || fail "a write that succeeded is not there"
rm /tmp/got /tmp/piece
touch /tmp/stop
detach -L
wait
said "$3 writes, $failed tried again, nbd-client started $(wc -l < /tmp/again) times"
