// Package mlog writes the lines that an administrator sees, one function per
// line, in OpenSMTPD's format key for key, because people parse them. Each area
// has a file: smtp.go, queue.go, mda.go, ….
package mlog

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// Priority is a syslog severity (RFC 5424 section 6.2.1).
type Priority uint8

const (
	Crit    Priority = 2
	Warning Priority = 4
	Info    Priority = 6
	Debug   Priority = 7
)

// Sink takes finished lines. It must not wait: a line that cannot be written at
// once is dropped and counted.
type Sink interface {
	Line(p Priority, line string)
}

// Logger hands lines to a Sink. Its zero value, and nil, drop everything.
type Logger struct {
	sink    Sink
	verbose atomic.Bool
}

// New returns a Logger; verbose lets Debug lines through.
func New(sink Sink, verbose bool) *Logger {
	l := &Logger{sink: sink}
	l.verbose.Store(verbose)
	return l
}

// SetVerbose turns Debug lines on or off.
func (l *Logger) SetVerbose(v bool) {
	if l != nil {
		l.verbose.Store(v)
	}
}

// Verbose tells whether Debug lines are wanted, so that a caller can spare
// itself making one.
func (l *Logger) Verbose() bool { return l != nil && l.verbose.Load() }

func (l *Logger) Infof(format string, args ...any)  { l.print(Info, format, args...) }
func (l *Logger) Warnf(format string, args ...any)  { l.print(Warning, format, args...) }
func (l *Logger) Fatalf(format string, args ...any) { l.print(Crit, format, args...) }

// Debugf writes only when verbose.
func (l *Logger) Debugf(format string, args ...any) {
	if l.Verbose() {
		l.print(Debug, format, args...)
	}
}

func (l *Logger) print(p Priority, format string, args ...any) {
	if l == nil || l.sink == nil {
		return
	}
	l.sink.Line(p, clean(fmt.Sprintf(format, args...)))
}

// clean makes one line of s: what a stranger sent cannot forge another one.
// Control characters become \xNN; the rest, UTF-8 included, stays.
func clean(s string) string {
	if strings.IndexFunc(s, isControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 }
