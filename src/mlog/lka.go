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
