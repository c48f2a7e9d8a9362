// Package queue keeps mail. A message that Commit has acknowledged is on stable
// storage with all its envelopes and is never lost, whatever crashes.
//
// New mail goes to a journal (package journal), one synced write for all who
// commit at the same time. What stays longer than the journal's oldest segment
// moves to files in OpenSMTPD's layout (package spool). An index of what lives is
// in memory, a summary per envelope and nothing of the message, and is saved as
// a checkpoint every minute or 64 MiB.
//
// The directories, below the root of the disk.FS given to Open:
//
//	journal/   segments, checkpoint, lock
//	incoming/  bodies too large for the journal; messages becoming files
//	queue/     XX/MSGID/message and XX/MSGID/EVPID, as OpenSMTPD has them
//	corrupt/   what was damaged, set aside
package queue
