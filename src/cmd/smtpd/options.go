package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"opensmtpd/src/ctl"
	"opensmtpd/src/paths"
)

const usage = `usage: smtpd [-dFhnv] [-C conf|hcl] [-D macro=value] [-f file]
             [-P system] [-S dir] [-T trace]`

// errHelp is what -h gives.
var errHelp = errors.New("help")

// options are the command line.
type options struct {
	conf       string
	macros     map[string]string
	paths      paths.Set
	check      bool   // -n
	convert    string // -C
	foreground bool   // -d, -F
	stderr     bool   // -d
	verbose    bool
	state      string // -S
	traces     []string
	paused     []string
	warnings   []string
}

// parse reads the arguments behind the program's name, as getopt(3) does.
func parse(args []string) (options, error) {
	o := options{macros: make(map[string]string)}
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			args = args[1:]
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			break
		}
		args = args[1:]
		for letters := arg[1:]; letters != ""; {
			letter := letters[0]
			letters = letters[1:]
			if !strings.ContainsRune("CDfPST", rune(letter)) {
				if err := o.flag(letter); err != nil {
					return o, err
				}
				continue
			}
			value := letters
			if value == "" {
				if len(args) == 0 {
					return o, fmt.Errorf("option requires an argument -- %c", letter)
				}
				value, args = args[0], args[1:]
			}
			if err := o.set(letter, value); err != nil {
				return o, err
			}
			break
		}
	}
	if len(args) > 0 {
		return o, fmt.Errorf("unexpected argument %q", args[0])
	}
	return o, o.finish()
}

// flag takes an option without a value.
func (o *options) flag(letter byte) error {
	switch letter {
	case 'd':
		o.foreground, o.stderr = true, true
	case 'F':
		o.foreground = true
	case 'h':
		return errHelp
	case 'n':
		o.check = true
	case 'v':
		o.verbose = true
	default:
		return fmt.Errorf("unknown option -- %c", letter)
	}
	return nil
}

// set takes an option with a value.
func (o *options) set(letter byte, value string) error {
	switch letter {
	case 'C':
		if value != "conf" && value != "hcl" {
			return fmt.Errorf("-C takes conf or hcl, not %q", value)
		}
		o.convert = value
	case 'D':
		name, v, ok := strings.Cut(value, "=")
		if !ok || name == "" {
			return fmt.Errorf("could not parse macro definition %s: want macro=value", value)
		}
		o.macros[name] = v
	case 'f':
		o.conf = value
	case 'P':
		if !slices.Contains([]string{"mda", "mta", "smtp"}, value) {
			return fmt.Errorf("-P takes mda, mta or smtp, not %q", value)
		}
		o.paused = append(o.paused, value)
	case 'S':
		o.state = value
	case 'T':
		o.trace(value)
	}
	return nil
}

// trace takes a trace by one of its names. As in OpenSMTPD an unknown one is no
// reason not to start.
func (o *options) trace(name string) {
	switch name {
	case "transfer":
		name = "mta"
	case "bounces":
		name = "bounce"
	case "stats":
		name = "stat"
	case "tables":
		name = "table"
	}
	known := append(ctl.Traces(), "table", "queue", "profstat", "profile-imsg", "profile-queue")
	if !slices.Contains(known, name) {
		o.warnings = append(o.warnings, fmt.Sprintf("unknown trace flag %q", name))
		return
	}
	o.traces = append(o.traces, name)
}

// finish checks what options mean together and finds the places.
func (o *options) finish() (err error) {
	if o.convert != "" && !o.check {
		return errors.New("-C goes with -n")
	}
	o.paths = paths.System()
	if o.state != "" {
		if o.paths, err = paths.In(o.state); err != nil {
			return err
		}
	}
	if o.conf == "" {
		o.conf = o.paths.Conf
	}
	return nil
}
