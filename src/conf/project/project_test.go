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

// TestProcIdentity holds that a program is another one when it is started in
// another way, and that its command cannot be told from the identity.
func TestProcIdentity(t *testing.T) {
	base := conf.Proc{Command: "prog secret"}
	seen := map[string]bool{ProcIdentity("f", &base): true}
	for _, p := range []conf.Proc{
		{Command: "prog other"}, {Command: base.Command, User: "u"}, {Command: base.Command, Group: "u"}, {Command: base.Command, Chroot: "u"},
	} {
		id := ProcIdentity("f", &p)
		if seen[id] || strings.Contains(id, "prog") {
			t.Errorf("%+v is %s", p, id)
		}
		seen[id] = true
	}
	same := base
	same.Comment = "#"
	if !seen[ProcIdentity("f", &same)] {
		t.Error("a comment makes it another")
	}
}
