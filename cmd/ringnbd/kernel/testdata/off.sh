# off.sh: the end of a guest with its root on a disk.
cd /
sync
mount -o remount,ro /
poweroff -f
