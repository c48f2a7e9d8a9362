package control

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/ctl"
	"opensmtpd/src/filter/greylist"
	"opensmtpd/src/lookup/expand"
	"opensmtpd/src/mail"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// allow says who may use a verb.
type allow uint8

const (
	operators allow = iota // root and the group operators
	owners                 // everybody, for what is his own
	anyone
)

// verb is a row of the table of what the control socket offers.
type verb struct {
	name  msg.Verb
	allow allow
	args  func([]string) error
	to    proc.Role     // who serves it; empty: control itself
	limit time.Duration // how long that may take
}

// The limits of a call. A reload and a table may read large files.
const (
	short = 60 * time.Second
	long  = 10 * time.Minute
)

func verbs() []verb {
	return []verb{
		{ctl.VerbSession, anyone, none, "", 0},
		{ctl.VerbStatus, operators, none, "", 0},
		{ctl.VerbStats, operators, none, "", 0},
		{ctl.VerbDigest, operators, none, "", 0},

		{msg.VerbList, owners, optionalMessage, proc.Queue, short},
		{msg.VerbEnvelope, owners, oneEnvelope, proc.Queue, short},
		{msg.VerbMessage, owners, oneMessage, proc.Queue, short},
		{msg.VerbRemove, operators, which, proc.Queue, short},
		{msg.VerbSchedule, operators, which, proc.Queue, short},
		{msg.VerbPauseEnvelope, operators, which, proc.Queue, short},
		{msg.VerbResumeEnvelope, operators, which, proc.Queue, short},
		{msg.VerbDiscover, operators, envelopeOrMessage, proc.Queue, short},
		{msg.VerbPauseMDA, operators, none, proc.Queue, short},
		{msg.VerbResumeMDA, operators, none, proc.Queue, short},
		{msg.VerbPauseMTA, operators, none, proc.Queue, short},
		{msg.VerbResumeMTA, operators, none, proc.Queue, short},

		{msg.VerbPauseSMTP, operators, none, proc.Dispatcher, short},
		{msg.VerbResumeSMTP, operators, none, proc.Dispatcher, short},
		{msg.VerbShowRoutes, operators, none, proc.Dispatcher, short},
		{msg.VerbShowHosts, operators, none, proc.Dispatcher, short},
		{msg.VerbShowRelays, operators, none, proc.Dispatcher, short},
		{msg.VerbShowHoststats, operators, none, proc.Dispatcher, short},
		{msg.VerbResumeRoute, operators, route, proc.Dispatcher, short},

		{msg.VerbShowGreylist, operators, none, proc.Dispatcher, short},
		{msg.VerbWhitelist, operators, one(greylist.ParseNet), proc.Dispatcher, short},
		{msg.VerbUnwhitelist, operators, one(greylist.ParseNet), proc.Dispatcher, short},

		{msg.VerbUpdateTable, operators, tableName, proc.Lookup, long},
		{msg.VerbExplain, operators, question, proc.Lookup, short},

		{msg.VerbReload, operators, none, proc.Parent, long},
		{msg.VerbVerbose, operators, oneOf("0", "1"), proc.Parent, short},
		{msg.VerbTrace, operators, oneOf(ctl.Traces()...), proc.Parent, short},
		{msg.VerbUntrace, operators, oneOf(ctl.Traces()...), proc.Parent, short},
		{msg.VerbProfile, operators, oneOf(ctl.Profiles()...), proc.Parent, short},
		{msg.VerbUnprofile, operators, oneOf(ctl.Profiles()...), proc.Parent, short},
	}
}

func count(args []string, n int) error {
	if len(args) != n {
		return fmt.Errorf("%d arguments, want %d", len(args), n)
	}
	return nil
}

func none(args []string) error { return count(args, 0) }

// one makes a check of a single argument out of a parser of it.
func one[T any](parse func(string) (T, error)) func([]string) error {
	return func(args []string) error {
		if err := count(args, 1); err != nil {
			return err
		}
		_, err := parse(args[0])
		return err
	}
}

// route takes the number of a route, or all.
func route(args []string) error {
	if len(args) == 1 && args[0] == "all" {
		return nil
	}
	return one(func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })(args)
}

func oneMessage(args []string) error  { return one(mail.ParseMessageID)(args) }
func oneEnvelope(args []string) error { return one(mail.ParseEnvelopeID)(args) }

func optionalMessage(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return oneMessage(args)
}

// envelopeOrMessage tells the two apart by their length, as smtpctl(8) does.
func envelopeOrMessage(args []string) error {
	if len(args) == 1 && len(args[0]) > 8 {
		return oneEnvelope(args)
	}
	return oneMessage(args)
}

func which(args []string) error {
	if len(args) == 1 && args[0] == "all" {
		return nil
	}
	return envelopeOrMessage(args)
}

func oneOf(words ...string) func([]string) error {
	return one(func(s string) (string, error) {
		for _, w := range words {
			if s == w {
				return w, nil
			}
		}
		return "", fmt.Errorf("%q is not one of %s", s, strings.Join(words, ", "))
	})
}

// maxTableName bounds what a log line about an unknown table holds, in bytes.
const maxTableName = 255

func tableName(args []string) error {
	return one(func(s string) (string, error) {
		if s == "" || len(s) > maxTableName {
			return "", fmt.Errorf("a table name has 1 to %d bytes", maxTableName)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return "", fmt.Errorf("%q is not a table name", s)
		}
		return s, nil
	})(args)
}

// maxWord bounds a word of a question, in bytes: no address is longer.
const maxWord = 1024

// question bounds the words that lookup reads.
func question(args []string) error {
	if len(args) > 2*len(expand.Words()) {
		return errors.New("too many words")
	}
	for _, s := range args {
		if len(s) > maxWord {
			return errors.New("a word is too long")
		}
	}
	return nil
}
