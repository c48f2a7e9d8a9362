package makemap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/native"
	"opensmtpd/src/ctl"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/version"
)

// aliasesTable is the name of the table that newaliases is about.
const aliasesTable = "aliases"

// DefaultAliases is the source when the configuration has no such table.
const DefaultAliases = "/etc/mail/aliases"

// Newaliases is newaliases(8), and sendmail -bi: it rebuilds the map of the
// table aliases, or checks its file, and tells the running daemon. It returns
// the exit status, 0 or 1.
func Newaliases(ctx context.Context, call *invoke.Call) int {
	places, err := call.Places("")
	if err != nil {
		call.Errorf("%v", err)
		return invoke.Failure
	}
	file, source := places.Conf, ""
	opts, args, err := newaliasesOptions(call)
	if err != nil {
		call.Errorf("%v", err)
	}
	for _, o := range opts {
		switch o.Letter {
		case 'f':
			file = o.Arg
		case 'O':
			source, _ = strings.CutPrefix(o.Arg, "AliasFile=")
		}
	}
	if err != nil || len(args) > 0 {
		fmt.Fprintf(call.Stderr, "usage: newaliases [-f file]\n")
		return invoke.Failure
	}
	j := job{call: call, kind: mapdb.Aliases, source: source}
	if err := j.rebuild(file); err != nil {
		return j.report(err)
	}
	return j.report(tell(ctx, places.Socket))
}

// newaliasesOptions reads those of newaliases, or of sendmail when it was called
// so.
func newaliasesOptions(call *invoke.Call) ([]invoke.Option, []string, error) {
	if call.Name == "newaliases" {
		return invoke.Getopt(call.Args, "f:h")
	}
	opts, args, err := invoke.Getopt(call.Args, "b:C:O:o:v")
	for i := range opts {
		if opts[i].Letter == 'C' {
			opts[i].Letter = 'f'
		}
	}
	return opts, args, err
}

// rebuild makes the map that the table aliases of the configuration is. A table
// of another back end is read for errors.
func (j *job) rebuild(file string) error {
	backend := "db"
	if j.source == "" {
		t, err := j.table(file)
		if err != nil {
			return err
		}
		j.source = DefaultAliases
		if t != nil {
			j.source, backend = strings.TrimSuffix(t.Config, ".db"), t.Backend
		}
	}
	var n int
	var err error
	switch backend {
	case "db":
		n, err = j.make()
	case "file":
		n, err = j.check()
	default:
		return fmt.Errorf("table %s is of type %s, which newaliases cannot rebuild", aliasesTable, backend)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(j.call.Stdout, "%s: %d aliases\n", j.source, n)
	return err
}

// table finds the table aliases. Errors elsewhere in the file are not our
// business.
func (j *job) table(file string) (*conf.Table, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	cfg, diags := native.Parse(os.ReadFile, file, nil)
	for _, t := range cfg.Tables {
		if t.Name == aliasesTable {
			return t, nil
		}
	}
	if !diags.HasErrors() {
		return nil, nil
	}
	if err := diags.Write(j.call.Stderr, diag.Error); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s has errors", file)
}

// check reads a text file as the daemon will, and counts.
func (j *job) check() (int, error) {
	text, _, err := j.read()
	if err != nil {
		return 0, err
	}
	entries, err := parse(text, j.kind)
	if err != nil {
		return 0, j.at(err)
	}
	return len(entries), nil
}

// tell makes the daemon read the table again. One that does not run needs not be
// told, nor one that has no such table.
func tell(ctx context.Context, socket string) error {
	client, err := ctl.Dial(ctx, socket, version.Build)
	if errors.Is(err, ctl.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Do(ctl.Request{Verb: msg.VerbUpdateTable, Args: []string{aliasesTable}}, ctl.Answer{})
	var refused *ctl.Refused
	if errors.As(err, &refused) {
		return nil
	}
	return err
}
