package regress

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// playDovecot answers at a socket as Dovecot does, for the user bob with the
// password "secret"; after each answer it closes.
func playDovecot(t *testing.T, path string) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(nc, "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n")
			for in := bufio.NewScanner(nc); in.Scan(); {
				f := strings.Split(in.Text(), "\t")
				if f[0] != "AUTH" {
					continue
				}
				said, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(f[len(f)-1], "resp="))
				verdict := "FAIL\t" + f[1] + "\tuser=x\n"
				if string(said) == "\x00bob\x00secret" {
					verdict = "OK\t" + f[1] + "\tuser=bob\n"
				}
				fmt.Fprint(nc, verdict)
				break
			}
			nc.Close()
		}
	}()
}

// TestDovecot: passwords are verified at the socket of Dovecot, though lookup
// could not open it itself.
func TestDovecot(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	d.Configure("listen on 127.0.0.1 port $port auth dovecot:" + d.Path("auth") +
		"\naction \"local\" maildir $box\nmatch auth for any action \"local\"\n")
	d.Start()
	if err := submitAs(t, d, "bob", "secret", "bob@example.org"); err == nil || !strings.HasPrefix(err.Error(), "421") {
		t.Errorf("without Dovecot: %v", err)
	}
	playDovecot(t, d.Path("auth"))
	for _, tc := range []struct{ user, password, err string }{
		{"bob", "secret", ""}, {"bob", "wrong", "535"}, {"bob", "secret", ""},
	} {
		err := submitAs(t, d, tc.user, tc.password, "bob@example.org")
		if (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	d.AwaitMail(2)
}
