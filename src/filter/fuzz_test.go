package filter

import (
	"bytes"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/smtp/server"
)

// What a program says, whatever it is, is read or refused; no field is shifted.
func FuzzParse(f *testing.F) {
	for _, line := range []string{
		"register|ready", "register|report|smtp-in|*", "register|filter|smtp-in|data-line",
		"filter-result|7641df9771b4ed00|1ef1c203cc576e5d|proceed", "filter-result|1|2|reject|550 a|b",
		"filter-result|1|2|rewrite|<a@b>", "filter-dataline|1|2|.", "filter-dataline|1|2|", "filter-dataline|1|2|a|b",
		"report|1576146008.006099|smtp-in|7641df9771b4ed00|text|more", "report|||", "", "|", "filter-result|||",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parse(line)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(line, m.text) {
			t.Errorf("%q: the text %q is not its end", line, m.text)
		}
		switch m.kind {
		case saidRegister:
			var h hooks
			if done, err := h.register(string(m.text)); done && (err != nil || string(m.text) != "ready") {
				t.Errorf("%q ends the handshake", line)
			}
		case saidResult:
			if m.verb == "" || strings.Contains(m.verb, "|") {
				t.Errorf("%q: decision %q", line, m.verb)
			}
		case saidLine, saidReport:
		}
	})
}

// What a client says becomes one line to a program, whose fields are where they
// belong.
func FuzzTell(f *testing.F) {
	for _, text := range []string{"", "a", "pass|user", "pass|a|b", "x\r\ny", "a\x00b", "AUTH PLAIN x", "<a@b> SIZE=1", `<"a>b"@c>`, "fail|\n"} {
		for _, k := range []server.EventKind{server.LinkAuth, server.ProtocolClient, server.TxMail} {
			f.Add(uint8(k), text)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		e := server.Event{Kind: server.EventKind(kind%uint8(server.Timeout)) + 1, Text: text, Code: 250, Message: 1, Phase: server.PhaseAuth}
		if e.Kind == server.LinkConnect || e.Kind == server.LinkGreeting || e.Kind == server.LinkIdentify {
			return // they are of the session
		}
		line := appendEvent(appendHead(nil, "report", birthday, smtpIn, eventNames[e.Kind], 0x11), nil, &e)
		if bytes.IndexByte(line, '\n') != len(line)-1 || bytes.ContainsAny(line, "\r\x00") {
			t.Errorf("%+v is %q", e, line)
		}
		fields := bytes.SplitN(bytes.TrimSuffix(line, []byte{'\n'}), bar, 7)
		if len(fields) < 6 || string(fields[4]) != eventNames[e.Kind] || string(fields[5]) != "0000000000000011" {
			t.Errorf("%+v is %q", e, line)
		}
		for _, p := range []server.Phase{server.PhaseMailFrom, server.PhaseHelo} {
			if s := stripped(p, text); !strings.Contains(text, s) {
				t.Errorf("%q is stripped to %q", text, s)
			}
		}
	})
}

// FuzzProgram lets a program say anything while a session goes on: the session
// ends with an answer to everything, or at once.
func FuzzProgram(f *testing.F) {
	for _, text := range []string{
		"filter-result|SID|TOKEN|proceed", "filter-result|SID|TOKEN|reject|550 no", "filter-result|SID|TOKEN|junk\nfilter-result|SID|TOKEN|junk",
		"filter-dataline|SID|TOKEN|.", "report|1.000000|smtp-in|SID|x", "register|ready", "filter-result|SID|0|proceed", "\n", "x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := newRig(t)
		s := &script{register: []string{"register|filter|smtp-in|ehlo", "register|filter|smtp-in|data-line", "register|report|smtp-in|*"}}
		s.react = func(line string) []string {
			p := strings.SplitN(line, "|", 8)
			if p[0] != "filter" {
				return nil
			}
			say := strings.NewReplacer("SID", p[5], "TOKEN", p[6]).Replace(text)
			return append([]string{say}, well(line)...)
		}
		r.program("p", s)
		r.filter(progFilter("f", "p", conf.TempFail))
		c := r.dial()
		for i, got := range c.play(session...) {
			if got == "" {
				break
			}
			if len(got) < 4 || got[0] < '2' || got[0] > '5' {
				t.Errorf("reply %d is %q", i, got)
			}
		}
		r.close(c)
	})
}
