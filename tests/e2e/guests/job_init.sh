#!/bin/bash
# The only init of a Debian guest that does one thing, which the command line of its kernel names, and then ends.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /run
exec < /dev/console > /dev/console 2>&1
ip link set lo up
read -ra words < /proc/cmdline
for word in "${words[@]}"; do
  case $word in job=*) IFS=: read -ra job <<< "${word#job=}" ;; esac
done
cd /stasis/tests
# Its own session, as init has none that a terminal could belong to.
setsid -w "${job[@]}" < /dev/null
echo "JOB ENDED: $?"
sync
echo o > /proc/sysrq-trigger
sleep 60
