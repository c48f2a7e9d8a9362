package filterprog

import (
	"strings"
	"testing"
)

// A function for all events gets those that have none of their own, each once, and
// no session is kept beyond its end.
func TestReports(t *testing.T) {
	in := strings.NewReader(strings.Join([]string{
		"config|subsystem|smtp-in", "config|ready",
		"report|0.7|1576146008.006099|smtp-in|link-connect|01|mx.example.org|pass|192.0.2.1:33174|192.0.2.2:25",
		"report|0.7|1576146008.006099|smtp-in|tx-mail|01|12345678|ok|a|b@example.org",
		"report|0.7|1576146008.006099|smtp-in|link-auth|01|pass|a|b",
		"report|0.7|1576146008.006099|smtp-in|link-disconnect|01",
		"report|0.7|1576146008.006099|smtp-out|tx-data|02|12345678|ok",
		"report|0.7|1576146008.006099|smtp-out|link-disconnect|02", "",
	}, "\n"))
	var out, heard strings.Builder
	p := New(in, &out)
	hear := func(who string) func(*Session, Event) {
		return func(s *Session, e Event) {
			heard.WriteString(who + " " + s.ID + " " + e.Subsystem + " " + e.Name + " " + strings.Join(e.Params, ",") + "\n")
		}
	}
	p.OnReport("smtp-in|*", hear("all"))
	p.OnReport("smtp-in|tx-mail", hear("mail"))
	p.OnReport("smtp-out|tx-data", hear("out"))
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	const registered = "register|report|smtp-in|*\nregister|report|smtp-out|link-disconnect\nregister|report|smtp-out|tx-data\nregister|ready\n"
	if out.String() != registered {
		t.Errorf("it registers\n%s", out.String())
	}
	const want = "all 01 smtp-in link-connect mx.example.org,pass,192.0.2.1:33174,192.0.2.2:25\nmail 01 smtp-in tx-mail 12345678,ok,a|b@example.org\n" +
		"all 01 smtp-in link-auth pass,a|b\nall 01 smtp-in link-disconnect \nout 02 smtp-out tx-data 12345678,ok\n"
	if heard.String() != want {
		t.Errorf("it heard\n%s", heard.String())
	}
	if len(p.sessions) > 0 {
		t.Errorf("%d sessions are kept", len(p.sessions))
	}
}

// What an answer must not hold would be another line.
func TestAnswers(t *testing.T) {
	var out strings.Builder
	p := New(strings.NewReader("config|ready\nfilter|0.7|1.000000|smtp-in|ehlo|01|02|x\n"), &out)
	p.OnRequest("ehlo", func(r *Request) {
		for _, text := range []string{"550 a\nregister|ready", "550 a\r", "550 \x00"} {
			if err := r.Reject(text); err == nil {
				t.Errorf("%q was taken", text)
			}
		}
		if err := r.Junk(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	if want := "register|report|smtp-in|link-disconnect\nregister|filter|smtp-in|ehlo\nregister|ready\nfilter-result|01|02|junk\n"; out.String() != want {
		t.Errorf("it says\n%s", out.String())
	}
}

// Whatever smtpd says, Run returns, and every line that it says is one line.
func FuzzRun(f *testing.F) {
	for _, text := range []string{
		"report|0.7|1.000000|smtp-in|link-auth|01|pass|a|b", "report|0.7|1.000000|smtp-in|link-disconnect|01", "report|||||", "filter|||||",
		"filter|0.7|1.000000|smtp-in|data-line|01|02|.", "filter|0.7|1.000000|smtp-in|connect|01|02|name|192.0.2.1", "filter|0.7|1.0|smtp-in|ehlo|01",
		"config|ready", "", "|", "x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var out strings.Builder
		p := New(strings.NewReader("config|ready\n"+text+"\n"), &out)
		p.OnReport("smtp-in|*", func(*Session, Event) {})
		p.OnRequest("connect", func(r *Request) { r.Rewrite(r.Params[0]) })
		p.OnLine(func(_ *Session, line []byte, out func([]byte)) { out(line) })
		_ = p.Run() // what it does not understand is its end
		for line := range strings.Lines(out.String()) {
			if kind, _, ok := strings.Cut(line, "|"); !ok || kind != "register" && kind != "filter-result" && kind != "filter-dataline" {
				t.Errorf("%q makes it say %q", text, line)
			}
		}
	})
}
