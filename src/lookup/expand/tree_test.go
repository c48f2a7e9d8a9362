package expand

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/ruleset"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

// world is the system around an expansion: users with their .forward, files to
// include. asked counts how often each user was looked for.
type world struct {
	uids     map[string]uint32
	forwards map[string]string
	includes map[string]string
	broken   string // a user or file that cannot be looked up now
	asked    map[string]int
	said     []string
}

var errBroken = errors.New("broken")

func (w *world) User(_ context.Context, q *msg.UserInfo) (*msg.UserInfoReply, error) {
	w.asked[q.Name]++
	if q.Name == w.broken {
		return nil, errBroken
	}
	uid, found := w.uids[q.Name]
	text, has := w.forwards[q.Name]
	return &msg.UserInfoReply{Found: found, Name: q.Name, UID: uid, HasForward: has && q.Forward, Forward: []byte(text)}, nil
}

func (w *world) Include(_ context.Context, path string) ([]byte, bool, error) {
	if path == w.broken {
		return nil, false, errBroken
	}
	text, found := w.includes[path]
	return []byte(text), found, nil
}

func (w *world) Warnf(format string, args ...any) {
	w.said = append(w.said, fmt.Sprintf(format, args...))
}
func (w *world) Tracing() bool         { return false }
func (w *world) Tracef(string, ...any) {}

// config delivers mail for "here" by the action local with these aliases, mail
// for "virt" by the table of the same entries taken as a virtual one, and relays
// the rest.
func config(t testing.TB, aliases map[string]string) *Config {
	t.Helper()
	domain := func(name string) project.Cond { return project.Cond{Set: true, Table: name} }
	p := &project.LookupConf{
		SubAddrDelim: "+",
		Matches: []project.Match{
			{Action: "local", FromKind: conf.FromAny, From: project.Cond{Set: true}, ForKind: conf.ForDomain, For: domain("here")},
			{Action: "virtual", FromKind: conf.FromAny, From: project.Cond{Set: true}, ForKind: conf.ForDomain, For: domain("virt")},
			{Action: "out", FromKind: conf.FromAny, From: project.Cond{Set: true}, ForKind: conf.ForAny, For: project.Cond{Set: true}},
		},
		Actions: []project.Action{
			{Name: "local", Method: conf.MBOX, Alias: "aliases"},
			{Name: "virtual", Method: conf.MBOX, Virtual: "aliases"},
			{Name: "out", Method: conf.Relay},
		},
	}
	var list []table.Entry
	for _, name := range slices.Sorted(maps.Keys(aliases)) {
		list = append(list, table.Entry{Key: name, Value: aliases[name]})
	}
	tables := map[string]table.Table{
		"aliases": table.NewStatic("aliases", conf.Map, list, "+"),
		"here":    table.NewStatic("here", conf.List, []table.Entry{{Key: "here"}}, "+"),
		"virt":    table.NewStatic("virt", conf.List, []table.Entry{{Key: "virt"}}, "+"),
	}
	c, err := NewConfig(p, tables, "/libexec", "_smtpd")
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

// expandTo returns the deliveries for rcpt as words, or the reply.
func expandTo(t testing.TB, c *Config, w *world, rcpt string) string {
	t.Helper()
	if w.asked = make(map[string]int); w.uids == nil {
		w.uids = map[string]uint32{"root": 0, "bob": 1000, "eve": 1001, "joe": 1002}
	}
	list, err := Expand(t.Context(), c, w, &ruleset.Subject{Rcpt: addr.Cut(rcpt)})
	if err != nil {
		return err.Reply()
	}
	var out []string
	for _, d := range list {
		out = append(out, word(d))
	}
	return strings.Join(out, " ")
}

func word(d Delivery) string {
	switch {
	case d.Type == envelope.MTA:
		return "=>" + d.Dest.String()
	case d.Exec != "":
		return d.User + "|" + d.Exec
	case d.Subaddress != "":
		return d.User + "+" + d.Subaddress
	}
	return d.User
}

const (
	listFails = "524 5.2.4 Mailing list expansion problem"
	later     = "451 4.3.0 Temporary failure"
	listLater = "424 4.2.4 Mailing list expansion problem"
	nobody    = "550 5.1.1 Invalid recipient"
)

// TestExpand holds what the values of aliases and .forward files come to.
func TestExpand(t *testing.T) {
	for _, tt := range []struct {
		name     string
		aliases  map[string]string
		forwards map[string]string
		rcpt     string
		want     string
	}{
		{"a user", nil, nil, "bob@here", "bob"},
		{"letters", nil, nil, "BOB@HERE", "bob"},
		{"nobody", nil, nil, "ghost@here", nobody},
		{"a sub-address", nil, nil, "bob+tag@here", "bob+tag"},
		{"a sub-address of an alias", map[string]string{"a": "bob", "a+x": "eve"}, nil, "a+x@here", "eve"},
		{"a sub-address that falls back", map[string]string{"a": "bob", "a+x": "eve"}, nil, "a+y@here", "bob"},
		{"each once", map[string]string{"a": "bob, b, bob", "b": "eve, bob"}, nil, "a@here", "bob eve"},
		{"one address once, in any case", map[string]string{"a": "x@There, x@there, X@there"}, nil, "a@here", "=>x@There =>X@there"},
		{"one of them is nobody", map[string]string{"a": "bob, ghost"}, nil, "a@here", nobody},
		{"one of them refuses", map[string]string{"a": "bob, error:550 5.7.1 no"}, nil, "a@here", "550 5.7.1 no"},
		{"a comment", map[string]string{"a": "bob # eve"}, nil, "a@here", "bob"},
		{"nothing", map[string]string{"bob": "# eve"}, nil, "bob@here", "bob"},
		{"himself", map[string]string{"bob": "bob, eve"}, nil, "bob@here", "bob eve"},
		{"his own address", map[string]string{"bob": "bob@here, eve"}, nil, "bob@here", "eve bob"},
		{"his own address with a sub-address", map[string]string{"bob": "bob+x@HERE"}, nil, "bob@here", "bob+x"},
		{"his own address in another domain", map[string]string{"bob": "bob@virt"}, nil, "bob@here", listFails},
		{"two in a ring", map[string]string{"a": "b", "b": "a"}, nil, "a@here", listFails},
		{"a ring with a way out", map[string]string{"a": "b, eve", "b": "a"}, nil, "a@here", "eve"},
		{"a command", map[string]string{"a": `"|x, y"`}, nil, "a@here", "_smtpd|x, y"},
		{"a virtual catch-all", map[string]string{"@virt": "bob"}, nil, "any@virt", "bob"},
		{"a virtual user before the catch-all", map[string]string{"@virt": "bob", "any": "eve"}, nil, "any@virt", "eve"},
		{"a virtual address before the user", map[string]string{"any": "bob", "any@virt": "eve"}, nil, "any@virt", "eve"},
		{"nothing virtual", map[string]string{"any@other": "bob"}, nil, "any@virt", listFails},
		{".forward", nil, map[string]string{"bob": "eve"}, "bob@here", "eve"},
		{".forward and keep", nil, map[string]string{"bob": "bob\nx@there"}, "bob@here", "bob =>x@there"},
		{".forward and keep, by his address", nil, map[string]string{"bob": "bob@here\nx@there"}, "bob@here", "=>x@there bob"},
		{".forward by an alias", map[string]string{"a": "bob"}, map[string]string{"bob": "eve"}, "a@here", "eve"},
		{".forward to an alias", map[string]string{"a": "joe"}, map[string]string{"bob": "a"}, "bob@here", "joe"},
		{"an empty .forward", nil, map[string]string{"bob": ""}, "bob@here", "bob"},
		{"two .forward in a ring", nil, map[string]string{"bob": "eve", "eve": "bob"}, "bob@here", listFails},
		{"a command runs as who wrote it", nil, map[string]string{"bob": "|prog"}, "bob@here", "bob|prog"},
		{"the same command of two", map[string]string{"a": "bob, eve"}, map[string]string{"bob": "|p", "eve": "|p"}, "a@here", "bob|p eve|p"},
		{"a broken .forward", nil, map[string]string{"bob": "a b"}, "bob@here", listLater},
		{"an include in .forward", nil, map[string]string{"bob": ":include:/list"}, "bob@here", "bob"},
		{"root may forward", nil, map[string]string{"root": "bob"}, "root@here", "bob"},
		{"root's command", nil, map[string]string{"root": "|p"}, "root@here", later},
		{"root's file", nil, map[string]string{"root": "/etc/passwd"}, "root@here", later},
		{"root's include", nil, map[string]string{"root": ":include:/list"}, "root@here", "root"},
		{"root's command behind another value", nil, map[string]string{"root": "bob, |p"}, "root@here", later},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{forwards: tt.forwards, includes: map[string]string{"/list": "eve\n"}}
			if got := expandTo(t, config(t, tt.aliases), w, tt.rcpt); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestIncludes holds what files of mailing lists come to.
func TestIncludes(t *testing.T) {
	c := config(t, map[string]string{"l": ":include:/list", "m": ":include:/none, bob", "n": ":include:/none", "o": ":include:/empty"})
	w := &world{includes: map[string]string{"/list": "bob # one\nnot a value\neve, x@there\n:include:/list\n", "/empty": ""}}
	for rcpt, want := range map[string]string{
		"l@here": "bob eve =>x@there",
		"m@here": "bob",
		"n@here": nobody,
		"o@here": listFails,
	} {
		if got := expandTo(t, c, w, rcpt); got != want {
			t.Errorf("%s: %s, want %s", rcpt, got, want)
		}
	}
	if len(w.said) != 3 {
		t.Errorf("said %q", w.said)
	}
}

// TestTroubles holds that what cannot be found out now is tried again later, and
// never taken for an answer.
func TestTroubles(t *testing.T) {
	c := config(t, map[string]string{"list": ":include:/list", "a": "eve, bob"})
	for broken, tt := range map[string]struct{ rcpt, want string }{
		"bob":   {"a@here", later},
		"/list": {"list@here", listLater},
	} {
		if got := expandTo(t, c, &world{broken: broken}, tt.rcpt); got != tt.want {
			t.Errorf("%s is broken: %s, want %s", broken, got, tt.want)
		}
	}
}

// TestDepth holds where nesting ends, by each of the ways that it comes about.
func TestDepth(t *testing.T) {
	chain := func(n int, link func(i int) (string, string)) map[string]string {
		m := make(map[string]string)
		for i := range n {
			k, v := link(i)
			m[k] = v
		}
		return m
	}
	users := func(i int) (string, string) { return fmt.Sprint("n", i), fmt.Sprint("n", i+1) }
	addresses := func(i int) (string, string) { return fmt.Sprintf("n%d@virt", i), fmt.Sprintf("n%d@virt", i+1) }
	end := func(m map[string]string, key string) map[string]string { m[key] = "bob"; return m }
	for _, tt := range []struct {
		aliases    map[string]string
		rcpt, want string
	}{
		{end(chain(7, users), "n7"), "n0@here", "bob"},
		{end(chain(8, users), "n8"), "n0@here", listFails},
		{end(chain(8, addresses), "n8@virt"), "n0@virt", "bob"},
		{end(chain(9, addresses), "n9@virt"), "n0@virt", listFails},
		{chain(100, users), "n0@here", listFails},
	} {
		if got := expandTo(t, config(t, tt.aliases), &world{}, tt.rcpt); got != tt.want {
			t.Errorf("%d deep: %s, want %s", len(tt.aliases), got, tt.want)
		}
	}
}

// TestBombs holds that an expansion made to explode is cut, and does not cost more
// than the bound allows.
func TestBombs(t *testing.T) {
	t.Run("wide", func(t *testing.T) {
		list := func(n int) string {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, "u%d@there\n", i)
			}
			return b.String()
		}
		c := config(t, map[string]string{"l": ":include:/list"})
		if got := expandTo(t, c, &world{includes: map[string]string{"/list": list(MaxNodes - 2)}}, "l@here"); strings.Count(got, "=>") != MaxNodes-2 {
			t.Errorf("%.80s", got)
		}
		if got := expandTo(t, c, &world{includes: map[string]string{"/list": list(MaxNodes)}}, "l@here"); got != listFails {
			t.Errorf("%.80s", got)
		}
	})
	t.Run("lists of lists", func(t *testing.T) {
		// Ten names in each of eight layers, all of the next below each: 10^8 ways.
		m := make(map[string]string)
		for layer := range 8 {
			var below []string
			for i := range 10 {
				below = append(below, fmt.Sprintf("l%d-%d", layer+1, i))
			}
			for i := range 10 {
				m[fmt.Sprintf("l%d-%d", layer, i)] = strings.Join(below, ",")
			}
		}
		for i := range 10 {
			m[fmt.Sprintf("l6-%d", i)] = "bob, eve"
		}
		w := &world{}
		if got := expandTo(t, config(t, m), w, "l0-0@here"); got != "bob eve" {
			t.Errorf("%.80s", got)
		}
		if w.asked["bob"] != 1 {
			t.Errorf("bob is looked for %d times", w.asked["bob"])
		}
	})
	t.Run("by sub-address", func(t *testing.T) {
		// Every name is new, so that none is known.
		m := map[string]string{"a": "a+x, a+y"}
		if got := expandTo(t, config(t, m), &world{}, "a@here"); got != nobody {
			t.Errorf("%.80s", got)
		}
	})
}

// TestBackscatterOfRoot: mail that only root would get, by a method that is not
// root's, is refused and not returned to whoever the sender seems to be.
func TestBackscatterOfRoot(t *testing.T) {
	for _, tt := range []struct {
		rcpt, want string
		change     func(*Config)
	}{
		{"root@here", nobody, nil},
		{"postmaster@here", nobody, nil},
		{"all@here", "bob root", nil},
		{"bob@here", "bob", nil},
		{"root@here", "root", func(c *Config) { c.Actions["local"].Method = conf.MBOX }},
		{"root@here", "root", func(c *Config) { c.Actions["local"].User = "bob" }},
		{"root@here", "root", func(c *Config) { c.RootLikeOthers = true }},
	} {
		c := config(t, map[string]string{"postmaster": "root", "all": "bob, root"})
		c.Actions["local"].Method = conf.Maildir
		if tt.change != nil {
			tt.change(c)
		}
		if got := expandTo(t, c, &world{}, tt.rcpt); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.rcpt, got, tt.want)
		}
	}
}

// TestModel expands made-up aliases and .forward files and holds that it ends,
// that nobody receives twice, that only users that exist receive, and that explain
// tells of the same deliveries.
func TestModel(t *testing.T) {
	names := []string{"a", "b", "c", "d", "bob", "eve", "joe", "root"}
	value := rapid.SampledFrom([]string{
		"a", "b", "c", "d", "bob", "eve", "bob+x", "a@here", "b@virt", "c@there", "|p", "/f",
		":include:/list", "error:550 no", "ghost", "root",
	})
	line := rapid.Map(rapid.SliceOfN(value, 1, 4), func(v []string) string { return strings.Join(v, ", ") })
	rapid.Check(t, func(rt *rapid.T) {
		c := config(t, rapid.MapOfN(rapid.SampledFrom(names), line, 0, 8).Draw(rt, "aliases"))
		w := &world{
			uids:     map[string]uint32{"root": 0, "bob": 1000, "eve": 1001, "joe": 1002},
			forwards: rapid.MapOfN(rapid.SampledFrom([]string{"bob", "eve", "joe", "root"}), line, 0, 4).Draw(rt, "forwards"),
			includes: map[string]string{"/list": line.Draw(rt, "list")},
			asked:    make(map[string]int),
		}
		s := &ruleset.Subject{Rcpt: addr.Cut(rapid.SampledFrom(names).Draw(rt, "rcpt") + "@" + rapid.SampledFrom([]string{"here", "virt", "there"}).Draw(rt, "domain"))}
		list, err := Expand(t.Context(), c, w, s)
		rows := Explain(t.Context(), c, w, s)
		if err != nil {
			last := rows[len(rows)-1]
			if last.Kind != "refused" || last.Text != fmt.Sprintf("%d %s %s", err.Code, err.Enhanced, err.Text) {
				rt.Fatalf("refused %v, explained %+v", err, last)
			}
			return
		}
		if len(list) == 0 {
			rt.Fatal("neither deliveries nor a reply")
		}
		seen := make(map[Delivery]bool)
		for _, d := range list {
			if seen[d] {
				rt.Fatalf("%s twice", word(d))
			}
			seen[d] = true
			if d.Type == envelope.MDA && d.Exec == "" {
				if _, known := w.uids[d.User]; !known {
					rt.Fatalf("%s receives", d.User)
				}
			}
			if d.Exec != "" && d.User == "root" {
				rt.Fatalf("root runs %s", d.Exec)
			}
		}
		told := 0
		for _, r := range rows {
			if r.Kind == "delivery" {
				told++
			}
		}
		if told != len(list) {
			rt.Fatalf("%d deliveries, %d explained", len(list), told)
		}
	})
}

// TestCauses holds that the log tells why an expansion was cut.
func TestCauses(t *testing.T) {
	deep := map[string]string{"ring": "ring2", "ring2": "ring"}
	for i := range 12 {
		deep[fmt.Sprint("n", i)] = fmt.Sprint("n", i+1)
	}
	deep["wide"] = ":include:/wide"
	w := &world{asked: make(map[string]int), includes: make(map[string]string)}
	var wide strings.Builder
	for i := range MaxNodes {
		fmt.Fprintf(&wide, "u%d@there\n", i)
	}
	w.includes["/wide"] = wide.String()
	for rcpt, want := range map[string]error{"ring@here": errLoop, "n0@here": errDeep, "wide@here": errWide} {
		_, err := Expand(t.Context(), config(t, deep), w, &ruleset.Subject{Rcpt: addr.Cut(rcpt)})
		if err == nil || !errors.Is(err.Cause, want) {
			t.Errorf("%s: %v, want %v", rcpt, err, want)
		}
	}
}

// TestCancelled holds that an expansion whose session is gone fails for now.
func TestCancelled(t *testing.T) {
	c := config(t, map[string]string{"list": ":include:/list"})
	w := &world{broken: "/list", asked: make(map[string]int)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Expand(ctx, c, w, &ruleset.Subject{Rcpt: addr.Cut("list@here")}); err == nil || err.Class != mailerr.Temp {
		t.Errorf("%v", err)
	}
}
