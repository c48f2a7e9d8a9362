package format

import (
	"errors"
	"strings"
	"testing"

	"opensmtpd/src/mail/addr"
)

var eve = Values{
	Sender: addr.Address{Local: "Bob+Tag", Domain: "Sender.example"},
	Rcpt:   addr.Address{Local: "User+T?g", Domain: "Example.org"},
	Dest:   addr.Address{Local: "eve", Domain: "example.org"},
	Name:   "eve",
	Home:   "/home/eve",
}

func TestPath(t *testing.T) {
	for _, tc := range []struct{ template, want string }{
		{"/var/mail/x", "/var/mail/x"},
		{"~/Maildir", "/home/eve/Maildir"},
		{"/a/~/b", "/a/~/b"},
		{"~eve/x", "~eve/x"},
		{"%%{sender}%", "%{sender}%"},
		{"a%b", "a%b"},
		{"%{sender}", "Bob+Tag@Sender.example"},
		{"%{sender.user}|%{sender.domain}", "Bob+Tag|Sender.example"},
		{"%{rcpt}", "User+T:g@Example.org"},
		{"%{rcpt:raw}", "User+T?g@Example.org"},
		{"%{RCPT:Raw|LowerCase}", "user+t?g@example.org"},
		{"%{dest} %{dest.user} %{dest.domain}", "eve@example.org eve example.org"},
		{"%{user.username} %{user.directory}", "eve /home/eve"},
		{"%{mbox.from}", "Bob+Tag@Sender.example"},
		{"%{rcpt:lowercase}", "user+t:g@example.org"},
		{"%{rcpt:uppercase}", "USER+T:G@EXAMPLE.ORG"},
		{"%{rcpt:strip}", "User@Example.org"},
		{"%{rcpt:lowercase|strip}", "user@example.org"},
		{"%{rcpt.user:strip}", "User"},
		{"%{dest:strip}", "eve@example.org"},
		// The examples of the manual.
		{"%{dest.domain[0]}", "e"},
		{"%{dest.domain[1]}", "x"},
		{"%{dest.domain[8:]}", "org"},
		{"%{dest.domain[-3:]}", "org"},
		{"%{dest.domain[0:6]}", "example"},
		{"%{dest.domain[0:-4]}", "example"},
		// Where OpenSMTPD fails.
		{"%{dest.domain[-1]}", "g"},
		{"%{dest.domain[:2]:uppercase}", "EXA"},
		{"%{dest.domain[:]}", "example.org"},
		{"%{dest.domain[0:99]}", "example.org"},
		{"%{dest.domain[-11:]}", "example.org"},
	} {
		got, err := Path(tc.template, &eve)
		if err != nil || got != tc.want {
			t.Errorf("Path(%q) = %q, %v, want %q", tc.template, got, err, tc.want)
		}
	}
}

func TestPathValues(t *testing.T) {
	for _, tc := range []struct{ local, template, want string }{
		{"a/b", "/v/%{dest.user}", "/v/a:b"},
		{"a/b", "/v/%{dest.user:raw}", "/v/a/b"},
		{"a b;c\\d", "/v/%{dest.user}", "/v/a:b:c:d"},
		{"!#$%&'*?`{|}~", "%{dest.user}", ":::::::::::::"},
		{"+-=_/^.@[]", "%{dest.user:raw}", "+-=_/^.@[]"},
		{"jürgen", "/v/%{dest.user}", "/v/jürgen"},
		{"j\xfcrgen\x01\x7f\u0085", "/v/%{dest.user}", "/v/j:rgen::::"},
		{"jürgen", "/v/%{dest.user[0:1]}", "/v/j:"},
		{"", "/v/%{dest.user[3]}", "/v/"},
		{"..", "../x/%{dest.user:raw}x", "../x/..x"},
		{"x", "/v/./%{dest.user}", "/v/./x"},
	} {
		v := Values{Dest: addr.Address{Local: tc.local, Domain: "x"}}
		got, err := Path(tc.template, &v)
		if err != nil || got != tc.want {
			t.Errorf("Path(%q) for %q = %q, %v, want %q", tc.template, tc.local, got, err, tc.want)
		}
	}
	for _, tc := range []struct{ local, template string }{
		{"..", "/v/%{dest.user}"},
		{".", "/v/%{dest.user}/new"},
		{"a/../../b", "/v/%{dest.user:raw}"},
		{".", "/v/.%{dest.user}/x"},
		{"a\x00b", "/v/%{dest.user:raw}"},
	} {
		v := Values{Dest: addr.Address{Local: tc.local, Domain: "x"}}
		if got, err := Path(tc.template, &v); err == nil {
			t.Errorf("Path(%q) for %q = %q, want an error", tc.template, tc.local, got)
		}
	}
}

func TestNullSender(t *testing.T) {
	for template, want := range map[string]string{
		"%{sender}": "", "%{sender.user}": "", "%{sender.domain}": "", "%{sender[0:3]}": "", "%{mbox.from}": "MAILER-DAEMON",
	} {
		if got, err := Path(template, &Values{}); err != nil || got != want {
			t.Errorf("Path(%q) = %q, %v, want %q", template, got, err, want)
		}
	}
}

func TestBad(t *testing.T) {
	for _, template := range []string{
		"%{", "%{sender", "%{}", "%{nobody}", "%{sender.x}", "%{sender[]}", "%{sender[1}", "%{sender]1[}",
		"%{sender[a]}", "%{sender[1:b]}", "%{sender[99999999999999999999]}", "%{sender[1]x}", "%{sender:}", "%{sender:rot13}",
		"%{sender:raw|}", "%{mda}", "%{sender:raw[1]}",
	} {
		if err := Check(template, false); err == nil {
			t.Errorf("Check(%q) = nil", template)
		}
		if got, err := Path(template, &eve); err == nil {
			t.Errorf("Path(%q) = %q", template, got)
		}
		if got, err := Command(template, &eve, nil); err == nil {
			t.Errorf("Command(%q) = %q", template, got.Text)
		}
	}
	if err := Check("nice %{mda}", true); err != nil {
		t.Error(err)
	}
	for _, template := range []string{"%{dest.user[3]}", "%{dest.user[3:]}", "%{dest.user[-4:]}", "%{dest.user[2:1]}", "%{dest.user[:-3]}", "%{dest.user[-4]}"} {
		if got, err := Path(template, &eve); !errors.Is(err, ErrRange) {
			t.Errorf("Path(%q) = %q, %v, want ErrRange", template, got, err)
		}
	}
}

// Of 2012: a local part of 255 bytes in every form overflowed.
func Test2012ExpansionOverflow(t *testing.T) {
	long := addr.Address{Local: strings.Repeat("l", 255), Domain: strings.Repeat("d", 255)}
	v := Values{Sender: long, Rcpt: long, Dest: long, Name: long.Local, Home: "/" + long.Local}
	for name := range names {
		if name == "mda" {
			continue
		}
		for _, suffix := range []string{"", ":raw", ":lowercase|uppercase|strip|raw", "[0:4096]", "[-200:]:lowercase", "[:-1]"} {
			template := "%{" + name + suffix + "}"
			p, err := Path("/"+template, &v)
			if err != nil {
				t.Errorf("%s: %v", template, err)
			}
			c, err := Command("x"+template, &v, nil)
			if err != nil {
				t.Errorf("%s: %v", template, err)
			}
			if len(p) < 200 || len(p) != len(c.Text) {
				t.Errorf("%s: path of %d bytes, command of %d", template, len(p), len(c.Text))
			}
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("~/%{dest.user:raw}/%{sender[0:-3]:lowercase|strip}", "a/../b`c", "x")
	f.Add("%{sender", "", "")
	f.Add("/v/%{rcpt.user}.%{rcpt.domain}", ".", "\xff\x00")
	f.Fuzz(func(t *testing.T, template, local, domain string) {
		a := addr.Address{Local: local, Domain: domain}
		v := Values{Sender: a, Rcpt: a, Dest: a, Name: "u", Home: "/h"}
		got, err := Path(template, &v)
		if err != nil {
			return
		}
		if strings.Contains(got, "\x00") {
			t.Errorf("Path(%q) = %q", template, got)
		}
		if !strings.Contains(template, ".") && dots(got) > 0 {
			t.Errorf("Path(%q) for %q = %q", template, a, got)
		}
		if Check(template, false) != nil {
			t.Errorf("Check refuses %q, Path takes it", template)
		}
	})
}
