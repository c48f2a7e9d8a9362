# OpenSMTPD-portable in Go. `make help` lists the targets.

GO		?= go
PREFIX		?= /usr/local
SBINDIR		?= $(PREFIX)/sbin
BINDIR		?= $(PREFIX)/bin
LIBEXECDIR	?= $(PREFIX)/libexec/opensmtpd
MANDIR		?= $(PREFIX)/share/man
SYSCONFDIR	?= /etc/mail
QUEUEGROUP	?= _smtpq
DESTDIR		?=

DEBDIR		?= dist

VERSION		?= $(shell git describe --tags --always 2>/dev/null || echo unknown)
LDFLAGS		= -s -w -X opensmtpd/src/version.Build=$(VERSION)
GOBUILD		= CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
FUZZTIME	?= 20s
# Random histories have a seed, as those of src/queue have by themselves, so that
# a run means the same everywhere; EXPLORE=1 looks for new ones.
export RAPID_SEED := $(if $(EXPLORE),0,20261123)
GORELEASER	= github.com/goreleaser/goreleaser/v2@v2.15.1
STATICCHECK	= honnef.co/go/tools/cmd/staticcheck@v0.8.2

PROGRAMS	= smtpd smtpctl makemap smtp mail.maildir mail.mboxfile mail.lmtp mail.mda \
		  table-sqlite table-postgres table-ldap
# Those that smtpd runs, below LIBEXECDIR.
LIBEXECS	= $(filter mail.% table-%,$(PROGRAMS))
# One binary serves these names by argv[0].
LINKS		= sendmail send-mail mailq newaliases
# Where they are installed: for the administrator, and for everybody.
SBINLINKS	= sendmail send-mail makemap
BINLINKS	= mailq newaliases
PAGES		= $(notdir $(wildcard man/*.[1-8]))
# Names by which pages are asked for, besides their own: name:page.
PAGELINKS	= mailq.8:smtpctl.8 send-mail.8:sendmail.8

.PHONY: all build run check race fuzz lint man regress bench dist deb install install-files
.PHONY: auth-pam install-auth-pam install-programs package-files uninstall clean help

all: build

## build: compile every program into bin/
build:
	@mkdir -p bin
	@for p in $(PROGRAMS); do $(GOBUILD) -o bin/$$p ./src/cmd/$$p || exit 1; done
	@for l in $(LINKS); do ln -sf smtpctl bin/$$l; done

## auth-pam: the table program that asks PAM; needs cgo and the headers of libpam
auth-pam:
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) build -tags pam -trimpath -ldflags '$(LDFLAGS)' -o bin/auth-pam ./src/cmd/auth-pam

## install-auth-pam: install it
install-auth-pam: auth-pam
	install -d $(DESTDIR)$(LIBEXECDIR)
	install -m 0755 bin/auth-pam $(DESTDIR)$(LIBEXECDIR)/auth-pam

## run: a demo mail server in the foreground, unprivileged, on 127.0.0.1:2525, state in run/
run: build
	@mkdir -p run
	./bin/smtpd -d -S run -f conf/demo.conf -D box="$(CURDIR)/run/Maildir"

## check: format, vet and every test that needs no root
check: build
	@fmt=$$(gofmt -l src); test -z "$$fmt" || { echo "gofmt would change: $$fmt"; exit 1; }
	$(GO) vet ./src/...
	$(GO) test -timeout 30m ./src/...

## race: the tests again, watched by the race detector
race: build
	$(GO) test -race -timeout 60m ./src/...

## fuzz: every fuzz test in turn, FUZZTIME (20s) each
fuzz:
	@grep -rl --include='*_test.go' '^func Fuzz' src | while read f; do \
		d=./$$(dirname $$f); \
		sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$f | while read t; do \
			echo "$$d $$t"; \
			$(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) $$d </dev/null || exit 1; \
		done || exit 1; \
	done

## lint: staticcheck, the other systems' builds, and the manual pages
lint: man
	$(GO) run $(STATICCHECK) ./src/...
	@for os in openbsd freebsd darwin; do \
		echo "vet GOOS=$$os"; GOOS=$$os GOARCH=amd64 CGO_ENABLED=0 $(GO) vet ./src/... || exit 1; done

## man: check the manual pages
man:
	@if command -v mandoc >/dev/null; then mandoc -T lint -W warning man/*.[1-8]; \
	else echo "man: skipped, mandoc is not installed"; fi

## regress: whole-daemon tests that need root, in namespaces of their own
regress: build
	@if command -v dpkg-deb >/dev/null; then $(MAKE) deb DEBDIR=bin; fi
	REGRESS=1 $(GO) test -count=1 -timeout 60m ./src/regress/...

## bench: throughput, CPU and memory against peers, in one run (root, Linux)
bench: build
	$(GO) run ./src/bench compare
	$(GO) run ./src/bench relay
	$(GO) run ./src/bench filter
	$(GO) run ./src/bench crowd -rounds 1

## dist: packages (.deb, .rpm, .apk) and archives, below dist/
dist:
	$(GO) run $(GORELEASER) release --snapshot --clean --skip=publish

## deb: the .deb alone, for this machine, by dpkg-deb, into dist/
deb: build
	GO="$(GO)" VERSION="$(VERSION)" MAKE="$(MAKE)" pkg/deb.sh $(DEBDIR)

## install: into DESTDIR/PREFIX, with the set-gid bit, links and manual pages
install: build install-files install-programs

install-programs:
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBEXECDIR)
	install -m 0755 bin/smtpd $(DESTDIR)$(SBINDIR)/smtpd
	install -m 0755 bin/smtpctl $(DESTDIR)$(SBINDIR)/smtpctl
	install -m 0755 bin/smtp $(DESTDIR)$(BINDIR)/smtp
	@# The group owns the offline queue; who installs without root sets it later.
	@if chgrp $(QUEUEGROUP) $(DESTDIR)$(SBINDIR)/smtpctl 2>/dev/null; then \
		chmod 2555 $(DESTDIR)$(SBINDIR)/smtpctl; \
	else \
		echo "install: no group $(QUEUEGROUP) yet; create it, then:"; \
		echo "  chgrp $(QUEUEGROUP) $(SBINDIR)/smtpctl && chmod 2555 $(SBINDIR)/smtpctl"; \
	fi
	@for p in $(LIBEXECS); do install -m 0755 bin/$$p $(DESTDIR)$(LIBEXECDIR)/$$p; done

# All but the programs; the packages take these from here too.
install-files:
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(SYSCONFDIR)
	@for l in $(SBINLINKS); do ln -sf smtpctl $(DESTDIR)$(SBINDIR)/$$l; done
	@for l in $(BINLINKS); do ln -sf ../$(notdir $(SBINDIR))/smtpctl $(DESTDIR)$(BINDIR)/$$l; done
	@for m in $(PAGES); do d=$(DESTDIR)$(MANDIR)/man$${m##*.}; \
		install -d $$d && install -m 0644 man/$$m $$d/$$m || exit 1; done
	@for l in $(PAGELINKS); do ln -sf $${l#*:} $(DESTDIR)$(MANDIR)/man8/$${l%:*}; done
	@for f in smtpd.conf aliases; do \
		test -e $(DESTDIR)$(SYSCONFDIR)/$$f || \
		install -m 0644 conf/$$f $(DESTDIR)$(SYSCONFDIR)/$$f || exit 1; done

# What the packages for Linux hold besides the programs.
package-files:
	rm -rf $(DESTDIR)
	$(MAKE) install-files DESTDIR=$(DESTDIR) PREFIX=/usr
	install -d $(DESTDIR)/usr/lib/systemd/system $(DESTDIR)/usr/share/doc/opensmtpd-go
	ln -sf ../sbin/smtpctl $(DESTDIR)/usr/lib/sendmail
	install -m 0644 systemd/opensmtpd.service $(DESTDIR)/usr/lib/systemd/system/opensmtpd.service
	@cd $(DESTDIR)/usr/share/man && find . -type f -exec gzip -9n {} + && \
	for l in $(PAGELINKS); do rm man8/$${l%:*} && ln -s $${l#*:}.gz man8/$${l%:*}.gz; done
	install -m 0644 README.md $(DESTDIR)/usr/share/doc/opensmtpd-go
	gzip -9nc CHANGES >$(DESTDIR)/usr/share/doc/opensmtpd-go/changelog.gz
	install -m 0644 LICENSE $(DESTDIR)/usr/share/doc/opensmtpd-go/copyright
	cp -R conf/examples $(DESTDIR)/usr/share/doc/opensmtpd-go/examples
	install -m 0644 pkg/fail2ban/opensmtpd.conf $(DESTDIR)/usr/share/doc/opensmtpd-go/fail2ban.conf

## uninstall: remove what install put there; configuration and mail stay
uninstall:
	rm -f $(addprefix $(DESTDIR)$(SBINDIR)/,smtpd smtpctl $(SBINLINKS))
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,smtp $(BINLINKS))
	rm -f $(addprefix $(DESTDIR)$(LIBEXECDIR)/,$(LIBEXECS))
	@for m in $(PAGES); do rm -f $(DESTDIR)$(MANDIR)/man$${m##*.}/$$m; done
	@for l in $(PAGELINKS); do rm -f $(DESTDIR)$(MANDIR)/man8/$${l%:*}; done
	@if test -d $(DESTDIR)$(LIBEXECDIR); then rmdir $(DESTDIR)$(LIBEXECDIR); fi

## clean: remove what build and dist made
clean:
	rm -rf bin dist

## help: this list
help:
	@sed -n 's/^## //p' Makefile
