# filesystem.sh KIND PORT CONNECTIONS BLOCKSIZE EXPORT: the life of a file system on a device: made, mounted, filled, verified, trimmed, checked, mounted and
# verified again.
. /t/lib.sh
kind=$1
attach 10.0.2.2 "$2" "$3" "$4" "$5"
case $kind in
ext4) /sbin/mkfs.ext4 -q -F /dev/nbd0 ;;
xfs) /sbin/mkfs.xfs -q -f /dev/nbd0 ;;
esac
[ "$(/sbin/blkid -p -s TYPE -o value /dev/nbd0)" = "$kind" ] || fail "blkid does not see $kind"
mount -t "$kind" /dev/nbd0 /mnt
fill /mnt
cat /tmp/seed /tmp/seed > /mnt/doomed
verify /mnt
rm /mnt/doomed
sync
trimmed=$(/sbin/fstrim -v /mnt)
echo "$trimmed"
verify /mnt
umount /mnt
blockdev --flushbufs /dev/nbd0
case $kind in
ext4) /sbin/e2fsck -f -n /dev/nbd0 || fail "e2fsck found faults" ;;
xfs) /sbin/xfs_repair -n /dev/nbd0 || fail "xfs_repair found faults" ;;
esac
mount -t "$kind" /dev/nbd0 /mnt
verify /mnt
umount /mnt
detach
said "${trimmed#/mnt: }"
