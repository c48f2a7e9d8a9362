#!/bin/sh
# Before the files are removed for good; an upgrade passes by. The queue and the
# accounts stay, for there may be mail.
set -e

case "$1" in
upgrade|failed-upgrade|1) exit 0 ;; # dpkg, rpm
esac
if [ -d /run/systemd/system ]; then
	systemctl disable --now opensmtpd.service || :
fi
