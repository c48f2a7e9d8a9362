// Package filter decides about sessions as the filters of smtpd.conf(5) say:
// those that are built in, and programs that speak smtpd-filters(7).
//
// A listener names a filter or a chain of them. At each phase of a session the
// filters of the chain are asked in order. One that refuses ends the matter, and
// so does a bypass; after any other decision the next one is asked, with what a
// rewrite has made of the argument.
//
// A program is one process for all sessions. One goroutine writes to it, out of
// a queue that holds 1 MiB; sessions that would add more wait. Another reads
// from it and gives the answers to the sessions. A session knows the process
// that it began with: when that dies, the session does not talk to the next one,
// which has heard nothing of it. Whatever a program says, the worst that comes
// of it is its own end.
package filter
