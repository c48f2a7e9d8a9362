package regress

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// TestStalled shows that mail flows while 200 clients stand still in each state of
// a session, holding on to all that they can (CVE-2013-2125). TestTLSStalled does
// so for handshakes; that such sessions end is in the dialogues of package server
// that have timeout in their names.
func TestStalled(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, `table users { bob = "*" }
listen on 127.0.0.1 port $port auth-optional <users>
listen on socket
action "local" maildir $box
match for local action "local"
`).Start()
	to := "<" + me(t) + "@localhost>"
	const each = 200
	states := map[string]string{
		"silent":         "",
		"half a command": "EHLO x\r\nMAIL FRO",
		"in AUTH":        "EHLO x\r\nAUTH LOGIN\r\n",
		"with envelopes": "EHLO x\r\nMAIL FROM:<>\r\n" + strings.Repeat("RCPT TO:"+to+"\r\n", 10),
		"in DATA":        "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:" + to + "\r\nDATA\r\n",
		"in BDAT":        "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:" + to + "\r\nBDAT 100000\r\nSubject: never",
	}
	for name, say := range states {
		for range each {
			nc, err := net.Dial("tcp", d.Addr)
			if err != nil {
				t.Fatal(name, err)
			}
			defer nc.Close()
			if say == "" {
				continue // it does not even read
			}
			if got := reply(t, nc); !strings.HasPrefix(got, "220 ") {
				t.Fatalf("%s: %s", name, got)
			}
			if _, err := io.WriteString(nc, say); err != nil {
				t.Fatal(name, err)
			}
		}
	}
	alive(t, d)
	d.Await("all of them to be there, and nobody else", func() bool {
		return strings.Contains(d.Ctl("show", "stats"), fmt.Sprintf("smtp.session=%d\n", each*len(states)))
	})
}
