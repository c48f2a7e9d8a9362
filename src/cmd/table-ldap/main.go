// Command table-ldap is a table program of smtpd(8) that looks things up in an
// LDAP directory, see table-ldap(5).
package main

import (
	"context"
	"os"

	"opensmtpd/src/lookup/tableprog"
	"opensmtpd/src/lookup/tableprog/ldaptable"
)

func main() {
	os.Exit(tableprog.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, open))
}

func open(ctx context.Context, name, path string) (tableprog.Table, []tableprog.Service, error) {
	t, err := ldaptable.Open(ctx, name, path)
	if err != nil {
		return nil, nil, err
	}
	return t, t.Services(), nil
}
