package mlog

import "opensmtpd/src/mail"

// StoreTrouble tells of an error of the disk that cost nothing yet.
func (l *Logger) StoreTrouble(err error) { l.Warnf("warn: queue: %v", err) }

// EnvelopeDamaged tells that an envelope cannot be read; kept is the file that
// has what is left, or "".
func (l *Logger) EnvelopeDamaged(id mail.EnvelopeID, why error, kept string) {
	l.Warnf("warn: queue: envelope %v is damaged: %v%s", id, why, keptAs(kept))
}

// MessageDamaged tells that a message cannot be read; kept is the directory that
// has what is left, or "".
func (l *Logger) MessageDamaged(id mail.MessageID, why string, kept string) {
	l.Warnf("warn: queue: message %v is damaged: %s%s", id, why, keptAs(kept))
}

// SpoolMisfit tells that something in the spool is not what its name says.
func (l *Logger) SpoolMisfit(name, kept string) {
	l.Warnf("warn: queue: %s is not a directory%s", name, keptAs(kept))
}

// JournalDamaged tells that a stretch of the journal cannot be read.
func (l *Logger) JournalDamaged(bytes int64, kept string) {
	l.Warnf("warn: queue: %d bytes of the journal are damaged%s", bytes, keptAs(kept))
}

// JournalRecord tells of a record that says what makes no sense.
func (l *Logger) JournalRecord(lsn uint64, why error) {
	l.Warnf("warn: queue: journal record %d: %v", lsn, why)
}

// CheckpointDamaged tells that the saved index is of no use.
func (l *Logger) CheckpointDamaged(why error, kept string) {
	l.Warnf("warn: queue: %v%s; reading the whole journal", why, keptAs(kept))
}

func keptAs(name string) string {
	if name == "" {
		return ""
	}
	return ", kept as " + name
}
