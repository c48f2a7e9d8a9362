package mlog

import (
	"net/netip"
	"time"

	"opensmtpd/src/mail"
)

// The lines about filters.

// FilterReady tells that a filter program has said what it wants to know.
func (l *Logger) FilterReady(name string) { l.Debugf("debug: filter: %s: ready", name) }

// FilterLost tells that a filter program is gone, or is given up because of what
// it said.
func (l *Logger) FilterLost(name string, err error) {
	l.Warnf("warn: filter: %s: %v; sessions fail until it has been started again", name, err)
}

// FilterFailed tells that a session could not have the decision of a program.
func (l *Logger) FilterFailed(id mail.SessionID, name string, err error) {
	l.Warnf("warn: %016x filter: %s: %v", uint64(id), name, err)
}

// FilterTable tells that a condition could not be answered.
func (l *Logger) FilterTable(id mail.SessionID, err error) {
	l.Warnf("warn: %016x %v", uint64(id), err)
}

// FilterGreylist tells that a network has come again and passes from now on.
func (l *Logger) FilterGreylist(id mail.SessionID, name string, net netip.Prefix, after time.Duration) {
	l.Infof("%016x smtp greylist filter=%s result=passed network=%s after=%ds", uint64(id), name, net, int64(after.Seconds()))
}
