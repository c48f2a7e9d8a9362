package mlog

import "opensmtpd/src/mail"

// TableUpdated tells that a table was read again.
func (l *Logger) TableUpdated(name string) {
	l.Infof("info: Table \"%s\" successfully updated", name)
}

// TableNotUpdated tells that the old content of a table stays, and why.
func (l *Logger) TableNotUpdated(name string, err error) {
	l.Warnf("warn: Failed to update table \"%s\": %v", name, err)
}

// TableUnknown tells that somebody wants a table updated that does not exist.
func (l *Logger) TableUnknown(name string) {
	l.Warnf("warn: Lookup table not found: \"%s\"", name)
}

// TableEntry tells of an entry of a file that can never match.
func (l *Logger) TableEntry(path string, err error) { l.Warnf("warn: %s:%v", path, err) }

// RecipientTrouble tells why a recipient was refused where the reply does not.
func (l *Logger) RecipientTrouble(id mail.SessionID, rcpt string, err error) {
	l.Warnf("warn: %016x lka recipient=<%s>: %v", uint64(id), rcpt, err)
}

// TableProgram tells why a table program is given up.
func (l *Logger) TableProgram(name string, why error) {
	l.Warnf("warn: table-proc: %s: %v; its lookups fail until it is started again", name, why)
}

// TableOneAtATime tells that a program will not get a request before the one
// before is answered.
func (l *Logger) TableOneAtATime(name string) {
	l.Infof("info: table-proc: %s: it failed while many requests were in flight and is asked one at a time from now on", name)
}
