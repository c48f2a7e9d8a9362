#!/bin/sh
# deb.sh [directory] makes the .deb for this machine out of what `make install`
# installs, without goreleaser; called by `make deb`. What it says about itself is
# taken from .goreleaser.yaml.
set -eu

dist=${1:-dist}
root=bin/deb
fields=.goreleaser.yaml
arch=$(${GO:-go} env GOARCH)
case "$arch" in
386) arch=i386 ;;
arm) arch=armhf ;;
esac
# Debian wants a digit first.
version=$(printf %s "${VERSION:-0}" | sed 's/^v//; s/[^A-Za-z0-9.+~-]/./g; s/^[^0-9]/0~&/')

field() { # field NAME: its value, a list with commas
	sed -n "s/^    $1: *//p" $fields | head -1 | tr -d '[]'
}

rm -rf "$root" # package-files begins afresh too
${MAKE:-make} package-files DESTDIR="$root" >/dev/null
${MAKE:-make} install-programs DESTDIR="$root" PREFIX=/usr QUEUEGROUP=none >/dev/null

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<END
Package: $(field package_name)
Version: $version
Section: $(field section)
Priority: optional
Architecture: $arch
Maintainer: $(field maintainer)
Homepage: $(field homepage)
Provides: $(field provides)
Conflicts: $(field conflicts)
Replaces: $(field replaces)
Description: $(sed -n '/^    description:/,/^    license:/s/^      //p' $fields | sed '2,$s/^/ /')
END
find "$root/etc" -type f | sed "s|^$root||" >"$root/DEBIAN/conffiles"
install -m 0755 pkg/preinstall.sh "$root/DEBIAN/preinst"
install -m 0755 pkg/postinstall.sh "$root/DEBIAN/postinst"
install -m 0755 pkg/preremove.sh "$root/DEBIAN/prerm"
install -m 0755 pkg/postremove.sh "$root/DEBIAN/postrm"

mkdir -p "$dist"
rm -f "$dist/$(field package_name)"_*.deb # of another version
dpkg-deb --root-owner-group -Zgzip -z1 --build "$root" "$dist/$(field package_name)_${version}_$arch.deb"
