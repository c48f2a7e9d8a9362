package filter

import (
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/smtp/server"
)

// builtinOf makes a built-in filter of words: NAME PHASE [!]CONDITION [<table>]
// DECISION TEXT.
func builtinOf(t *testing.T, text string) project.Filter {
	t.Helper()
	w := strings.Fields(text)
	f := project.Filter{Name: w[0], Kind: conf.FilterBuiltin, Phase: w[1]}
	c := project.FilterCond{Kind: strings.TrimPrefix(w[2], "!"), Not: w[2][0] == '!'}
	w = w[3:]
	if w[0] == "regex" {
		c.Regex = true
		w = w[1:]
	}
	if strings.HasPrefix(w[0], "<") {
		c.Table = strings.Trim(w[0], "<>")
		w = w[1:]
	}
	f.Conds = []project.FilterCond{c}
	f.Decide = conf.Decision{Kind: w[0], Arg: strings.Join(w[1:], " ")}
	return f
}

var session = []string{"EHLO host.example.org", "MAIL FROM:<eve@example.org> SIZE=10", "RCPT TO:<bob@example.com>", "DATA", "Subject: x\r\n\r\nhello\r\n."}

// Every phase, condition and decision, and the reply at which the session shows
// it: the number of the reply, the greeting being 0, and how it begins.
func TestBuiltin(t *testing.T) {
	tables := words{
		"names": {"domain client.example.org", "domain host.example.org", "regex client.example.org", "regex host.example.org"},
		"nets":  {"netaddr 192.0.2.7", "regex 192.0.2.7"},
		"mails": {"mailaddr eve@example.org", "mailaddr bob@example.com", "regex eve@example.org"},
		"null":  {"mailaddr @"},
		"none":  {},
	}
	for _, tc := range []struct {
		filter string
		at     int
		want   string
	}{
		{"f connect fcrdns reject 550 no", 0, "550 no"},
		{"f connect !fcrdns reject 550 no", 0, "220"},
		{"f connect rdns disconnect 421 later", 0, "421 later"},
		{"f connect rdns <names> reject 550 no", 0, "550 no"},
		{"f connect rdns regex <names> reject 550 no", 0, "550 no"},
		{"f connect !rdns <none> reject 550 no", 0, "550 no"},
		{"f connect src <nets> reject 550 no", 0, "550 no"},
		{"f connect src regex <nets> reject 550 no", 0, "550 no"},
		{"f connect !src <nets> reject 550 no", 0, "220"},
		{"f connect src <broken> reject 550 no", 0, "451 4.3.0 Temporary failure"},
		{"f ehlo helo <names> reject 550 no", 1, "550 no"},
		{"f ehlo helo regex <names> disconnect 550 no", 1, "550 no"},
		{"f helo helo <names> reject 550 no", 1, "250"},
		{"f mail-from helo <names> reject 550 no", 2, "550 no"},
		{"f mail-from mail-from <mails> reject 550 5.7.1 no", 2, "550 5.7.1 no"},
		{"f mail-from mail-from regex <mails> reject 550 no", 2, "550 no"},
		{"f mail-from mail-from <null> reject 550 no", 2, "250"},
		{"f mail-from auth reject 550 no", 2, "250"},
		{"f mail-from !auth reject 550 no", 2, "550 no"},
		{"f mail-from auth <none> reject 550 no", 2, "250"},
		{"f mail-from !auth <none> reject 550 no", 2, "550 no"},
		{"f rcpt-to rcpt-to <mails> reject 550 no", 3, "550 no"},
		{"f rcpt-to mail-from <mails> reject 550 no", 3, "550 no"},
		{"f rcpt-to rcpt-to <mails> rewrite <carl@example.com>", 3, "250"},
		{"f rcpt-to rcpt-to <mails> rewrite carl", 3, "501"},
		{"f data mail-from <mails> reject 451 later", 4, "451 later"},
		{"f data mail-from <mails> reject 421 later", 4, "421 later"},
		{"f commit src <nets> reject 550 no", 5, "550 no"},
		{"f commit src <nets> disconnect 550 no", 5, "550 no"},
		{"f commit src <nets> report seen", 5, "250"},
		{"f commit src <none> reject 550 no", 5, "250"},
	} {
		t.Run(tc.filter, func(t *testing.T) {
			r := newRig(t)
			r.tables = tables
			r.filter(builtinOf(t, tc.filter))
			c := r.dial()
			got := c.play(session[:tc.at]...)
			if !strings.HasPrefix(got[tc.at], tc.want) {
				t.Errorf("reply %d is %q, want %q", tc.at, got[tc.at], tc.want)
			}
			if strings.Contains(tc.filter, "disconnect") || strings.HasPrefix(tc.want, "421") {
				if again := c.reply(); again != "" {
					t.Errorf("the session goes on: %q", again)
				}
			}
			r.close(c)
		})
	}
}

func TestBuiltinNames(t *testing.T) {
	for _, tc := range []struct {
		name   server.Name
		filter string
		want   string
	}{
		{server.Name{}, "f connect !rdns reject 550 no", "550"},
		{server.Name{}, "f connect rdns reject 550 no", "220"},
		{server.Name{}, "f connect fcrdns reject 550 no", "220"},
		{server.Name{}, "f connect !rdns <none> reject 550 no", "550"},
		{server.Name{Temp: true}, "f connect !fcrdns reject 550 no", "550"},
		{server.Name{Host: "a.example.org"}, "f connect !fcrdns reject 550 no", "550"},
		{server.Name{Host: "192.0.2.7"}, "f connect rdns reject 550 no", "220"},
	} {
		r := newRig(t)
		r.mem.name = tc.name
		r.filter(builtinOf(t, tc.filter))
		c := r.dial()
		if got := c.play()[0]; !strings.HasPrefix(got, tc.want) {
			t.Errorf("%+v, %s: %q, want %q", tc.name, tc.filter, got, tc.want)
		}
		r.close(c)
	}
}

// In a chain the first refusal and a bypass end the matter; after a mark or a
// rewrite the next one is asked, about what was made of it.
func TestBuiltinChain(t *testing.T) {
	for _, tc := range []struct {
		name  string
		chain []string
		at    int
		want  string
		body  string
	}{
		{"bypass", []string{"a connect src <nets> bypass", "b connect src <nets> reject 550 no"}, 0, "220", ""},
		{"bypass of another phase", []string{"a connect src <nets> bypass", "b ehlo src <nets> reject 550 no"}, 1, "550 no", ""},
		{"first refusal", []string{"a connect src <nets> reject 550 first", "b connect src <nets> reject 550 second"}, 0, "550 first", ""},
		{"junk and refusal", []string{"a connect src <nets> junk", "b connect src <nets> reject 550 no"}, 0, "550 no", ""},
		{"report and refusal", []string{"a connect src <nets> report x", "b connect src <nets> reject 550 no"}, 0, "550 no", ""},
		{"rewrite and refusal", []string{"a rcpt-to src <nets> rewrite <carl@example.com>", "b rcpt-to rcpt-to <carl> reject 550 no"}, 3, "550 no", ""},
		{"junk", []string{"a rcpt-to src <nets> junk", "b rcpt-to src <none> reject 550 no"}, 5, "250", "X-Spam: Yes\nReceived: "},
		{"junk and rewrite", []string{"a mail-from src <nets> junk", "b mail-from src <nets> rewrite <x@example.org>"}, 5, "250", "X-Spam: Yes\nReceived: "},
		{"nothing", []string{"a connect src <none> reject 550 no", "b data src <none> junk"}, 5, "250", "Received: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.tables["nets"] = []string{"netaddr 192.0.2.7"}
			r.tables["carl"] = []string{"mailaddr carl@example.com"}
			var list []project.Filter
			for _, text := range tc.chain {
				list = append(list, builtinOf(t, text))
			}
			r.filter(list...)
			c := r.dial()
			if got := c.play(session[:tc.at]...); !strings.HasPrefix(got[tc.at], tc.want) {
				t.Errorf("reply %d is %q, want %q", tc.at, got[tc.at], tc.want)
			}
			r.close(c)
			if tc.body != "" && (len(r.mem.kept) != 1 || !strings.HasPrefix(r.mem.kept[0], tc.body)) {
				t.Errorf("kept %q", r.mem.kept)
			}
		})
	}
}

func TestBuiltinErrors(t *testing.T) {
	for _, text := range []string{"f nowhere src <t> junk", "f data weather <t> junk", "f data src <t> dance"} {
		f := builtinOf(t, text)
		if _, err := newBuiltin(&f); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
