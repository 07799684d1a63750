# trim.sh PORT CONNECTIONS EXPORT: the test looks at the image between the notes: before and after a deleted file is trimmed away.
. /t/lib.sh
attach 10.0.2.2 "$1" "$2" 4096 "$3"
/sbin/mkfs.ext4 -q -F -E lazy_itable_init=0 /dev/nbd0
mount /dev/nbd0 /mnt
for i in $(seq 16); do cat /tmp/seed; done > /mnt/doomed
sync
note filled
read -r go <&3
rm /mnt/doomed
sync
/sbin/fstrim -v /mnt
note trimmed
read -r go <&3
umount /mnt
detach
