package conf_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/hcl"
)

func parseHCL(text string) (*conf.Config, *diag.List) {
	return hcl.Parse(only(text), "f", map[string]string{"given": "em0"})
}

// FuzzHCL holds that nothing breaks the parser, that every place lies in the
// text, and that whatever is read prints as the same configuration and as itself
// from then on.
func FuzzHCL(f *testing.F) {
	seeds(f, "testdata/hcl/*.txt")
	f.Fuzz(func(t *testing.T, text string) {
		first, diags := parseHCL(text)
		lines := strings.Count(text, "\n") + 1
		for _, d := range diags.All() {
			if d.Pos.Line > lines || d.Pos.Col > len(text)+1 {
				t.Fatalf("%v is outside the text: %s", d.Pos, d.Message)
			}
			_ = diags.Format(d)
		}
		if !diags.HasErrors() {
			printable(t, first, hcl.Print, parseHCL)
		}
	})
}

// FuzzNativeToHCL holds that what smtpd.conf says HCL says too, comments and
// names that are not UTF-8 aside.
func FuzzNativeToHCL(f *testing.F) {
	seeds(f, "testdata/*.txt")
	f.Fuzz(func(t *testing.T, text string) {
		first, diags := parseNative(text)
		if diags.HasErrors() || !known(first) {
			return
		}
		printed, err := hcl.Print(first)
		if err != nil {
			t.Fatal(err)
		}
		second, diags := hcl.Parse(only(printed), "f", nil)
		if diags.HasErrors() {
			t.Fatalf("%s\ndoes not load: %v", printed, diags.All())
		}
		first.Trailer, second.Trailer = nil, nil
		first.AnyOrder = true
		if d := cmp.Diff(first, second, cmpopts.EquateEmpty(),
			cmpopts.IgnoreFields(conf.Node{}, "At", "Doc", "Comment"),
			cmp.FilterPath(func(p cmp.Path) bool {
				s := p.String()
				return strings.HasSuffix(s, ".From.Pos") || strings.HasSuffix(s, ".For.Pos")
			}, cmp.Ignore()),
			cmp.Comparer(func(a, b conf.Pos) bool { return a.IsZero() == b.IsZero() })); d != "" {
			t.Fatalf("the HCL is another configuration\n%s\n%s", printed, d)
		}
	})
}

// known tells whether all names are plain, and whether all that is referred to
// is declared, each once: HCL knows no other references.
func known(cfg *conf.Config) bool {
	kinds := make(map[string]map[string]bool)
	good := true
	declare := func(kind, name string) {
		if kinds[kind] == nil {
			kinds[kind] = make(map[string]bool)
		}
		good = good && utf8.ValidString(name) && isASCII(name) && !kinds[kind][name]
		kinds[kind][name] = true
	}
	use := func(kind, name string) { good = good && (name == "" || kinds[kind][name]) }
	for _, t := range cfg.Tables {
		declare("table", t.Name)
		// A backend of this name is one that only a file of the same name has.
		good = good && t.Backend != ""
	}
	for _, k := range cfg.PKIs {
		declare("pki", k.Name)
		good = good && k.Cert != "" && k.Key != ""
	}
	for _, c := range cfg.CAs {
		declare("ca", c.Name)
	}
	for _, c := range cfg.Procs {
		declare("proc", c.Name)
	}
	for _, w := range cfg.Server.Wrappers {
		declare("wrapper", w.Name)
	}
	for _, a := range cfg.Actions {
		declare("action", a.Name)
	}
	for _, c := range cfg.Filters {
		declare("filter", c.Name)
	}
	for _, c := range cfg.Filters {
		for _, name := range c.Chain {
			use("filter", name)
		}
		if c.Kind == conf.FilterProc {
			use("proc", c.Proc.Name)
		}
	}
	for _, u := range conf.Uses(cfg) {
		use("table", string(*u.Ref))
	}
	for _, l := range cfg.Listens {
		use("filter", l.Filter)
		use("ca", l.CA)
		for _, name := range l.PKIs {
			use("pki", name)
		}
		good = good && isASCII(l.On)
	}
	for _, a := range cfg.Actions {
		use("filter", a.Filter)
		use("ca", a.CA)
		use("pki", a.PKI)
		use("wrapper", a.Wrapper)
	}
	for _, m := range cfg.Matches {
		use("action", m.Action)
	}
	for _, l := range cfg.Server.MTALimits {
		good = good && isASCII(l.Domain)
	}
	return good
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
