package filter

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/conf"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/pki"
	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/smtp/server"
)

var update = flag.Bool("update", false, "write the files of TestStream anew")

// TestStream holds all that a program hears of a session. A file in
// testdata/stream has the session and, behind a line "--", what a program that
// wants to hear everything is told. A line of the session is
//
//	answer PHASE TEXT   what the program says at that phase, instead of proceed
//	set starttls        of the listener; or auth, or smtps
//	-> text             the client sends that line, and waits for the reply
//	=> "text"           it sends that Go string, and waits
//	~> "text"           it sends that Go string, and does not
//	tls                 it makes a TLS handshake
//	greeting            it waits for the greeting, as otherwise before the first line
//	idle                it says nothing for too long, and waits for the reply
//	close               it closes
//
// What OpenSMTPD 7.8 tells of the same sessions differs from it as
// smtpd-filters(7) says, and in what is offered at EHLO. A NUL is written \0.
// -update writes the files again.
func TestStream(t *testing.T) {
	files, err := filepath.Glob("testdata/stream/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no sessions", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			session, want, _ := strings.Cut(string(text), "--\n")
			got := told(t, session)
			if *update {
				if err := os.WriteFile(file, []byte(session+"--\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// guarded adds passwords to memory: bob's is BOB, and carol's cannot be checked.
type guarded struct{ *memory }

func (guarded) Authenticate(_ context.Context, _ *server.Session, user, password string) (bool, *mailerr.Error) {
	if user == "carol" {
		return false, mailerr.Temporary(451, 3, 0, "Trouble", nil)
	}
	return password == strings.ToUpper(user), nil
}

// told plays a session and returns what a program hears of it.
func told(t *testing.T, session string) string {
	r := newRig(t)
	s := &script{register: everything()}
	answers := make(map[string]string)
	s.react = func(line string) []string {
		if f := strings.SplitN(line, "|", 8); f[0] == "filter" && answers[f[4]] != "" {
			return []string{answerTo(line, answers[f[4]])}
		}
		return nil
	}
	p := &player{t: t, r: r}
	for line := range strings.Lines(session) {
		line = strings.TrimSuffix(line, "\n")
		verb, arg, _ := strings.Cut(line, " ")
		if verb == "answer" {
			phase, text, _ := strings.Cut(arg, " ")
			answers[phase] = text
		}
	}
	r.program("p", s)
	r.filter(progFilter("f", "p", conf.TempFail))
	for line := range strings.Lines(session) {
		p.step(strings.TrimSuffix(line, "\n"))
	}
	if p.c == nil {
		t.Fatal("nobody has connected")
	}
	local := p.c.nc.RemoteAddr().String()
	r.close(p.c)
	s.await("link-disconnect")
	var b strings.Builder
	for _, line := range s.said() {
		line = strings.NewReplacer(local, "LOCAL", "\x00", `\0`).Replace(line)
		b.WriteString(cipher.ReplaceAllString(line, "TLSv1.3:CIPHER:BITS") + "\n")
	}
	return b.String()
}

var cipher = regexp.MustCompile(`TLSv1\.3:[A-Z0-9_-]+:\d+`)

// player does the steps of a session.
type player struct {
	t  *testing.T
	r  *rig
	ca *pkitest.Authority
	c  *client
}

func (p *player) step(line string) {
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "", "#", "answer":
	case "set":
		p.set(arg)
	case "->":
		p.client(true).ask(arg + "\r\n")
	case "=>":
		p.client(true).ask(p.unquote(arg))
	case "~>":
		fmt.Fprint(p.client(true).nc, p.unquote(arg))
	case "greeting":
		p.client(true)
	case "tls":
		nc := tls.Client(p.client(p.r.ln.TLS != nil && !p.r.ln.TLS.Immediate).nc, p.ca.Client(p.r.ln.Hostname))
		if err := nc.Handshake(); err != nil {
			p.t.Fatal(err)
		}
		p.c.nc, p.c.in = nc, bufio.NewReader(nc)
		if p.r.ln.TLS.Immediate {
			p.c.reply()
		}
	case "idle":
		p.client(true)
		p.r.clk.BlockUntil(1) // the sweep of the server
		p.r.clk.Advance(301 * time.Second)
		p.c.reply()
	case "close":
		p.client(true).nc.Close()
	default:
		p.t.Fatalf("what is %q?", line)
	}
}

// client connects at the first use; it waits for the greeting then, if asked to.
func (p *player) client(greeted bool) *client {
	if p.c == nil {
		p.c = p.r.dial()
		if greeted {
			p.c.reply()
		}
	}
	return p.c
}

// ask sends text and waits for the reply.
func (c *client) ask(text string) {
	fmt.Fprint(c.nc, text)
	c.reply()
}

func (p *player) unquote(s string) string {
	s, err := strconv.Unquote(s)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *player) set(what string) {
	ln := p.r.ln
	switch what {
	case "auth":
		ln.Auth, ln.AuthClear = server.AuthOptional, true
	case "starttls", "smtps":
		p.ca = pkitest.New(p.t)
		s := pki.Server{Chains: []*pki.Chain{p.ca.Chain(pkitest.ECDSA, ln.Hostname)}, Ask: p.ca.Sign}
		cfg, err := s.Config(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		ln.TLS = &server.TLS{Config: cfg, Immediate: what == "smtps"}
	default:
		p.t.Fatalf("what is %q?", what)
	}
}
