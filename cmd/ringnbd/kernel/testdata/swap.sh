# swap.sh PORT CONNECTIONS EXPORT netlink|ioctl: swap on the device, 32 MiB more in use than there is memory, and every page as it was written.
. /t/lib.sh
flags=
[ "$4" = ioctl ] && flags="-L -swap"
# The network needs pages when there are none left; with the 3 MiB that so small a guest keeps back it gets on, but the kernel warns.
echo 16384 > /proc/sys/vm/min_free_kbytes
attach 10.0.2.2 "$1" "$2" 4096 "$3" $flags
/sbin/mkswap /dev/nbd0
swapon /dev/nbd0
out=$(sed -n 's/^pswpout //p' /proc/vmstat)
in=$(sed -n 's/^pswpin //p' /proc/vmstat)
drop
mib=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024 + 32))
RINGNBD_GUEST=hog /bin/guest $mib || fail "memory has changed"
out=$((($(sed -n 's/^pswpout //p' /proc/vmstat) - out) / 256))
in=$((($(sed -n 's/^pswpin //p' /proc/vmstat) - in) / 256))
[ $out -ge 16 ] && [ $in -ge 16 ] || fail "only $out MiB were swapped out and $in MiB in: this tells nothing"
swapoff /dev/nbd0
[ "$4" = ioctl ] && detach -L || detach
said "$mib MiB in use; $out MiB out, $in MiB in"
