#!/bin/bash
# The only init of a Debian guest: packages are installed and removed, and a database is written to, both all the time and beside
# each other. Whatever is not as it was left says BAD.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
exec < /dev/console > /dev/console 2>&1

bad() {
  echo "BAD: $*"
}

packages() {
  for ((n = 0; ; n++)); do
    apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 /packages/*.deb > /var/log/apt.out 2>&1 ||
      bad "install: $(tail -n 3 /var/log/apt.out)"
    [ -z "$(dpkg --verify)" ] || bad "a file of a package has changed"
    [ "$(printf '1,$p\nq\n' | ed -s /etc/hostname)" = guest ] || bad "what was installed does not run"
    apt-get purge -y -qq -o Dpkg::Use-Pty=0 ed tree > /var/log/apt.out 2>&1 || bad "purge: $(tail -n 3 /var/log/apt.out)"
    echo "PACKAGES $n"
  done
}

database() {
  sqlite3 /var/lib/numbers.db 'pragma journal_mode=wal; create table numbers (round integer, value text)' > /dev/null
  for ((n = 0; ; n++)); do
    sqlite3 /var/lib/numbers.db "begin; with recursive one(i) as (select 1 union all select i + 1 from one where i < 200)
      insert into numbers select $n, hex(randomblob(100)) from one; commit" || bad "database: a transaction"
    [ "$(sqlite3 /var/lib/numbers.db 'select count(*), count(distinct round) from numbers')" = "$((n * 200 + 200))|$((n + 1))" ] ||
      bad "database: rows are missing"
    [ "$(sqlite3 /var/lib/numbers.db 'pragma integrity_check')" = ok ] || bad "database: it is damaged"
    echo "DATABASE $n"
    sleep 0.3
  done
}

find /usr/bin -type f -exec sha256sum {} + > /root/sums
packages &
database &
for ((n = 0; ; n++)); do
  sha256sum --quiet -c /root/sums || bad "a file is not what it was"
  echo 1 > /proc/sys/vm/drop_caches
  echo "SUMS $n"
  sleep 3
done
