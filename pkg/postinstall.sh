#!/bin/sh
# After the files are unpacked. $1 is "configure" and $2 the version before from
# dpkg; 1 at first and 2 at an upgrade from rpm; a version from apk.
set -e

# Roles without files are confined to this directory; nobody may write there.
mkdir -p /var/empty
chown root:root /var/empty
chmod 0755 /var/empty

# The set-gid bit lets users reach the offline queue through smtpctl.
chgrp _smtpq /usr/sbin/smtpctl
chmod 2555 /usr/sbin/smtpctl

# A daemon is enabled and started when it is first installed, as Debian does; what
# the administrator has decided since then stays.
debian() {
	deb-systemd-helper unmask opensmtpd.service >/dev/null
	if deb-systemd-helper --quiet was-enabled opensmtpd.service; then
		deb-systemd-helper enable opensmtpd.service >/dev/null
	else
		deb-systemd-helper update-state opensmtpd.service >/dev/null
	fi
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		if [ -z "$1" ]; then
			deb-systemd-invoke start opensmtpd.service >/dev/null || :
		else
			# The programs were replaced underneath a running daemon.
			deb-systemd-invoke try-restart opensmtpd.service >/dev/null || :
		fi
	fi
}

# Others leave it to the system's presets and to the administrator.
others() {
	[ -d /run/systemd/system ] || return 0
	systemctl daemon-reload
	if [ "$1" = 1 ]; then
		systemctl preset opensmtpd.service || :
	else
		systemctl try-restart opensmtpd.service || :
	fi
}

case "$1" in
configure) debian "$2" ;;
abort-*) ;; # dpkg goes back to what was there
*) others "$1" ;;
esac
