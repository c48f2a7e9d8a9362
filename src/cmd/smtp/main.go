// Smtp runs one SMTP transaction against a server: smtp(1).
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/mta/send"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

const usage = "usage: smtp [-Chnv] [-a authfile] [-F from] [-H helo] [-s server] [-T params] [recipient ...]"

// defaultServer is where mail goes without -s.
const defaultServer = "smtp://localhost:25"

// run is the program: it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, help, err := order(args)
	if help {
		fmt.Fprintln(stdout, usage)
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "smtp: %v\n%s\n", err, usage)
		return 1
	}
	if !o.Try {
		if o.Message, err = io.ReadAll(stdin); err != nil {
			fmt.Fprintf(stderr, "smtp: reading the message: %v\n", err)
			return 1
		}
	}
	if o.Note != nil {
		o.Note = func(format string, args ...any) { fmt.Fprintf(stdout, format+"\n", args...) }
	}
	if err := send.Do(ctx, o); err != nil {
		fmt.Fprintf(stderr, "smtp: %v\n", err)
		return 1
	}
	return 0
}

// order reads the command line. Note of the order is set when there shall be one.
func order(args []string) (o *send.Order, help bool, err error) {
	opts, rcpts, err := invoke.Getopt(args, "a:CF:H:hns:T:v")
	if err != nil {
		return nil, false, err
	}
	o = &send.Order{Rcpts: rcpts}
	server, params, authFile, from := defaultServer, "", "", false
	for _, opt := range opts {
		switch opt.Letter {
		case 'a':
			authFile = opt.Arg
		case 'C':
			params += ",noverify"
		case 'F':
			o.From, from = strings.Trim(opt.Arg, "<>"), true
		case 'H':
			o.Helo = opt.Arg
		case 'h':
			return nil, true, nil
		case 'n':
			o.Try = true
		case 's':
			server = opt.Arg
		case 'T':
			params += "," + opt.Arg
		case 'v':
			o.Note = func(string, ...any) {}
		}
	}
	if o.Server, o.User, o.Password, err = send.ParseServer(server); err != nil {
		return nil, false, err
	}
	if o.TLS, err = send.ParseTLS(params, o.Server.Host, os.ReadFile); err != nil {
		return nil, false, err
	}
	if authFile != "" {
		if o.User, o.Password, err = credentials(authFile); err != nil {
			return nil, false, err
		}
	}
	if !o.Try && len(rcpts) == 0 {
		return nil, false, fmt.Errorf("no recipient is given")
	}
	return o, false, complete(o, from)
}

// complete fills in who we are.
func complete(o *send.Order, from bool) error {
	if o.Helo == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		o.Helo = host
	}
	if !from {
		u, err := user.Current()
		if err != nil {
			return fmt.Errorf("who sends this? %w; -F tells", err)
		}
		o.From = u.Username + "@" + o.Helo
	}
	for _, s := range append([]string{o.Helo, o.From}, o.Rcpts...) {
		if strings.ContainsAny(s, "\r\n\x00") {
			return fmt.Errorf("%q has a line end or NUL", s)
		}
	}
	return nil
}

// credentials reads user and password from the first two lines of a file.
func credentials(path string) (user, password string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	user, rest, _ := strings.Cut(string(text), "\n")
	password, _, _ = strings.Cut(rest, "\n")
	user, password = strings.TrimSuffix(user, "\r"), strings.TrimSuffix(password, "\r")
	if user == "" || password == "" {
		return "", "", fmt.Errorf("%s: the user is wanted in the first line, the password in the second", path)
	}
	return user, password, nil
}
