package expand

import (
	"strings"
	"testing"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
)

// What an expansion gives is shown in the golden files of role/lka.

func TestKeys(t *testing.T) {
	for _, tc := range []struct{ in, virtual, alias string }{
		{"user+tag@dom", "user+tag@dom user@dom user+tag user @dom @", "user+tag user"},
		{"user@dom", "user@dom user @dom @", "user"},
		{"user+@dom", "user@dom user @dom @", "user+ user"},
		{"user+a+b@dom", "user+a+b@dom user@dom user+a+b user @dom @", "user+a+b user"},
		{"user+tag", "user+tag user", "user+tag user"},
		{"user", "user", "user"},
	} {
		a := addr.Cut(tc.in)
		if got := strings.Join(VirtualKeys(a, "+"), " "); got != tc.virtual {
			t.Errorf("VirtualKeys(%s) = %s, want %s", tc.in, got, tc.virtual)
		}
		if got := strings.Join(AliasKeys(a.Local, "+"), " "); got != tc.alias {
			t.Errorf("AliasKeys(%s) = %s, want %s", a.Local, got, tc.alias)
		}
	}
}

func TestReply(t *testing.T) {
	for text, want := range map[string]struct {
		class mailerr.Class
		reply string
	}{
		"550 no such user":       {mailerr.Perm, "550 no such user"},
		"421 later":              {mailerr.Temp, "421 later"},
		"550 5.7.1 not for you":  {mailerr.Perm, "550 5.7.1 not for you"},
		"451 5.7.1 wrong class":  {mailerr.Temp, "451 5.7.1 wrong class"},
		"550 5.7.1":              {mailerr.Perm, "550 5.7.1"},
		"550 5.7 short":          {mailerr.Perm, "550 5.7 short"},
		"550 5.1000.1 too large": {mailerr.Perm, "550 5.1000.1 too large"},
		"550 5.x.1 no number":    {mailerr.Perm, "550 5.x.1 no number"},
	} {
		e := reply(text)
		if e.Class != want.class || e.Reply() != want.reply {
			t.Errorf("reply(%q) = %v %q, want %v %q", text, e.Class, e.Reply(), want.class, want.reply)
		}
		enhanced := text == "550 5.7.1 not for you"
		if (e.Enhanced != mailerr.Enhanced{}) != enhanced {
			t.Errorf("reply(%q) has the enhanced code %v", text, e.Enhanced)
		}
	}
}
