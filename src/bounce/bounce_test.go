package bounce

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/queue/envelope"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	date    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	created = date.Add(-5 * time.Hour)
)

const original = `Received: from client.example ([192.0.2.1])
	by mx.example.org (OpenSMTPD) with ESMTP id 01234567
From: alice@example.org
To: bob@example.net
subject: a question
message-id:
 <question.1@example.org>

Body, line one.
Zeile zwei.
`

func failed(dest, reason string, code uint8) envelope.Envelope {
	return envelope.Envelope{
		ID:     mail.EnvelopeAt(0x01234567, 0),
		Sender: addr.Cut("alice@example.org"), Rcpt: addr.Cut(dest), Dest: addr.Cut(dest),
		Created: created, LastTry: date.Add(-time.Minute), TTL: 4 * 24 * time.Hour,
		ErrorLine: reason, ESCClass: 5, ESCCode: code,
	}
}

func report(t envelope.BounceType, envs ...envelope.Envelope) *Report {
	return &Report{Type: t, ID: 0x0badcafe, Host: "mx.example.org", Date: date, Nonce: 0x1122334455667788, Envelopes: envs}
}

func with(e envelope.Envelope, f func(*envelope.Envelope)) envelope.Envelope {
	f(&e)
	return e
}

func TestGolden(t *testing.T) {
	delayed := report(envelope.BounceDelayed, failed("bob@example.net", "451 4.4.1 No answer from host", 41))
	delayed.Delay = 4 * time.Hour
	relayed := report(envelope.BounceDelivered, failed("bob@example.net", "", 0))
	relayed.Relayed = true
	for name, tc := range map[string]struct {
		r        *Report
		original string
	}{
		"failed":    {report(envelope.BounceFailed, failed("bob@example.net", "550 5.1.1 User unknown", 11)), original},
		"delayed":   {delayed, original},
		"relayed":   {relayed, original},
		"delivered": {report(envelope.BounceDelivered, failed("bob@example.net", "250 2.0.0 ok", 0)), original},
		"several": {report(envelope.BounceFailed,
			failed("bob@example.net", "", 0),
			failed("carol@example.net", `"disk quota exceeded"`, 22),
			failed("dave@example.net", "Envelope expired", 47),
			failed("erin@example.net", "600 internal trouble", 30),
			failed("frank@example.net", "552 5.2.2 "+strings.Repeat("the mailbox is much too full ", 6), 0)), original},
		"full": {report(envelope.BounceFailed, with(failed("bob@example.net", "550 no", 0), func(e *envelope.Envelope) {
			e.DSNRet = envelope.ReturnFull
			e.DSNEnvID = "QQ+2B314159"
			e.DSNORcpt = "rfc822;Bob+2Bnews@list.example"
		})), original},
		"full-8bit": {report(envelope.BounceFailed, with(failed("bob@example.net", "550 no", 0), func(e *envelope.Envelope) {
			e.DSNRet = envelope.ReturnFull
		})), strings.Replace(original, "Zeile zwei", "Grüße", 1)},
		"headers-asked": {report(envelope.BounceFailed, with(failed("bob@example.net", "550 no", 0), func(e *envelope.Envelope) {
			e.DSNRet = envelope.ReturnHeaders
		})), strings.Replace(original, "Zeile zwei", "Grüße", 1)},
		"not-ascii": {report(envelope.BounceFailed, failed("jürgen@bücher.example", "550 5.1.1 Benutzer „jürgen“ unbekannt", 11)), original},
		"global": {report(envelope.BounceFailed, with(failed("jürgen@bücher.example", "550 5.1.1 Benutzer „jürgen“ unbekannt", 11), func(e *envelope.Envelope) {
			e.Flags |= envelope.SMTPUTF8
			e.Sender = addr.Address{Local: "алиса", Domain: "пример.example"}
			e.DSNORcpt = `utf-8;j\x{FC}rgen@b\x{FC}cher.example`
		})), strings.Replace(original, "Subject: ", "Subject: Grüße ", 1)},
		"requiretls": {report(envelope.BounceFailed, with(failed("bob@example.net", "550 5.7.30 REQUIRETLS support required", 30), func(e *envelope.Envelope) {
			e.DSNRet = envelope.ReturnFull
			e.Flags |= envelope.RequireTLS
		})), original},
		"tls-optional": {report(envelope.BounceFailed, with(failed("bob@example.net", "550 no", 0), func(e *envelope.Envelope) {
			e.Flags |= envelope.TLSOptional
		})), original},
		"damaged": {report(envelope.BounceFailed, failed("bob@example.net", "550 no", 0)), ""},
		"injection": {report(envelope.BounceFailed, with(failed("bob@example.net", "550 x\r\nBcc: all@example.com\r\n\r\n--1122334455667788\r\n", 0), func(e *envelope.Envelope) {
			e.Sender = addr.Address{Local: "a>\r\nX: y", Domain: "example.org\nZ: z"}
			e.Dest = addr.Address{Local: "b\r\n\r\nX", Domain: "example.net\x00"}
			e.DSNEnvID = "id+0D+0AX-Evil:+20yes"
			e.DSNORcpt = "rfc822;x+0D+0AAction:+20delivered"
		})), "Message-ID: <a\r@b>\nSubject: x\n\n--1122334455667788\nforged\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := compose(t, tc.r, tc.original)
			parse(t, got)
			golden(t, filepath.Join("testdata", name+".golden"), got)
		})
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s:\n%s", file, got)
	}
}

func compose(t *testing.T, r *Report, original string) []byte {
	t.Helper()
	var in io.ReaderAt
	if original != "" {
		in = strings.NewReader(original)
	}
	text, err := r.Compose(in, int64(len(original)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	n, err := text.WriteTo(&b)
	if err != nil || n != int64(b.Len()) || n != text.Size() {
		t.Fatalf("WriteTo = %d, %v; %d bytes, Size %d", n, err, b.Len(), text.Size())
	}
	return b.Bytes()
}

var (
	headerFields = []string{"Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From",
		"In-Reply-To", "Message-Id", "Mime-Version", "Received", "References", "Subject", "To", "Tls-Required"}
	statusFields = []string{"Action", "Arrival-Date", "Diagnostic-Code", "Final-Recipient", "Last-Attempt-Date",
		"Original-Envelope-Id", "Original-Recipient", "Reporting-Mta", "Status", "Will-Retry-Until"}
)

// parse reads a report as a stranger's program would and checks what must hold
// whatever went in. It returns the parts.
func parse(t testing.TB, b []byte) [][]byte {
	t.Helper()
	for i, l := range bytes.Split(b, []byte("\n")) {
		if len(l) > 998 {
			t.Errorf("line %d has %d bytes", i+1, len(l))
		}
	}
	m, err := netmail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	checkFields(t, textproto.MIMEHeader(m.Header), headerFields)
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("type %q %v: %v", kind, params, err)
	}
	mr := multipart.NewReader(m.Body, params["boundary"])
	var parts [][]byte
	var kinds []string
	for {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, body)
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		kinds = append(kinds, kind)
	}
	if len(parts) < 2 || len(parts) > 3 || kinds[0] != "text/plain" || kinds[1] != "message/delivery-status" && kinds[1] != "message/global-delivery-status" {
		t.Fatalf("parts %v in\n%s", kinds, b)
	}
	checkStatus(t, parts[1])
	return parts
}

func checkStatus(t testing.TB, b []byte) {
	t.Helper()
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(b)))
	for n := 0; ; n++ {
		h, err := r.ReadMIMEHeader()
		if len(h) > 0 {
			checkFields(t, h, statusFields)
			if n > 0 && (len(h["Final-Recipient"]) != 1 || len(h["Action"]) != 1 || len(h["Status"]) != 1) {
				t.Errorf("recipient %d has %v", n, h)
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
	}
}

func checkFields(t testing.TB, h textproto.MIMEHeader, known []string) {
	t.Helper()
	for name, values := range h {
		if !slices.Contains(known, name) || len(values) != 1 {
			t.Errorf("field %s: %q", name, values)
		}
		for _, c := range []byte(strings.Join(values, "")) {
			if c < ' ' && c != '\t' || c == 0x7f {
				t.Errorf("field %s has byte %#x", name, c)
			}
		}
	}
}

func TestWanted(t *testing.T) {
	type kinds struct{ failed, delayed, delivered bool }
	for name, tc := range map[string]struct {
		change func(*envelope.Envelope)
		want   kinds
	}{
		"nothing asked": {func(*envelope.Envelope) {}, kinds{true, true, false}},
		"success":       {func(e *envelope.Envelope) { e.DSNNotify = envelope.NotifySuccess }, kinds{false, false, true}},
		"failure":       {func(e *envelope.Envelope) { e.DSNNotify = envelope.NotifyFailure }, kinds{true, false, false}},
		"delay":         {func(e *envelope.Envelope) { e.DSNNotify = envelope.NotifyDelay }, kinds{false, true, false}},
		"never":         {func(e *envelope.Envelope) { e.DSNNotify = envelope.NotifyNever }, kinds{}},
		"null sender":   {func(e *envelope.Envelope) { e.Sender = addr.Address{}; e.DSNNotify = 7 }, kinds{}},
		"bounce":        {func(e *envelope.Envelope) { e.Flags = envelope.IsBounce; e.DSNNotify = 7 }, kinds{}},
	} {
		e := failed("bob@example.net", "", 0)
		tc.change(&e)
		got := kinds{Wanted(&e, envelope.BounceFailed), Wanted(&e, envelope.BounceDelayed), Wanted(&e, envelope.BounceDelivered)}
		if got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
		if Wanted(&e, 99) {
			t.Errorf("%s: a kind that is none is wanted", name)
		}
	}
}

func TestStatusCode(t *testing.T) {
	for _, tc := range []struct {
		typ  envelope.BounceType
		code uint8
		line string
		want string
	}{
		{envelope.BounceFailed, 11, "550 5.7.1 other", "5.1.1"},
		{envelope.BounceFailed, 0, "550 5.7.1 other", "5.7.1"},
		{envelope.BounceFailed, 0, "450 4.2.1 other", "5.2.1"},
		{envelope.BounceFailed, 0, "550 5.7.123 other", "5.7.123"},
		{envelope.BounceFailed, 0, "550 5.7.1234 other", "5.0.0"},
		{envelope.BounceFailed, 0, "550 5.-1.1", "5.0.0"},
		{envelope.BounceFailed, 0, "550", "5.0.0"},
		{envelope.BounceFailed, 0, "no user", "5.0.0"},
		{envelope.BounceDelayed, 41, "", "4.4.1"},
		{envelope.BounceDelivered, 0, "250 2.6.0 ok", "2.0.0"},
	} {
		e := failed("a@b", tc.line, tc.code)
		if got := report(tc.typ, e).code(&e); got != tc.want {
			t.Errorf("%v %d %q: %s, want %s", tc.typ, tc.code, tc.line, got, tc.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds", time.Second: "1 second", 59 * time.Second: "59 seconds", time.Minute: "1 minute",
		4 * time.Hour: "4 hours", 25 * time.Hour: "1 day", 96 * time.Hour: "4 days",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
}

// A report about a large message carries 64 KiB of headers at most, or all of
// it without holding it in memory.
func TestLargeOriginal(t *testing.T) {
	head := strings.Repeat("X-Filler: "+strings.Repeat("x", 60)+"\n", 2000)
	e := failed("bob@example.net", "550 no", 0)
	parts := parse(t, compose(t, report(envelope.BounceFailed, e), head+"\nbody\n"))
	if n := len(parts[2]); n > maxHeaders || n < maxHeaders-100 {
		t.Errorf("%d bytes of headers", n)
	}
	if !bytes.HasSuffix(parts[2], []byte("xx\n")) {
		t.Error("headers end within a line")
	}
	e.DSNRet = envelope.ReturnFull
	body := strings.Repeat("line of text\n", 200_000) + "\xff\n"
	parts = parse(t, compose(t, report(envelope.BounceFailed, e), "A: b\n\n"+body))
	if got := string(parts[2]); got != "A: b\n\n"+body {
		t.Errorf("%d bytes came back of %d", len(got), len(body))
	}
}

// broken fails from some offset on.
type broken struct{ at int64 }

var errBroken = errors.New("EIO")

func (r broken) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), max(r.at-off, 0))
	for i := range p[:n] {
		p[i] = 'x'
	}
	if n < int64(len(p)) {
		return int(n), errBroken
	}
	return int(n), nil
}

func TestUnreadableOriginal(t *testing.T) {
	e := failed("bob@example.net", "550 no", 0)
	if _, err := report(envelope.BounceFailed, e).Compose(broken{10}, 1000); !errors.Is(err, errBroken) {
		t.Errorf("headers: %v", err)
	}
	e.DSNRet = envelope.ReturnFull
	if _, err := report(envelope.BounceFailed, e).Compose(broken{100_000}, 200_000); !errors.Is(err, errBroken) {
		t.Errorf("body: %v", err)
	}
	text, err := report(envelope.BounceFailed, failed("bob@example.net", "550 no", 0)).Compose(strings.NewReader("a: b\n\n"), 6)
	if err != nil {
		t.Fatal(err)
	}
	text.part = io.NewSectionReader(broken{2}, 0, 5)
	if _, err := text.WriteTo(io.Discard); !errors.Is(err, errBroken) {
		t.Errorf("while writing: %v", err)
	}
	text.part = io.NewSectionReader(strings.NewReader("ab"), 0, 5)
	if _, err := text.WriteTo(io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
}

func TestMessageID(t *testing.T) {
	for head, want := range map[string]string{
		"Message-ID: <a@b>\n":                      "<a@b>",
		"x: y\nMESSAGE-ID:\n\t<a@b>\nz: w\n":       "<a@b>",
		"Message-ID: <a@b>":                        "<a@b>",
		"Message-ID: a@b\n":                        "",
		"Message-ID: <a@b> <c@d>\n":                "",
		"Message-ID: <a\n X: y@b>\n":               "",
		"Message-ID: <" + strings.Repeat("a", 300): "",
		"":      "",
		"x\n":   "",
		"x\n y": "",
	} {
		if got := messageID([]byte(head)); got != want {
			t.Errorf("messageID(%q) = %q, want %q", head, got, want)
		}
	}
}

// CVE-2020-8794 and the header injection row of the field notes: whatever
// strangers put into an envelope, a report has the same fields and parts.
func FuzzCompose(f *testing.F) {
	f.Add("550 5.1.1 no", "alice", "example.org", "id+2B", "rfc822;b+40c", "mx.example.org", original)
	f.Add("553-\r\nsender: x\r\n\r\n--1122334455667788\r\n", "a\r\nb", "c\n\nd", "+0D+0A+0D+0A", "rfc822;+0A", "h\r\n", "\n\nMessage-ID: <x>\n")
	f.Add("\xff\xfe ü\u2028", "\"q\\", "ü.example", "+", "utf-8;\\x{41}", "", "\r\n\r\n")
	f.Fuzz(func(t *testing.T, reason, local, domain, envid, orcpt, host, original string) {
		for typ := envelope.BounceFailed; typ <= envelope.BounceDelivered; typ++ {
			e := failed("bob@example.net", reason, 0)
			e.Sender, e.Dest = addr.Address{Local: local, Domain: domain}, addr.Address{Local: domain, Domain: local}
			e.DSNEnvID, e.DSNORcpt = envid, orcpt
			r := report(typ, e, failed("carol@example.net", reason, 0))
			r.Host = host
			text, err := r.Compose(strings.NewReader(""), 0)
			if err != nil {
				t.Fatal(err)
			}
			parse(t, append(text.head, text.tail...))
			if _, err := r.Compose(strings.NewReader(original), int64(len(original))); err != nil {
				t.Fatal(err)
			}
		}
	})
}
