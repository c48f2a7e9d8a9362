// Command smtpd is the mail server: see smtpd(8). It checks its command line,
// tests a configuration with -n, and otherwise becomes the parent process,
// which starts the others. Each of them is this program again, under another
// name.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/hcl"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/printer"
	"opensmtpd/src/lookup/mapdb"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/pki"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/role/ca"
	"opensmtpd/src/version"
)

func main() {
	os.Exit(run(context.Background(), arguments(), os.Stdin, os.Stdout, os.Stderr))
}

// arguments returns a copy of the command line: a new title overwrites the
// memory that os.Args lies in.
func arguments() []string {
	args := make([]string, len(os.Args))
	for i, a := range os.Args {
		args[i] = strings.Clone(a)
	}
	return args
}

// run is the program: it returns the exit status.
func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	if proc.IsReexec(args) {
		return reexecuted(ctx, stderr)
	}
	o, err := parse(args[1:])
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprintf(stderr, "version: %s %s\n%s\n", version.Name, version.Number, usage)
		return proc.ExitFailure // as OpenSMTPD does
	case err != nil:
		fmt.Fprintf(stderr, "smtpd: %v\n%s\n", err, usage)
		return proc.ExitFailure
	}
	for _, w := range o.warnings {
		fmt.Fprintf(stderr, "smtpd: warning: %s\n", w)
	}
	if o.check {
		return check(ctx, o, stdout, stderr)
	}
	if err := launch(ctx, o, stderr); err != nil {
		var st exitStatus
		if errors.As(err, &st) {
			return int(st)
		}
		fmt.Fprintf(stderr, "smtpd: %v\n", err)
		return proc.ExitFailure
	}
	return proc.ExitOK
}

// check is -n: it says what is wrong with a configuration, or, with -C, writes
// it in another form.
func check(ctx context.Context, o options, stdout, stderr io.Writer) int {
	m := pki.Machine(load.System(), time.Now())
	m.CheckMap, m.CheckPair = mapdb.Check, checkPair
	m.Values = table.Words(m.Values)
	m.Values.Entries = table.Entries
	loaded, diags := load.File(ctx, m, o.conf, o.macros)
	least := diag.Warning
	if o.verbose {
		least = diag.Note
	}
	if err := diags.Write(stderr, least); err != nil || diags.HasErrors() {
		return proc.ExitFailure
	}
	var text string
	var err error
	switch o.convert {
	case "conf":
		text, err = printer.Print(loaded.Config)
	case "hcl":
		text, err = hcl.Print(loaded.Config)
	default:
		fmt.Fprintln(stderr, "configuration OK")
	}
	if err == nil {
		_, err = io.WriteString(stdout, text)
	}
	if err != nil {
		fmt.Fprintf(stderr, "smtpd: %v\n", err)
		return proc.ExitFailure
	}
	return proc.ExitOK
}

// checkPair does what crypto will do with the files of a pki.
func checkPair(cert, key string) error {
	c, err := os.ReadFile(cert)
	if err != nil {
		return err
	}
	k, err := os.ReadFile(key)
	if err != nil {
		return err
	}
	defer clear(k)
	return ca.Check(c, k)
}
