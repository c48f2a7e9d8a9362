#!/bin/sh
# After the files are gone: systemd forgets the unit. The queue, the accounts and
# the configuration stay, for there may be mail.
set -e

case "$1" in # dpkg: whether it was enabled is remembered until a purge
remove) deb-systemd-helper mask opensmtpd.service >/dev/null ;;
purge)
	deb-systemd-helper purge opensmtpd.service >/dev/null
	deb-systemd-helper unmask opensmtpd.service >/dev/null
	;;
esac
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
