package mda

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda/command"
	"opensmtpd/src/mda/maildir"
)

// Delivered is the result of a delivery that worked.
var delivered = Result{Stat: "Delivered"}

// What is said of deliveries that were not begun.
var (
	shutdown = Result{mailerr.Temporary(451, 3, 2, "Shutting down", nil), "Shutting down"}
	looped   = Result{mailerr.Permanent(554, 4, 6, "Loop detected", nil), "Loop detected"}
	lost     = Failure(mailerr.Temp, 0, "delivery agent ended too early", nil)
	silent   = Failure(mailerr.Temp, 0, "delivery agent does not answer", nil)
)

// Exit statuses of sysexits.h that matter here.
const (
	ExNoUser      = 67
	ExUnavailable = 69
	ExOSErr       = 71
	ExTempFail    = 75
	ExNoPerm      = 77
)

// sysexits holds the words for exit statuses, as the log has them, and the
// subject and detail of the enhanced code (RFC 3463) that says the same.
var sysexits = map[int]struct {
	words           string
	subject, detail uint16
}{
	64: {"command line usage error", 3, 5},
	65: {"data format error", 6, 0},
	66: {"cannot open input", 3, 0},
	67: {"user unknown", 1, 1},
	68: {"host name unknown", 1, 2},
	69: {"service unavailable", 3, 0},
	70: {"internal software error", 3, 0},
	71: {"system resource problem", 3, 0},
	72: {"critical OS file missing", 3, 5},
	73: {"can't create user output file", 2, 0},
	74: {"input/output error", 3, 0},
	75: {"temporary failure", 3, 0},
	76: {"remote error in protocol", 5, 0},
	77: {"permission denied", 7, 0},
	78: {"local configuration error", 3, 5},
}

// Failure returns the Result for a failure with an exit status, 0 for none. line
// goes into the envelope and the report; the log has the cause too.
func Failure(class mailerr.Class, exit int, line string, cause error) Result {
	r := Result{Stat: line}
	if cause != nil {
		r.Stat = fmt.Sprintf("%s: %v", line, cause)
	}
	ex, known := sysexits[exit]
	if !known {
		ex.subject = 3
	} else {
		r.Stat = ex.words + ": " + r.Stat
	}
	r.Stat = "Error (" + r.Stat + ")"
	if class == mailerr.Temp {
		r.Err = mailerr.Temporary(451, ex.subject, ex.detail, line, cause)
	} else {
		r.Err = mailerr.Permanent(550, ex.subject, ex.detail, line, cause)
	}
	return r
}

// storeFailed returns the result for an error of a built-in method, named as the
// program that does the same. All are temporary but those that no administrator
// can repair while the mail waits.
func storeFailed(program string, err error) Result {
	// The stranger learns what is wrong, not where our files are.
	what := err
	var pe *fs.PathError
	if errors.As(err, &pe) {
		what = pe.Err
	}
	class, exit := mailerr.Temp, ExTempFail
	if errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, maildir.ErrPath) {
		class, exit = mailerr.Perm, 0
	}
	r := Failure(class, exit, fmt.Sprintf("%s: %v", program, what), nil)
	r.Err.Cause = err
	if pe != nil {
		r.Stat = Failure(class, exit, fmt.Sprintf("%s: %v", program, err), nil).Stat
	}
	switch {
	case errors.Is(err, syscall.EDQUOT):
		r.Err.Enhanced = mailerr.Enhanced{4, 2, 2}
	case errors.Is(err, syscall.ENOSPC):
		r.Err.Enhanced = mailerr.Enhanced{4, 3, 1}
	}
	return r
}

// commandResult judges the end of a delivery command: status 0 delivers, 71 and
// 75 are tried again as are commands that were killed, all others fail for good.
// The last line of its output says why.
func commandResult(o command.Outcome) Result {
	line := func(otherwise string) string {
		if o.LastLine != "" {
			return `"` + o.LastLine + `"`
		}
		return otherwise
	}
	switch {
	case o.TimedOut:
		return Failure(mailerr.Temp, 0, line("terminated; timeout"), nil)
	case o.Cancelled:
		return Failure(mailerr.Temp, 0, "terminated; shutting down", nil)
	case o.Err != nil:
		return Failure(mailerr.Temp, ExOSErr, "mda could not be run", o.Err)
	case o.Signal != 0:
		return Failure(mailerr.Temp, 0, line(fmt.Sprintf("terminated; signal %d", int(o.Signal))), nil)
	case o.Exit == ExOSErr || o.Exit == ExTempFail:
		return Failure(mailerr.Temp, o.Exit, line("exited abnormally"), nil)
	case o.Exit != 0:
		return Failure(mailerr.Perm, o.Exit, line("exited abnormally"), nil)
	case o.Unread:
		return Failure(mailerr.Temp, 0, "mda exited prematurely", nil)
	}
	return delivered
}

// unreadable is the result when the queue's own body cannot be read.
func unreadable(cause error) Result {
	return Failure(mailerr.Temp, ExTempFail, "Cannot read message", cause)
}
