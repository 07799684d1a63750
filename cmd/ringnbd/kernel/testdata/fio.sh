# fio.sh PORT CONNECTIONS BLOCKSIZE EXPORT DIRECT: writes with a checksum in every block, reads and checks them, past the page cache (1) or through it (0).
. /t/lib.sh
attach 10.0.2.2 "$1" "$2" "$3" "$4"
/usr/bin/fio --eta=never --name=verify --filename=/dev/nbd0 --direct="$5" --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange="$3"-64k --blockalign="$3" --size=16m \
	--fsync=64 --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 --output=/tmp/fio.txt || { cat /tmp/fio.txt; fail "fio found a block that is not what it wrote"; }
grep -q 'READ: ' /tmp/fio.txt || fail "fio has read nothing back"
detach
said "$(sed -n 's/^ *\(WRITE\|READ\): bw=\([^ ]*\).*/\1 \2/p' /tmp/fio.txt | tr '\n' ' ')"
