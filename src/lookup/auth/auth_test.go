package auth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/crypt"
	"opensmtpd/src/lookup/table"
)

// hash is one of "secret", cheap.
const hash = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"

func TestTable(t *testing.T) {
	good, err := crypt.Make("sha256", "secret")
	if err != nil {
		t.Fatal(err)
	}
	users := table.NewStatic("users", conf.Map, []table.Entry{
		{Key: "bob", Value: good}, {Key: "bob@example.org", Value: "bob:" + good},
		{Key: "star", Value: "*"}, {Key: "bang", Value: "!" + good}, {Key: "clear", Value: "secret"},
		{Key: "colon", Value: "x:"}, {Key: "odd", Value: "$9$abc$def"}, {Key: "joined:secret", Value: good},
	}, "+")
	c := NewChecker()
	for _, tc := range []struct {
		user, password string
		want           bool
	}{
		{"bob", "secret", true}, {"BOB", "secret", true}, {"bob@example.org", "secret", true},
		{"bob", "Secret", false}, {"bob", "", false}, {"bob", good, false}, {"bob+tag", "secret", false},
		{"star", "*", false}, {"star", "secret", false}, {"bang", "secret", false}, {"clear", "secret", false},
		{"colon", "", false}, {"odd", "secret", false}, {"nobody", "secret", false},
		{"joined", "secret", false}, // the key of the auth service is no credential
	} {
		if got, err := c.Table(t.Context(), users, tc.user, tc.password); got != tc.want || err != nil {
			t.Errorf("%q %q: %v, %v", tc.user, tc.password, got, err)
		}
	}
}

// TestEnumeration: whoever does not exist, or has no hash, costs one comparison
// with a hash like those of others.
func TestEnumeration(t *testing.T) {
	users := table.NewStatic("users", conf.Map, []table.Entry{{Key: "bob", Value: hash}, {Key: "star", Value: "*"}}, "+")
	var done []string
	c := NewChecker()
	c.matches = func(h, password string) bool {
		done = append(done, h+" "+password)
		return true // even then nobody gets in by a decoy
	}
	for user, want := range map[string]bool{"bob": true, "star": false, "nobody": false} {
		done = nil
		ok, err := c.Table(t.Context(), users, user, "secret")
		if ok != want || err != nil || len(done) != 1 || done[0] != hash+" secret" {
			t.Errorf("%s: %v, %v, compared %q", user, ok, err, done)
		}
	}
	done = nil
	empty := table.NewStatic("none", conf.Map, nil, "+")
	if ok, _ := c.Table(t.Context(), empty, "bob", "secret"); ok || len(done) != 1 || done[0] != crypt.Decoy+" secret" {
		t.Errorf("%v, compared %q", ok, done)
	}
}

// program is a table that verifies by itself, or knows the hash of bob.
type program struct {
	table.Table
	asked []string
	err   error
	plain bool
}

func (p *program) Name() string { return "program" }

func (p *program) Lookup(_ context.Context, s table.Service, key string) (string, bool, error) {
	p.asked = append(p.asked, s.String()+" "+key)
	return hash, key == "bob", nil
}

func (p *program) Match(_ context.Context, s table.Service, key string) (bool, error) {
	if p.plain {
		return false, table.ErrService
	}
	p.asked = append(p.asked, s.String()+" "+key)
	return key == "bob:Se:cret", p.err
}

func TestProgram(t *testing.T) {
	p := &program{}
	c := NewChecker()
	if ok, err := c.Table(t.Context(), p, "bob", "Se:cret"); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := c.Table(t.Context(), p, "bob:Se", "cret"); ok || err != nil {
		t.Error("a user with a colon is somebody else:", ok, err)
	}
	if strings.Join(p.asked, ",") != "auth bob:Se:cret" {
		t.Errorf("asked %q", p.asked)
	}
	plain := &program{plain: true}
	for user, want := range map[string]bool{"bob": true, "nobody": false} {
		if ok, err := c.Table(t.Context(), plain, user, "secret"); ok != want || err != nil {
			t.Errorf("%s by his hash: %v, %v", user, ok, err)
		}
	}
	if c.seen["program"] != hash || len(plain.asked) != 2 {
		t.Errorf("strangers cost %q; asked %q", c.seen["program"], plain.asked)
	}
	p.err = errors.New("gone")
	if ok, err := c.Table(t.Context(), p, "bob", "x"); ok || err == nil {
		t.Error(ok, err)
	}
}

// TestPlaces: no more passwords are hashed at a time than there are places, and
// whoever gives up waiting leaves no trace.
func TestPlaces(t *testing.T) {
	c := NewChecker()
	var mu sync.Mutex
	running, most := 0, 0
	c.matches = func(string, string) bool {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		defer func() {
			mu.Lock()
			running--
			mu.Unlock()
		}()
		return matches(hash, "x")
	}
	var all sync.WaitGroup
	for range 20 * cap(c.places) {
		all.Go(func() {
			if _, err := c.Hash(context.Background(), hash, hash, "x"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most > cap(c.places) {
		t.Errorf("%d at once", most)
	}
	leave := make([]func(), cap(c.places))
	for i := range leave {
		var err error
		if leave[i], err = c.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := c.Hash(ctx, hash, hash, "secret"); ok || err == nil {
		t.Error("verified without a place")
	}
	for _, l := range leave {
		l()
	}
	if len(c.places) != 0 {
		t.Error("places are lost")
	}
}

// BenchmarkVerify compares what a user and nobody cost: the medians must be
// within 10 %.
func BenchmarkVerify(b *testing.B) {
	good, err := crypt.Make("bcrypt", "secret")
	if err != nil {
		b.Fatal(err)
	}
	users := table.NewStatic("users", conf.Map, []table.Entry{{Key: "bob", Value: good}}, "+")
	c := NewChecker()
	for _, who := range []string{"bob", "nobody"} {
		b.Run(who, func(b *testing.B) {
			var times []float64
			for b.Loop() {
				from := b.Elapsed()
				if ok, err := c.Table(context.Background(), users, who, "wrong"); ok || err != nil {
					b.Fatal(ok, err)
				}
				times = append(times, float64(b.Elapsed()-from))
			}
			b.ReportMetric(median(times)/1e6, "ms/median")
		})
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
