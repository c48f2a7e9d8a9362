#!/bin/sh
# Before the files are removed for good; an upgrade passes by. The queue and the
# accounts stay, for there may be mail.
set -e

case "$1" in
upgrade|failed-upgrade|deconfigure|1) exit 0 ;; # dpkg, rpm
esac
if [ -d /run/systemd/system ]; then
	case "$1" in
	remove) deb-systemd-invoke stop opensmtpd.service || : ;;
	*) systemctl disable --now opensmtpd.service || : ;;
	esac
fi
