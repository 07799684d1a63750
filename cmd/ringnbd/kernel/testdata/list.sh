# list.sh: what is in /data: "file NAME SUM" for each, "slot NUMBER SUM" for each slot.
. /t/lib.sh
cd /data
for name in [0-9]*; do
	[ -e "$name" ] || continue
	note "file $name $(md5sum "$name" | cut -d ' ' -f 1)"
done
if [ -e slots ]; then
	i=0
	while [ $i -lt $(($(stat -c %s slots) / 4096)) ]; do
		note "slot $i $(dd if=slots bs=4096 skip=$i count=1 2> /dev/null | md5sum | cut -d ' ' -f 1)"
		i=$((i + 1))
	done
fi
