package makemap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/hcl"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/ctl"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/version"
)

// aliasesTable is the name of the table that newaliases is about; a file without
// one says by its actions which tables have aliases.
const aliasesTable = "aliases"

// DefaultAliases is the source when the configuration has no such table.
const DefaultAliases = "/etc/mail/aliases"

// Newaliases is newaliases(8), and sendmail -bi: it rebuilds the maps of the
// tables of aliases, or checks their files, and tells the running daemon. It
// returns the exit status, 0 or 1.
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
	j := job{call: call, kind: mapdb.Aliases}
	return j.report(j.newaliases(ctx, file, source, places.Socket))
}

// newaliases rebuilds all tables of aliases of the configuration in file, or the
// one map of source when that is given.
func (j *job) newaliases(ctx context.Context, file, source, socket string) error {
	tables := []*conf.Table{{Name: aliasesTable, Backend: "db", Config: source}}
	if source == "" {
		var err error
		if tables, err = j.tables(ctx, file); err != nil {
			return err
		}
	}
	for _, t := range tables {
		if err := j.rebuild(t); err != nil {
			return err
		}
		if err := tell(ctx, socket, t.Name); err != nil {
			return err
		}
	}
	return nil
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

// rebuild makes the map that a table is. A table of another back end is read for
// errors.
func (j *job) rebuild(t *conf.Table) error {
	j.source, j.output = strings.TrimSuffix(t.Config, ".db"), ""
	var n int
	var err error
	switch t.Backend {
	case "db":
		n, err = j.make()
	case "file":
		n, err = j.check()
	default:
		return fmt.Errorf("table %s is of type %s, which newaliases cannot rebuild", t.Name, t.Backend)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(j.call.Stdout, "%s: %d aliases\n", j.source, n)
	return err
}

// tables finds the tables of aliases: the one of that name, else those of actions
// that have a file, else the usual one. Errors elsewhere in the file are not our
// business.
func (j *job) tables(ctx context.Context, file string) ([]*conf.Table, error) {
	path, _ := hcl.Path(file)
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	cfg, diags := load.Parse(ctx, load.System(), file, nil)
	if t := cfg.Table(aliasesTable); t != nil {
		return []*conf.Table{t}, nil
	}
	if diags.HasErrors() {
		if err := diags.Write(j.call.Stderr, diag.Error); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s has errors", file)
	}
	var list []*conf.Table
	for _, a := range cfg.Actions {
		t := cfg.Table(a.Alias)
		if t != nil && (t.Backend == "db" || t.Backend == "file") && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		list = []*conf.Table{{Name: aliasesTable, Backend: "db", Config: DefaultAliases}}
	}
	return list, nil
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

// tell makes the daemon read a table again. One that does not run needs not be
// told, nor one that has no such table.
func tell(ctx context.Context, socket, table string) error {
	client, err := ctl.Dial(ctx, socket, version.Build)
	if errors.Is(err, ctl.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Do(ctl.Request{Verb: msg.VerbUpdateTable, Args: []string{table}}, ctl.Answer{})
	var refused *ctl.Refused
	if errors.As(err, &refused) {
		return nil
	}
	return err
}
