package tableprog

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Opener makes a program's table of a configuration file, and tells what it
// serves. name is the table's.
type Opener func(ctx context.Context, name, path string) (Table, []Service, error)

// Main is main of a program that has one argument, its configuration file, and
// returns the exit status. smtpd calls a program by the name of the table.
func Main(ctx context.Context, args []string, in io.Reader, out, errs io.Writer, open Opener) int {
	if len(args) != 2 {
		fmt.Fprintln(errs, "usage: in smtpd.conf, table name backend:configuration-file")
		return 1
	}
	t, services, err := open(ctx, args[0], args[1])
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	err = Serve(ctx, in, out, t, services...)
	if c, ok := t.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	return 0
}
