// Package makemap is makemap(8) and newaliases(8): it makes the map files that
// `db:` tables are, out of text.
package makemap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"opensmtpd/src/conf"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/lookup/aliases"
	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/lookup/table"
)

// job is one map to be made.
type job struct {
	call   *invoke.Call
	source string // path, or "-" for stdin
	output string
	kind   mapdb.Kind
}

// Run is makemap(8). It returns the exit status, 0 or 1.
func Run(_ context.Context, call *invoke.Call) int {
	opts, args, err := invoke.Getopt(call.Args, "b:C:d:ho:O:t:U")
	if err != nil {
		call.Errorf("%v", err)
		return usage(call)
	}
	j := job{call: call, kind: mapdb.Plain}
	dump := false
	for _, o := range opts {
		switch o.Letter {
		case 'd':
			if err := checkFormat(o.Arg); err != nil {
				call.Errorf("%v", err)
				return invoke.Failure
			}
		case 'o':
			j.output = o.Arg
		case 'O':
			if file, ok := strings.CutPrefix(o.Arg, "AliasFile="); ok {
				j.kind, j.source = mapdb.Aliases, file
			}
		case 't':
			if j.kind, err = parseKind(o.Arg); err != nil {
				call.Errorf("%v", err)
				return invoke.Failure
			}
		case 'U':
			dump = true
		case 'h':
			return usage(call)
		}
	}
	switch {
	case len(args) == 2 && j.output == "": // sendmail's: makemap hash name <text
		if err := checkFormat(args[0]); err != nil {
			call.Errorf("%v", err)
			return invoke.Failure
		}
		j.source, j.output = "-", withSuffix(args[1])
	case len(args) == 1:
		j.source = args[0]
	case len(args) != 0 || j.source == "":
		return usage(call)
	}
	if dump {
		return j.report(j.dump())
	}
	n, err := j.make()
	if err == nil && n == 0 {
		call.Errorf("warning: empty map created: %s", j.output)
	}
	return j.report(err)
}

func usage(call *invoke.Call) int {
	fmt.Fprintf(call.Stderr, "usage: makemap [-U] [-C conf] [-d dbtype] [-O AliasFile=file] [-o dbfile] [-t type] file\n")
	return invoke.Failure
}

// checkFormat accepts the names of Berkeley DB's formats; a map has one format
// here, whatever the name.
func checkFormat(s string) error {
	switch s {
	case "hash", "btree", "dbm":
		return nil
	}
	return fmt.Errorf("unsupported DB type '%s'", s)
}

func parseKind(s string) (mapdb.Kind, error) {
	switch s {
	case "aliases":
		return mapdb.Aliases, nil
	case "set":
		return mapdb.Set, nil
	}
	return "", fmt.Errorf("unsupported type '%s'", s)
}

func withSuffix(name string) string {
	if strings.HasSuffix(name, ".db") {
		return name
	}
	return name + ".db"
}

func (j *job) report(err error) int {
	if err == nil {
		return invoke.OK
	}
	j.call.Errorf("%v", err)
	return invoke.Failure
}

// make makes the map and returns how many entries it has.
func (j *job) make() (int, error) {
	if j.output == "" {
		if j.source == "-" {
			return 0, errors.New("a map made from standard input needs -o")
		}
		j.output = j.source + ".db"
	}
	text, owner, err := j.read()
	if err != nil {
		return 0, err
	}
	entries, err := parse(text, j.kind)
	if err != nil {
		return 0, j.at(err)
	}
	if err := mapdb.Write(j.output, j.kind, entries, owner); err != nil {
		return 0, j.at(err)
	}
	return len(entries), nil
}

// at puts the name of the source before an error with a line.
func (j *job) at(err error) error {
	var line *table.LineError
	var entry *mapdb.EntryError
	if errors.As(err, &line) || errors.As(err, &entry) {
		return fmt.Errorf("%s:%w", j.source, err)
	}
	return fmt.Errorf("%s: %w", j.output, err)
}

// read returns the source, and to whom the map shall belong: to whom the source
// does, with the same permissions. One made from stdin is its maker's alone.
func (j *job) read() ([]byte, mapdb.Owner, error) {
	owner := mapdb.Owner{Mode: 0o600, UID: -1, GID: -1}
	if j.source == "-" {
		text, err := io.ReadAll(j.call.Stdin)
		return text, owner, err
	}
	f, err := os.Open(j.source)
	if err != nil {
		return nil, owner, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, owner, err
	}
	if !st.Mode().IsRegular() {
		return nil, owner, fmt.Errorf("%s: not a regular file", j.source)
	}
	// An editor such as vipw holds the lock while the file is in pieces.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, owner, fmt.Errorf("%s is locked", j.source)
	}
	owner.Mode = st.Mode().Perm()
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		owner.UID, owner.GID = int(sys.Uid), int(sys.Gid)
	}
	text, err := io.ReadAll(f)
	return text, owner, err
}

var errEntry = errors.New("invalid entry")

// parse reads the entries of a source.
func parse(text []byte, kind mapdb.Kind) ([]mapdb.Entry, error) {
	form := conf.Map
	if kind == mapdb.Set {
		form = conf.List
	}
	var entries []mapdb.Entry
	err := table.Lines(text, form, func(line int, key, value []byte) error {
		if len(key) == 0 {
			return &table.LineError{Line: line, Err: errEntry}
		}
		if kind == mapdb.Aliases {
			if err := aliases.Check(string(value)); err != nil {
				return &table.LineError{Line: line, Err: fmt.Errorf("%w: %w", errEntry, err)}
			}
		}
		entries = append(entries, mapdb.Entry{Key: key, Value: value, Line: line})
		return nil
	})
	return entries, err
}

// dump writes a map as text.
func (j *job) dump() error {
	r, err := mapdb.Open(j.source)
	if err != nil {
		return err
	}
	defer r.Close()
	out := bufio.NewWriter(j.call.Stdout)
	err = r.Each(func(key, value []byte) error {
		_, err := out.WriteString(asText(key, value))
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

// asText is an entry as a source has it. A value that would be taken for a comment,
// or for a colon behind blanks, comes behind a colon; a key that would be a comment
// is not the first in its line, which is joined to an empty one.
func asText(key, value []byte) string {
	before, colon := "", ""
	if len(key) > 0 && key[0] == '#' {
		before = "\\\n"
	}
	v := string(value)
	if strings.HasPrefix(v, "#") || v == ":" || strings.HasPrefix(v, ": ") || strings.HasPrefix(v, ":\t") {
		colon = ":"
	}
	return before + string(key) + colon + "\t" + v + "\n"
}
