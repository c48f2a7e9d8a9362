package check

import (
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// What the checks say of files is in the golden files of package conf; here is
// what those cannot hold.

func at(line int) conf.Node { return conf.Node{Pos: conf.Pos{File: "f", Line: line, Col: 1}} }

// findings returns what is said of cfg, with the hints.
func findings(cfg *conf.Config, kinds Kinds, values Values) []string {
	diags := new(diag.List)
	Config(cfg, kinds, values, diags)
	var out []string
	for _, d := range diags.All() {
		out = append(out, d.Message+"; "+d.Hint)
	}
	return out
}

func local(name string, line int) *conf.Action {
	return &conf.Action{Node: at(line), Name: name, Method: conf.MBOX}
}

// TestNear holds that a name that is not there brings the nearest that is, and
// no name that nobody wrote.
func TestNear(t *testing.T) {
	for _, tt := range []struct{ asked, hint string }{
		{"alaises", `did you mean "aliases"?`},
		{"secret", `did you mean "secrets"?`},
		{"domains", ""},
		{"<table:9>", ""},
	} {
		a := local("a", 3)
		a.Alias = conf.TableRef(tt.asked)
		cfg := &conf.Config{
			Tables: []*conf.Table{
				{Node: at(1), Name: "aliases", Kind: conf.Map}, {Node: at(2), Name: "secrets", Kind: conf.Map},
				{Node: at(2), Name: "<table:1>", Inline: true},
			},
			Actions: []*conf.Action{a},
		}
		got := findings(cfg, nil, Values{})
		if len(got) != 1 || got[0] != "no table with that name: "+tt.asked+"; "+tt.hint {
			t.Errorf("%s: %q", tt.asked, got)
		}
	}
}

// TestOrder holds that things are declared before their use, but where the
// grammar has no order.
func TestOrder(t *testing.T) {
	cfg := &conf.Config{
		Actions: []*conf.Action{local("late", 2)},
		Matches: []*conf.Match{{Node: at(1), FromKind: conf.FromLocal, ForKind: conf.ForLocal, Action: "late"}},
	}
	got := findings(cfg, nil, Values{})
	if len(got) != 1 || !strings.Contains(got[0], "declared after its use; move it up: it is in line 2") {
		t.Errorf("%q", got)
	}
	cfg.AnyOrder = true
	if got := findings(cfg, nil, Values{}); len(got) != 0 {
		t.Errorf("in any order: %q", got)
	}
}

// TestKinds holds that the kind of a file decides for what it serves, and that a
// table of which nothing is known serves for all.
func TestKinds(t *testing.T) {
	a := local("a", 2)
	a.Alias = "t"
	cfg := &conf.Config{
		Tables:  []*conf.Table{{Node: at(1), Name: "t", Backend: "file", Config: "/t"}},
		Actions: []*conf.Action{a},
	}
	if got := findings(cfg, nil, Values{}); len(got) != 0 {
		t.Errorf("unknown: %q", got)
	}
	if got := findings(cfg, Kinds{"t": conf.Map}, Values{}); len(got) != 0 {
		t.Errorf("a mapping: %q", got)
	}
	if got := findings(cfg, Kinds{"t": conf.List}, Values{}); len(got) != 1 || !strings.Contains(got[0], "it is a list, a mapping is needed") {
		t.Errorf("a list: %q", got)
	}
}

// TestValues holds that values are judged by who looks them up.
// TestBad holds that what is reported already is not judged again.
func TestBad(t *testing.T) {
	a := local("a", 1)
	a.Bad, a.Alias = true, "nowhere"
	if got := findings(&conf.Config{Actions: []*conf.Action{a}}, nil, Values{}); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
