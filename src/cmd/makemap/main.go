// Makemap makes the map files of smtpd.conf(5): makemap(8). Called as newaliases
// it is newaliases(8).
package main

import (
	"context"
	"os"
	"path/filepath"

	"opensmtpd/src/clock"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/ctl/makemap"
	"opensmtpd/src/paths"
)

func main() {
	call := &invoke.Call{
		Name:   filepath.Base(os.Args[0]),
		Args:   os.Args[1:],
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Getenv: os.Getenv,
		SetID:  paths.SetID(),
		UID:    os.Getuid(),
		Clock:  clock.NewSystem(),
	}
	run := makemap.Run
	if call.Name == "newaliases" {
		run = makemap.Newaliases
	}
	os.Exit(run(context.Background(), call))
}
