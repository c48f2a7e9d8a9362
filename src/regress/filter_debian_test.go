package regress

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"opensmtpd/src/regress/daemon"
)

// foreignFilter starts a daemon whose listener has a program of Debian's as its
// filter.
func foreignFilter(t *testing.T, root, program, args string) *daemon.Daemon {
	t.Helper()
	path := filepath.Join(root, "usr/libexec/opensmtpd", program)
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", libraries(root)+" ldd "+path).CombinedOutput(); err == nil && strings.Contains(string(out), "not found") {
		t.Skipf("%s does not run here: %s", program, out)
	}
	d := daemon.New(t, daemon.Basic)
	d.Configure(fmt.Sprintf("filter f proc-exec \"/usr/bin/env %s %s %s\"\nlisten on 127.0.0.1 port $port filter f\nlisten on socket filter f\naction here maildir $box\nmatch for local action here\n",
		libraries(root), path, args))
	return d.Start("-v")
}

// libraries sets where programs find what they are linked with.
func libraries(root string) string {
	dirs, _ := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	return "LD_LIBRARY_PATH=" + strings.Join(dirs, ":")
}

const letter = "From: Eve <eve@example.org>\r\nTo: root@localhost\r\nSubject: hello\r\nDate: Wed, 4 Mar 2026 05:06:07 +0000\r\nMessage-ID: <1@example.org>\r\n\r\nhello\r\n..dot\r\n\r\nend\r\n"

// TestFilterDKIMSign: the signature of Debian's filter-dkimsign holds for the
// message that is delivered.
func TestFilterDKIMSign(t *testing.T) {
	t.Parallel()
	root := unpacked(t, "opensmtpd-filter-dkimsign", "libopensmtpd0", "libevent-2.1-7")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(root, "private.key")
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	if err := os.WriteFile(private, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	d := foreignFilter(t, root, "filter-dkimsign", "-d example.org -s mail -c relaxed/simple -k "+private)
	c := d.Dial()
	for range 3 { // in one session
		if err := c.Send("eve@example.org", []string{me(t)}, letter, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range d.AwaitMail(3) {
		signed := strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n"))
		found, err := dkim.VerifyWithOptions(signed, &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
			if name != "mail._domainkey.example.org" {
				t.Errorf("the key is looked for at %s", name)
			}
			return []string{"v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public)}, nil
		}})
		if err != nil || len(found) != 1 || found[0].Err != nil || found[0].Domain != "example.org" {
			t.Errorf("%v, %+v: %q", err, found, text)
		}
	}
}

// TestFilterRspamd: Debian's filter-rspamd asks a server, which stands in for
// rspamd, and does what that says.
func TestFilterRspamd(t *testing.T) {
	t.Parallel()
	root := unpacked(t, "opensmtpd-filter-rspamd")
	var mu sync.Mutex
	var asked []http.Header
	rspamd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		asked = append(asked, r.Header.Clone())
		mu.Unlock()
		action := "no action"
		switch {
		case strings.Contains(string(body), "dubious"):
			action = "add header"
		case strings.Contains(string(body), "rubbish"):
			action = "reject"
		}
		json.NewEncoder(w).Encode(map[string]any{"score": 7.5, "required_score": 15.0, "action": action, "symbols": map[string]any{}})
	}))
	defer rspamd.Close()
	d := foreignFilter(t, root, "filter-rspamd", "-url "+rspamd.URL)
	c := d.Dial()
	send := func(word string) error {
		return c.Send("eve@example.org", []string{me(t)}, letter+word+"\r\n", false)
	}
	for _, word := range []string{"clean", "dubious"} {
		if err := send(word); err != nil {
			t.Fatal(err)
		}
	}
	if err := send("rubbish"); err == nil || !strings.Contains(err.Error(), "550") {
		t.Errorf("what rspamd rejects: %v", err)
	}
	marked := 0
	for _, text := range d.AwaitMail(2) {
		if !strings.Contains(text, "\nhello\n.dot\n\nend\n") {
			t.Errorf("delivered %q", text)
		}
		if strings.Contains(text, "X-Spam: yes\n") && strings.Contains(text, "X-Spam-Score: 7.5 ") {
			marked++
		}
	}
	if marked != 1 {
		t.Errorf("%d messages are marked", marked)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, h := range asked {
		if h.Get("From") != "eve@example.org" || h.Get("Helo") != "client.localhost" || h.Get("Ip") != "127.0.0.1" {
			t.Errorf("rspamd was told %v", h)
		}
	}
}

// TestFilterSenderscore: Debian's filter-senderscore lets those pass of whom
// nothing is known, session after session.
func TestFilterSenderscore(t *testing.T) {
	t.Parallel()
	root := unpacked(t, "opensmtpd-filter-senderscore")
	d := foreignFilter(t, root, "filter-senderscore", "-blockBelow 10 -junkBelow 20 -scoreHeader")
	for range 3 {
		c := d.Dial()
		if err := c.Send("eve@example.org", []string{me(t)}, letter, false); err != nil {
			t.Fatal(err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	d.AwaitMail(3)
	if strings.Contains(d.Log(), "program ended") {
		t.Error("the program did not live")
	}
}
