# write.sh FIRST: writes record after record and says each one that is on the disk. It never ends by itself. Even records are files of their own, odd ones go
# into a slot of one file, over the record that was there before. Record N is what "seq N" prints from N on, cut off; the test knows it too.
. /t/lib.sh
i=$1
while :; do
	seq "$i" $((i + 3000)) | head -c $((4096 + i * 37 % 8192)) > /tmp/record
	if [ $((i % 2)) = 0 ]; then
		dd if=/tmp/record of="/data/$i" bs=64k conv=fsync 2> /dev/null || fail "record $i: dd ended with $?"
		[ $i -lt 120 ] || rm -f "/data/$((i - 120))"
	else
		head -c 4096 /tmp/record | dd of=/data/slots bs=4096 seek=$((i / 2 % 32)) conv=notrunc,fsync 2> /dev/null || fail "record $i: dd ended with $?"
	fi
	note "on disk $i"
	i=$((i + 1))
done
