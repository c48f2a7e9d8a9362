#!/bin/sh
# Before the files are unpacked: the accounts that own some of them.
set -e

account() { # account NAME
	getent group "$1" >/dev/null || {
		if command -v groupadd >/dev/null; then groupadd -r "$1"; else addgroup -S "$1"; fi
	}
	getent passwd "$1" >/dev/null || {
		if command -v useradd >/dev/null; then
			useradd -r -g "$1" -d /var/empty -M -s /usr/sbin/nologin -c "OpenSMTPD" "$1"
		else
			adduser -S -D -H -h /var/empty -s /sbin/nologin -G "$1" "$1"
		fi
	}
}

account _smtpd
account _smtpq
