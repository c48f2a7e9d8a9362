// Package smtpctl is smtpctl(8) and mailq(8): it finds the command that was
// meant, asks control, and writes the answer in OpenSMTPD's words, or as it is,
// one JSON object a line.
package smtpctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"opensmtpd/src/ctl"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/paths"
	"opensmtpd/src/version"
)

// session is one run of a command.
type session struct {
	ctx    context.Context
	call   *invoke.Call
	out    *bufio.Writer
	places paths.Set
	client *ctl.Client
	json   bool
}

// exit is the error of a command that has said what there is to say.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Run is smtpctl(8); called as mailq it is "show queue". It returns the exit
// status: 255 for a command that does not exist, 1 for one that failed.
func Run(ctx context.Context, call *invoke.Call) int {
	opts, args, err := invoke.Getopt(call.Args, "jS:")
	if err != nil {
		call.Errorf("%v", err)
		usage(call)
		return invoke.UsageCtl
	}
	s := &session{ctx: ctx, call: call, out: bufio.NewWriter(call.Stdout)}
	dir := ""
	for _, o := range opts {
		switch o.Letter {
		case 'j':
			s.json = true
		case 'S':
			dir = o.Arg
		}
	}
	places, err := call.Places(dir)
	if err != nil {
		call.Errorf("%v", err)
		return invoke.Failure
	}
	s.places = places
	if call.Name == "mailq" {
		args = []string{"show", "queue"}
	}
	c, params, possible := find(commands(), args)
	if c == nil {
		complain(call, possible)
		return invoke.UsageCtl
	}
	if c.fixed != nil {
		params = c.fixed
	}
	return s.run(c, params)
}

func usage(call *invoke.Call) {
	if call.Name == "mailq" {
		fmt.Fprintf(call.Stderr, "usage: mailq [-j] [-S dir]\n")
		return
	}
	fmt.Fprintf(call.Stderr, "usage: %s [-j] [-S dir] command [argument ...]\n", call.Name)
}

func complain(call *invoke.Call, possible []string) {
	if len(possible) == 0 {
		fmt.Fprintln(call.Stderr, "invalid command")
		return
	}
	fmt.Fprintln(call.Stderr, "possibilities are:")
	for _, p := range possible {
		fmt.Fprintln(call.Stderr, p)
	}
}

func (s *session) run(c *command, params []string) int {
	err := c.run(s, c, params)
	if s.client != nil {
		s.client.Close()
	}
	if ferr := s.out.Flush(); err == nil {
		err = ferr
	}
	var status exit
	switch {
	case err == nil:
		return invoke.OK
	case errors.As(err, &status):
		return int(status)
	}
	s.call.Errorf("%v", err)
	return invoke.Failure
}

// ask sends the request of a command and waits for the end of its answer.
func (s *session) ask(c *command, params []string, a ctl.Answer) (uint32, error) {
	if s.client == nil {
		client, err := ctl.Dial(s.ctx, s.places.Socket, version.Build)
		if err != nil {
			return 0, err
		}
		s.client = client
	}
	return s.client.Do(ctl.Request{Verb: c.verb, Args: params}, a)
}

// jsonLine writes a row as it came.
func (s *session) jsonLine(row []byte) error {
	s.out.Write(row)
	return s.out.WriteByte('\n')
}

// jsonValue writes a row of our own.
func (s *session) jsonValue(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.jsonLine(b)
}

// rowOf makes the function for rows of type T out of one that prints a T; with
// -j rows go through unread.
func rowOf[T any](s *session, print func(*T) error) func([]byte) error {
	if s.json {
		return s.jsonLine
	}
	return func(b []byte) error {
		row := new(T)
		if err := json.Unmarshal(b, row); err != nil {
			return fmt.Errorf("answer of smtpd: %w", err)
		}
		return print(row)
	}
}
