package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"opensmtpd/src/clock"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/role/ca"
	"opensmtpd/src/role/control"
	"opensmtpd/src/role/dispatcher"
	"opensmtpd/src/role/lka"
	"opensmtpd/src/role/parent"
	"opensmtpd/src/role/queue"
)

// reexecuted is a process that smtpd itself has started.
func reexecuted(ctx context.Context, stderr io.Writer) int {
	b, err := proc.Born()
	switch {
	case errors.Is(err, proc.ErrOtherBuild):
		return proc.ExitTempFail
	case err != nil:
		fmt.Fprintf(stderr, "smtpd: %v\n", err)
		return proc.ExitFailure
	}
	switch role := b.Role(); role {
	case proc.Parent:
		return beParent(ctx, b, stderr)
	case proc.Agent:
		return beAgent(ctx, b, stderr)
	default:
		construct, ok := roles()[role]
		if !ok {
			fmt.Fprintf(stderr, "smtpd: unknown role %q\n", role)
			return proc.ExitFailure
		}
		return b.Run(construct, clock.NewSystem(), stderr)
	}
}

// roles are the programs of the processes below parent.
func roles() map[proc.Role]proc.Constructor {
	return map[proc.Role]proc.Constructor{
		proc.Dispatcher: func(e proc.Env) (proc.Program, error) { return dispatcher.New(e) },
		proc.Lookup:     func(e proc.Env) (proc.Program, error) { return lka.New(e) },
		proc.Queue:      func(e proc.Env) (proc.Program, error) { return queue.New(e, queue.Options{}) },
		proc.Control:    func(e proc.Env) (proc.Program, error) { return control.New(e) },
		proc.Crypto:     func(e proc.Env) (proc.Program, error) { return ca.New(e) },
	}
}

func beParent(ctx context.Context, b *proc.Birth, stderr io.Writer) int {
	var c parentConfig
	err := json.Unmarshal(b.Hello.Config, &c)
	b.Close()
	if err != nil {
		fmt.Fprintf(stderr, "smtpd: %v\n", err)
		return proc.ExitFailure
	}
	if !c.Detach {
		return parent.Run(ctx, c.Options, stderr, func() {})
	}
	status := proc.PassedFile(0)
	defer status.Close()
	return parent.Run(ctx, c.Options, stderr, func() { detach(status) })
}

// detach lets go of the terminal, and tells who waits there that we serve.
func detach(status *os.File) {
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			_ = proc.Redirect(null, fd) // without it a descriptor stays open, no more
		}
		null.Close()
	}
	_, _ = status.Write([]byte{readyByte}) // who started us may have gone
	status.Close()
}

// beAgent delivers mail as the user who we are. Signals that a service manager
// sends to every process are not for agents; commands get them as usual.
func beAgent(ctx context.Context, b *proc.Birth, stderr io.Writer) int {
	withQueue := len(b.Hello.Config) == 1 && b.Hello.Config[0] == parent.AgentWithQueue
	b.Close()
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(caught)
	link, err := proc.Passed(0)
	var toQueue *os.File
	if err == nil && withQueue {
		toQueue, err = proc.Passed(1)
	}
	if err == nil {
		err = mda.Serve(ctx, link, toQueue)
	}
	if err != nil {
		fmt.Fprintf(stderr, "smtpd: agent: %v\n", err)
		return proc.ExitFailure
	}
	return proc.ExitOK
}
