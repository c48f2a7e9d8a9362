#!/bin/sh
# After the files are unpacked.
set -e

# Roles without files are confined to this directory; nobody may write there.
mkdir -p /var/empty
chown root:root /var/empty
chmod 0755 /var/empty

# The set-gid bit lets users reach the offline queue through smtpctl.
chgrp _smtpq /usr/sbin/smtpctl
chmod 2555 /usr/sbin/smtpctl

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# An upgrade replaces programs underneath a running daemon: start it anew.
	if systemctl is-active -q opensmtpd.service; then
		systemctl restart opensmtpd.service
	fi
fi
