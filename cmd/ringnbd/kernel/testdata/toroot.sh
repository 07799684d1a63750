# Sourced by init: from the initramfs to the root file system on /dev/vda. Invariant: it is only used if, once its journal was replayed, e2fsck finds nothing.
mount -t ext4 /dev/vda /mnt && umount /mnt
if /sbin/e2fsck -f -n /dev/vda; then
	mount -t ext4 -o errors=remount-ro /dev/vda /mnt
	dmesg | grep EXT4-fs
	# By its path: the shell finds its own commands by /proc.
	for folder in proc sys dev; do
		/bin/busybox mount --move /$folder /mnt/$folder
	done
	exec /bin/busybox switch_root /mnt /init
fi
echo "e2fsck found faults on the root disk"
poweroff -f
