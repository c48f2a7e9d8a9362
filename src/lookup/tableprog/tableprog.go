// Package tableprog is for people who write table programs, smtpd-tables(7): it
// speaks the protocol, and leaves to the program what is in its table.
//
// A program implements Table, and Checker, Fetcher or Updater where it can do
// more than look keys up, and calls Serve with its standard input and output.
// Requests come to it from several goroutines at a time.
package tableprog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Service says what a key is and what the value means, see table(5).
type Service string

// The services of the protocol.
const (
	Alias       Service = "alias"       // a user or an address → whom it is for
	Domain      Service = "domain"      // is the domain there
	Credentials Service = "credentials" // a user or label → user:password
	NetAddr     Service = "netaddr"     // is the address there; IPv6 comes in brackets
	UserInfo    Service = "userinfo"    // a user → uid:gid:home
	Source      Service = "source"      // fetched: addresses to send from
	MailAddr    Service = "mailaddr"    // is the mail address there
	AddrName    Service = "addrname"    // an address → a host name
	MailAddrMap Service = "mailaddrmap" // a user → addresses that he may send as
	RelayHost   Service = "relayhost"   // fetched, or a domain → relay url
	String      Service = "string"      // is the string there
	Regex       Service = "regex"       // does an expression in the table match
	Auth        Service = "auth"        // user:password, checked
)

// Table is what a program has to offer. A key is in lower case, a password apart.
// An error makes smtpd try again later.
type Table interface {
	Lookup(ctx context.Context, s Service, key string) (value string, found bool, err error)
}

// Checker is a Table that tells whether a key is there by another way than a
// lookup. The service auth needs it.
type Checker interface {
	Check(ctx context.Context, s Service, key string) (bool, error)
}

// Fetcher is a Table that gives its elements one by one, and over again.
type Fetcher interface {
	Fetch(ctx context.Context, s Service) (value string, found bool, err error)
}

// Updater is a Table that can read its configuration again.
type Updater interface {
	Update(ctx context.Context) error
}

// workers is how many requests are worked on at a time.
const workers = 32

// Serve answers what comes on in, which is smtpd's side, to out, until in ends
// or ctx does, and registers services. What is wrong with a line from smtpd ends
// it with an error.
func Serve(ctx context.Context, in io.Reader, out io.Writer, t Table, services ...Service) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{table: t, out: newWriter(out), room: make(chan struct{}, workers)}
	defer s.out.close()
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	if err := s.hello(lines, services); err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for lines.Scan() {
		q, err := parseRequest(lines.Text())
		if err != nil {
			return fmt.Errorf("%w: %.80q", err, lines.Text())
		}
		select {
		case s.room <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		work.Go(func() {
			s.out.put(s.answer(ctx, q))
			<-s.room
		})
	}
	return lines.Err()
}

// server is one run of Serve.
type server struct {
	table Table
	out   *writer
	room  chan struct{}
}

func (s *server) hello(lines *bufio.Scanner, services []Service) error {
	for lines.Scan() {
		key, _, err := parseConfig(lines.Text())
		if err != nil {
			return fmt.Errorf("%w: %.80q", err, lines.Text())
		}
		if key == "ready" {
			var b []byte
			for _, name := range append(services, "ready") {
				b = fmt.Appendf(b, "register|%s\n", name)
			}
			s.out.put(b)
			return nil
		}
	}
	return lines.Err()
}

var (
	errBreak = errors.New("the value has a line break in it")
	errEmpty = errors.New("the value is empty")
	errCan   = errors.New("this program cannot do that")
)

// answer is the line that answers a request.
func (s *server) answer(ctx context.Context, q request) []byte {
	value, found, err := s.result(ctx, q)
	b := fmt.Appendf(nil, "%s-result|%s|", q.op, q.id)
	switch {
	case err != nil:
		b = append(append(b, "error|"...), oneLine(err.Error())...)
	case q.op == opUpdate:
		b = append(b, "ok"...)
	case !found:
		b = append(b, "not-found"...)
	case q.op == opCheck:
		b = append(b, "found"...)
	default:
		b = append(append(b, "found|"...), value...)
	}
	return append(b, '\n')
}

func (s *server) result(ctx context.Context, q request) (value string, found bool, err error) {
	switch q.op {
	case opUpdate:
		if u, ok := s.table.(Updater); ok {
			err = u.Update(ctx)
		}
		return "", err == nil, err
	case opCheck:
		if c, ok := s.table.(Checker); ok {
			found, err = c.Check(ctx, q.service, q.key)
			return "", found, err
		}
		if q.service == Auth {
			return "", false, errCan
		}
		_, found, err = s.table.Lookup(ctx, q.service, q.key)
		return "", found, err
	case opLookup:
		value, found, err = s.table.Lookup(ctx, q.service, q.key)
	case opFetch:
		f, ok := s.table.(Fetcher)
		if !ok {
			return "", false, errCan
		}
		value, found, err = f.Fetch(ctx, q.service)
	}
	switch {
	case err != nil || !found:
		return "", false, err
	case value == "":
		return "", false, errEmpty
	case strings.ContainsAny(value, "\r\n\x00"):
		return "", false, errBreak
	}
	return value, true, nil
}

// oneLine makes blanks of what would end a line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}
