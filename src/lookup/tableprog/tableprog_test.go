package tableprog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const greeting = "config|smtpd-version|7.8.0\nconfig|protocol|0.1\nconfig|tablename|devs\nconfig|ready\n"

// full does all that a program can.
type full struct{}

func (full) Lookup(_ context.Context, s Service, key string) (string, bool, error) {
	switch key {
	case "op":
		return string(s) + " of op", true, nil
	case "bad":
		return "", false, errors.New("no\ndatabase")
	case "empty":
		return "", true, nil
	case "break":
		return "a\nb", true, nil
	}
	return "", false, nil
}

func (full) Check(_ context.Context, s Service, key string) (bool, error) {
	return s == Auth && key == "joe:a|b", nil
}
func (full) Fetch(context.Context, Service) (string, bool, error) { return "192.0.2.1", true, nil }
func (full) Update(context.Context) error                         { return errors.New("no file") }

// plain does the least.
type plain struct{}

func (plain) Lookup(_ context.Context, _ Service, key string) (string, bool, error) {
	return key, key == "op", nil
}

// talk serves text and returns the answers, in the order of their ids.
func talk(t *testing.T, p Table, text string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := Serve(t.Context(), strings.NewReader(text), &out, p, Alias, Auth)
	lines := strings.SplitAfter(out.String(), "\n")
	if len(lines) > 3 {
		slices.SortFunc(lines[3:len(lines)-1], func(a, b string) int {
			return strings.Compare(strings.Split(a, "|")[1], strings.Split(b, "|")[1])
		})
	}
	return strings.Join(lines, ""), err
}

func TestServe(t *testing.T) {
	const ask = "table|0.1|1713795082.354255|devs|"
	const registered = "register|alias\nregister|auth\nregister|ready\n"
	for _, tc := range []struct {
		p         Table
		ask, want string
	}{
		{full{}, "lookup|alias|1|op", "lookup-result|1|found|alias of op\n"},
		{full{}, "lookup|alias|1|x|y", "lookup-result|1|not-found\n"},
		{full{}, "lookup|alias|1|", "lookup-result|1|not-found\n"},
		{full{}, "lookup|alias|1|bad", "lookup-result|1|error|no database\n"},
		{full{}, "lookup|alias|1|empty", "lookup-result|1|error|the value is empty\n"},
		{full{}, "lookup|alias|1|break", "lookup-result|1|error|the value has a line break in it\n"},
		{full{}, "check|auth|1|joe:a|b", "check-result|1|found\n"},
		{full{}, "check|auth|1|joe:a", "check-result|1|not-found\n"},
		{full{}, "fetch|source|1", "fetch-result|1|found|192.0.2.1\n"},
		{full{}, "update|1", "update-result|1|error|no file\n"},
		{plain{}, "update|1", "update-result|1|ok\n"},
		{plain{}, "fetch|source|1", "fetch-result|1|error|this program cannot do that\n"},
		{plain{}, "check|domain|1|op", "check-result|1|found\n"},
		{plain{}, "check|auth|1|op", "check-result|1|error|this program cannot do that\n"},
		{plain{}, "lookup|alias|1|op\n" + ask + "lookup|alias|2|x", "lookup-result|1|found|op\nlookup-result|2|not-found\n"},
	} {
		got, err := talk(t, tc.p, greeting+ask+tc.ask+"\n")
		if err != nil || got != registered+tc.want {
			t.Errorf("%s: %q, %v", tc.ask, got, err)
		}
	}
}

func TestServeRefuses(t *testing.T) {
	for _, text := range []string{
		"table|0.1|1|devs|update|1\n",
		greeting + "config|ready\n",
		greeting + "table|0.2|1|devs|update|1\n",
		greeting + "table|0.1|1|devs|delete|1\n",
		greeting + "table|0.1|1|devs|update|\n",
		greeting + "table|0.1|1|devs|fetch|source\n",
		greeting + "table|0.1|1|devs|lookup|alias|1\n",
		greeting + "\n",
		greeting + strings.Repeat("x", maxLine+1) + "\n",
	} {
		if got, err := talk(t, full{}, text); err == nil {
			t.Errorf("%.100q is taken: %q", text, got)
		}
	}
	if got, err := talk(t, full{}, ""); got != "" || err != nil {
		t.Errorf("nothing: %q, %v", got, err)
	}
}

// slow waits until its context ends.
type slow struct{ began chan struct{} }

func (s slow) Lookup(ctx context.Context, _ Service, _ string) (string, bool, error) {
	s.began <- struct{}{}
	<-ctx.Done()
	return "", false, ctx.Err()
}

// TestServeEnds holds that the end of smtpd ends what the program is at.
func TestServeEnds(t *testing.T) {
	r, w := io.Pipe()
	s := slow{make(chan struct{})}
	done := make(chan error)
	go func() { done <- Serve(context.Background(), r, io.Discard, s, Alias) }()
	_, _ = io.WriteString(w, greeting+"table|0.1|1|devs|lookup|alias|1|op\n")
	<-s.began
	w.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKeys(t *testing.T) {
	v4, v6 := Keys(NetAddr, "192.0.2.129"), Keys(AddrName, "[2001:db8::1]")
	for _, want := range []string{"192.0.2.129", "192.0.2.128/25", "192.0.0.0/16", "0.0.0.0/0"} {
		if !slices.Contains(v4, want) {
			t.Errorf("%s is not in %q", want, v4)
		}
	}
	for _, want := range []string{"[2001:db8::1]", "[2001:db8::/32]", "[::/0]"} {
		if !slices.Contains(v6, want) {
			t.Errorf("%s is not in %q", want, v6)
		}
	}
	if len(v4) != 34 || len(v6) != 130 || v4[0] != "192.0.2.129" || v6[0] != "[2001:db8::1]" {
		t.Errorf("%d and %d keys", len(v4), len(v6))
	}
	for service, key := range map[Service]string{NetAddr: "local", Domain: "192.0.2.129"} {
		if got := Keys(service, key); !slices.Equal(got, []string{key}) {
			t.Errorf("%q", got)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"table|0.1|1713795082.354255|devs|lookup|alias|b72508d|op", "table|0.1|1|devs|update|1", "table|0.1|1|devs|fetch|source|1",
		"table|0.1|1|devs|check|auth|1|a:b|c", "table|0.1|1|devs|update|1|2", "table|||||||", "config|ready",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		q, err := parseRequest(line)
		if err != nil {
			return
		}
		if q.id == "" || strings.Contains(q.id, "|") || !strings.HasSuffix(line, q.key) {
			t.Fatalf("%q is %+v", line, q)
		}
		if _, _, err := parseConfig(line); err == nil {
			t.Fatalf("%q is both", line)
		}
	})
}
