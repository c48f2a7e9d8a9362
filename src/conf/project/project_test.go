package project

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/load"
)

// What a file becomes is in the golden files of package conf; here is what holds
// for every one.

// loaded has a secret of each kind, and names for what may be told to all.
func loaded() *load.Loaded {
	here := conf.Node{Pos: conf.Pos{File: "f", Line: 1, Col: 1}}
	cfg := &conf.Config{
		Tables: []*conf.Table{
			{Name: "creds", Backend: "static", Kind: conf.Map, Entries: []conf.Entry{{Key: "u", Value: "tablesecret"}}},
			{Name: "users", Backend: "static", Kind: conf.Map, Entries: []conf.Entry{{Key: "u", Value: "usersecret"}}},
		},
		PKIs:    []*conf.PKI{{Name: "p", Cert: "/cert", Key: "/keysecret", DHE: "auto"}},
		Procs:   []*conf.Proc{{Name: "f", Command: "prog commandsecret"}},
		Actions: []*conf.Action{{Name: "a", Method: conf.MDA, Command: "mda commandsecret"}, {Name: "r", Method: conf.Relay, AuthTable: "creds"}},
	}
	cfg.Server.SRSKey = conf.Text{Node: here, Value: "srssecret"}
	cfg.Server.SRSKeyBackup = conf.Text{Node: here, Value: "oldsrssecret"}
	cfg.Server.QueueEncryption = conf.Text{Node: here, Value: "queuesecret"}
	cfg.Server.Wrappers = []*conf.Wrapper{{Name: "w", Command: "wrap commandsecret"}}
	return &load.Loaded{Config: cfg, Listeners: []load.Listener{{Identity: "socket", Socket: true,
		Listen: &conf.Listen{AuthTable: "users", Auth: conf.AuthRequire, PKIs: []string{"p"}}}}}
}

func all(l *load.Loaded) map[string]Projection {
	return map[string]Projection{
		"dispatcher": Dispatcher(l), "lookup": Lookup(l), "queue": Queue(l), "control": Control(l), "crypto": Crypto(l),
	}
}

func encode(t *testing.T, p Projection) []byte {
	t.Helper()
	b, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSecrecy holds who is told what: a secret goes to its role and to no other
// (those of SRS to the one that rewrites and the one that turns back), commands go
// to none.
func TestSecrecy(t *testing.T) {
	owner := map[string]string{
		"tablesecret": "lookup", "usersecret": "lookup", "keysecret": "crypto", "commandsecret": "",
		"\"srssecret": "dispatcher lookup", "oldsrssecret": "dispatcher lookup", "queuesecret": "queue",
	}
	for role, p := range all(loaded()) {
		b := encode(t, p)
		for secret, of := range owner {
			if has := bytes.Contains(b, []byte(secret)); has != slices.Contains(strings.Fields(of), role) {
				t.Errorf("%s in the projection of %s: %v", secret, role, has)
			}
		}
	}
}

// TestDeterministic holds that one configuration always gives the same bytes, and
// that they come back.
func TestDeterministic(t *testing.T) {
	for role, p := range all(loaded()) {
		first := encode(t, p)
		for range 10 {
			if again := encode(t, all(loaded())[role]); !bytes.Equal(first, again) {
				t.Fatalf("%s:\n%s\n%s", role, first, again)
			}
		}
		if err := Decode(first, p); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}

// TestDecodeOthers holds that no role takes what is meant for another, nor what
// another build wrote.
func TestDecodeOthers(t *testing.T) {
	whole := all(loaded())
	for _, from := range slices.Sorted(maps.Keys(whole)) {
		b := encode(t, whole[from])
		for to, p := range whole {
			if err := Decode(b, p); (err == nil) != (from == to) {
				t.Errorf("%s takes that of %s: %v", to, from, err)
			}
		}
		var e envelope
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		e.Version++
		later, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(later, whole[from]); err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("%s of a later version: %v", from, err)
		}
	}
}

// TestProgramIdentity holds that a filter program is another one when it is
// started or told otherwise, and that its command cannot be told from the identity.
func TestProgramIdentity(t *testing.T) {
	identity := func(change func(*load.Loaded, *conf.Proc)) string {
		p := &conf.Proc{Name: "p", Command: "prog secret"}
		l := &load.Loaded{Config: &conf.Config{
			Procs: []*conf.Proc{p}, Filters: []*conf.Filter{{Name: "f", Kind: conf.FilterProc, Proc: p}},
			Actions: []*conf.Action{{Name: "out", Method: conf.Relay}},
		}, Listeners: []load.Listener{{Listen: &conf.Listen{}}, {Listen: &conf.Listen{}}}}
		l.Server.Name = "mx.example.org"
		change(l, p)
		return FilterPrograms(l)[0].Identity
	}
	seen := make(map[string]string)
	for what, change := range map[string]func(*load.Loaded, *conf.Proc){
		"nothing":           func(*load.Loaded, *conf.Proc) {},
		"command":           func(_ *load.Loaded, p *conf.Proc) { p.Command = "prog other" },
		"user":              func(_ *load.Loaded, p *conf.Proc) { p.User = "u" },
		"group":             func(_ *load.Loaded, p *conf.Proc) { p.Group = "u" },
		"chroot":            func(_ *load.Loaded, p *conf.Proc) { p.Chroot = "u" },
		"admd":              func(l *load.Loaded, _ *conf.Proc) { l.Server.ADMD.Value = "example.org" },
		"name":              func(l *load.Loaded, _ *conf.Proc) { l.Server.Name = "other.example.org" },
		"smtp-in":           func(l *load.Loaded, _ *conf.Proc) { l.Listeners[0].Listen.Filter = "f" },
		"smtp-out":          func(l *load.Loaded, _ *conf.Proc) { l.Actions[0].Filter = "f" },
		"smtp-in, smtp-out": func(l *load.Loaded, _ *conf.Proc) { l.Listeners[0].Listen.Filter, l.Actions[0].Filter = "f", "f" },
	} {
		id := identity(change)
		if old := seen[id]; old != "" || strings.Contains(id, "prog") {
			t.Errorf("with another %s the program is %s, as with another %s", what, id, old)
		}
		seen[id] = what
	}
	for what, change := range map[string]func(*load.Loaded, *conf.Proc){
		"nothing": func(_ *load.Loaded, p *conf.Proc) { p.Comment = "#" },
		"admd":    func(l *load.Loaded, _ *conf.Proc) { l.Server.ADMD.Value, l.Server.Name = "example.org", "other" },
		"smtp-in": func(l *load.Loaded, _ *conf.Proc) { l.Listeners[1].Listen.Filter = "f" },
	} {
		if seen[identity(change)] != what {
			t.Errorf("with another %s the program is another one for no reason", what)
		}
	}
}
