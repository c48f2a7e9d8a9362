package dispatcher

import (
	"encoding/base64"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
)

// asks makes the listener of a rig want AUTH.
func asks(t *testing.T) func(*proc.Env) {
	return func(env *proc.Env) {
		var p project.DispatcherConf
		if err := project.Decode(env.Conf.Projection, &p); err != nil {
			t.Fatal(err)
		}
		l := &p.Listeners[0]
		l.Local, l.Auth, l.AuthTable, l.Senders = true, conf.AuthRequire, "users", "senders"
		p.SubAddrDelim = "+"
		b, err := project.Encode(&p)
		if err != nil {
			t.Fatal(err)
		}
		env.Conf.Projection = b
	}
}

func plain(user, password string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password))
}

// TestAuthenticate: lookup is asked about the listener's table, and about the
// recipients under the name of who has authenticated.
func TestAuthenticate(t *testing.T) {
	r, at := newRig(t, asks(t))
	c := dial(t, at)
	c.want("220")
	c.say("EHLO c.example.org", "250")
	c.say("MAIL FROM:<bob@example.org>", "530")
	c.say(plain("bob", "secret"), "235")
	for _, from := range []string{"root@example.org", "bob@example.net", ""} {
		c.say("MAIL FROM:<"+from+">", "550 5.7.1 Sender rejected")
	}
	c.say("MAIL FROM:<any@bob.example>", "250")
	c.say("RSET", "250")
	c.say("MAIL FROM:<bob+tag@example.org>", "250")
	c.say("RCPT TO:<a@example.net>", "250")
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if len(r.w.secrets) != 1 || r.w.secrets[0].Table != "users" || r.w.secrets[0].Gen != 1 {
		t.Errorf("asked %+v", r.w.secrets)
	}
	m := r.w.expanded[0]
	if m.Client.AuthUser != "bob" || m.Flags&envelope.Authenticated == 0 {
		t.Errorf("lookup is not told who it is: %+v", m)
	}
}

// TestNoVerdict: a table that is gone is not the client's fault, and no reason to
// let it in.
func TestNoVerdict(t *testing.T) {
	r, at := newRig(t, asks(t))
	c := dial(t, at)
	c.want("220")
	c.say("EHLO c.example.org", "250")
	c.say(plain("trouble", "secret"), "421 4.3.0")
	c.end()
	r.w.mu.Lock()
	r.w.fail = nil
	r.w.mu.Unlock()
	c = dial(t, at)
	c.want("220")
	c.say("EHLO c.example.org", "250")
	c.say(plain("carol", "secret"), "235")
	c.say("MAIL FROM:<bob@example.org>", "550") // the table has nobody of that name
}
