package conf_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/hcl"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/native"
	"opensmtpd/src/conf/printer"
)

// fromHCL parses text that is one file.
func fromHCL(t *testing.T, text string) *conf.Config {
	t.Helper()
	cfg, diags := hcl.Parse(func(string) ([]byte, error) { return []byte(text), nil }, "f.hcl", nil)
	if diags.HasErrors() {
		var b strings.Builder
		_ = diags.Write(&b, diag.Error)
		t.Fatalf("the printed HCL does not load:\n%s\n%s", b.String(), text)
	}
	return cfg
}

// hclLaws holds what must be true of the HCL form of every configuration.
func hclLaws(t *testing.T, cfg *conf.Config) string {
	t.Helper()
	before, err := printer.Print(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text, err := hcl.Print(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again := fromHCL(t, text)
	if d := diffHCL(cfg, again); d != "" {
		t.Errorf("the HCL is another configuration\n%s\n%s", d, text)
	}
	second, err := hcl.Print(again)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, second); d != "" {
		t.Errorf("printing is no fixed point (-first +second)\n%s", d)
	}
	after, err := printer.Print(again)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("through HCL the native form changes (-before +after)\n%s", d)
	}
	if want, got := comments(before), comments(text); want != got {
		t.Errorf("%d comments of %d are left in\n%s", got, want, text)
	}
	return text
}

// diffHCL compares configurations but for what only HCL says.
func diffHCL(a, b *conf.Config) string {
	x, y := *a, *b
	x.AnyOrder, y.AnyOrder = false, false
	return Diff(&x, &y)
}

// TestThroughHCL holds the laws for every golden file that loads.
func TestThroughHCL(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("testdata/*/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	loaded := 0
	for _, name := range append(names, more...) {
		if strings.HasPrefix(name, "testdata/hcl/") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		input, _, _ := strings.Cut(string(b), separator)
		defines := map[string]string{"given": "em0"}
		if _, diags := load.File(t.Context(), machine(files(t, input)), "smtpd.conf", defines); diags.HasErrors() {
			continue
		}
		loaded++
		t.Run(strings.TrimSuffix(strings.TrimPrefix(name, "testdata/"), ".txt"), func(t *testing.T) {
			cfg, _ := load.Parse(t.Context(), machine(files(t, input)), "smtpd.conf", defines)
			text := hclLaws(t, cfg)
			_, diags := load.File(t.Context(), anywhere("smtpd.hcl", text), "smtpd.hcl", nil)
			if diags.HasErrors() {
				t.Errorf("the HCL does not load: %v\n%s", diags.All(), text)
			}
		})
	}
	if loaded < 20 {
		t.Errorf("only %d files load", loaded)
	}
}

// TestHCLGolden loads every file in testdata/hcl, as TestGolden does those of
// smtpd.conf.
func TestHCLGolden(t *testing.T) { goldenFiles(t, "testdata/hcl/*.txt", 15, goldenHCL) }

func goldenHCL(t *testing.T, input string) string {
	t.Helper()
	all := files(t, input)
	all["smtpd.hcl"] = all["smtpd.conf"]
	delete(all, "smtpd.conf")
	defines := map[string]string{"given": "em0"}
	_, diags := load.File(t.Context(), machine(all), "smtpd.hcl", defines)
	var b strings.Builder
	if err := diags.Write(&b, diag.Note); err != nil {
		t.Fatal(err)
	}
	if diags.HasErrors() {
		return b.String()
	}
	if b.Len() > 0 {
		b.WriteString(separator)
	}
	cfg, _ := load.Parse(t.Context(), machine(all), "hcl:smtpd.hcl", defines)
	text := hclLaws(t, cfg)
	if want, got := comments(input), comments(text); want != got {
		t.Errorf("%d comments of %d are left in\n%s", got, want, text)
	}
	backAndForth(t, cfg, text)
	return b.String() + text
}

// backAndForth holds that a configuration from HCL comes back from the native
// form, in which some strings cannot be written.
func backAndForth(t *testing.T, cfg *conf.Config, text string) {
	t.Helper()
	plain, err := printer.Print(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again, diags := native.Parse(func(string) ([]byte, error) { return []byte(plain), nil }, "f", nil)
	if diags.HasErrors() {
		t.Fatalf("the native form does not load: %v\n%s", diags.All(), plain)
	}
	back, err := hcl.Print(again)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, back); d != "" {
		t.Errorf("through the native form the HCL changes (-before +after)\n%s", d)
	}
}

// hclBlocks returns the literal blocks of a section of smtpd.hcl(5).
func hclBlocks(t *testing.T, section string) []string {
	t.Helper()
	_, text, found := strings.Cut(readHCLManual(t), ".Sh "+section)
	if !found {
		t.Fatalf("the manual has no %s", section)
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	var out []string
	for _, block := range strings.Split(text, ".Bd -literal")[1:] {
		_, block, _ = strings.Cut(block, "\n")
		block, _, _ = strings.Cut(block, "\n.Ed")
		if !strings.Contains(block, "$ smtpd") {
			out = append(out, strings.NewReplacer(`\e`, `\`, `\&`, "", `\-`, "-").Replace(block)+"\n")
		}
	}
	return out
}

func readHCLManual(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../man/smtpd.hcl.5")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestHCLManualExamples loads every example of the manual: those of blocks as
// one configuration, those at the end each by itself.
func TestHCLManualExamples(t *testing.T) {
	parts := hclBlocks(t, "DESCRIPTION")
	examples := hclBlocks(t, "EXAMPLES")
	if len(parts) < 8 || len(examples) < 3 {
		t.Fatalf("%d parts, %d examples", len(parts), len(examples))
	}
	for _, text := range append(examples, strings.Join(parts, "\n")) {
		_, diags := load.File(t.Context(), anywhere("example.hcl", text), "example.hcl", nil)
		if diags.Len() > 0 {
			var b strings.Builder
			_ = diags.Write(&b, diag.Note)
			t.Errorf("%s\n%s", b.String(), text)
			continue
		}
		hclLaws(t, fromHCL(t, text))
	}
}

// TestHCLManualWords holds that every word is in the manual.
func TestHCLManualWords(t *testing.T) {
	have := make(map[string]bool)
	for _, w := range strings.FieldsFunc(readHCLManual(t), func(r rune) bool { return strings.ContainsRune(" \t\n,;.()\"{}<>!\\:[]=", r) }) {
		have[w] = true
	}
	for _, w := range hcl.Words() {
		if !have[w] {
			t.Errorf("the manual has no word of %q", w)
		}
	}
}

// TestHCLExamples holds that the shipped examples say in HCL what their
// counterparts say.
func TestHCLExamples(t *testing.T) {
	names, err := filepath.Glob(conffiles + "/examples/*.hcl")
	if err != nil || len(names) < 8 {
		t.Fatalf("found %d examples: %v", len(names), err)
	}
	native := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		l, diags := load.File(t.Context(), anywhere(name, string(b)), name, nil)
		if diags.Len() > 0 {
			t.Fatal(diags.All())
		}
		text, err := printer.Print(l.Config)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, name := range names {
		want, got := native(strings.TrimSuffix(name, ".hcl")+".conf"), native(name)
		if d := cmp.Diff(uncommented(want), uncommented(got)); d != "" {
			t.Errorf("%s (-conf +hcl)\n%s", name, d)
		}
	}
}

// uncommented returns the lines that are neither empty nor comments.
func uncommented(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		if line != "\n" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// TestHCLBounds holds that small files cannot make large values, or use up the
// stack.
func TestHCLBounds(t *testing.T) {
	var doubling strings.Builder
	doubling.WriteString("locals {\n  a0 = \"xxxxxxxxxxxxxxxx\"\n")
	for i := range 60 {
		fmt.Fprintf(&doubling, "  a%d = \"${local.a%d}${local.a%d}\"\n", i+1, i, i)
	}
	doubling.WriteString("}\n")
	many := strings.Repeat
	for what, c := range map[string]struct{ text, want string }{
		"doubling":  {doubling.String(), "larger than"},
		"brackets":  {"admd = " + many("[", 3000), "levels inside"},
		"templates": {"admd = " + many("\"${", 3000), "levels inside"},
		"blocks":    {many("a {\n", 3000), "levels inside"},
		"minus":     {"admd = " + many("-", 3000) + "1", "levels inside"},
		"asks":      {"admd = " + many("true ? 1 : ", 3000) + "1", "levels inside"},
		"calls":     {"admd = " + many("upper(", 3000), "levels inside"},
		"format":    {`admd = format("%1000000000s", "x")`, "wider than"},
	} {
		_, diags := parseHCL(c.text)
		all := diags.Of(diag.Error)
		if len(all) == 0 || !strings.Contains(all[0].Message, c.want) {
			t.Errorf("%s: got %v, want %q", what, all, c.want)
		}
	}
	deep := func(name string) ([]byte, error) { return []byte("include \"" + name + "x\" {}\n"), nil }
	if _, diags := hcl.Parse(deep, "f", nil); !diags.HasErrors() || !strings.Contains(diags.All()[0].Message, "files deep") {
		t.Errorf("endless includes: %v", diags.All())
	}
}

// BenchmarkHCLRules loads and prints 10,000 rules with inline tables.
func BenchmarkHCLRules(b *testing.B) {
	var text strings.Builder
	text.WriteString("action \"a\" {\n  mbox {}\n}\n")
	for i := range 10000 {
		fmt.Fprintf(&text, "match {\n  from   = src(\"10.0.%d.%d\")\n  for    = domain([\"d%d.example.org\"])\n  action = action.a\n}\n", i/256, i%256, i)
	}
	for b.Loop() {
		cfg, diags := parseHCL(text.String())
		if diags.HasErrors() {
			b.Fatal(diags.All()[0])
		}
		if _, err := hcl.Print(cfg); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHCLDefines holds that -D takes the place of locals, in their type.
func TestHCLDefines(t *testing.T) {
	const text = `locals {
  name = "a"
  port = 25
  on   = false
  both = "${local.name}:${local.port}"
  list = ["x"]
}
listen "em0" {
  port     = local.port
  mask-src = local.on
  tag      = local.both
  hostname = local.extra
}
match {
  for    = domain(local.list)
  reject = true
}
`
	parse := func(defines map[string]string) (*conf.Config, *diag.List) {
		return hcl.Parse(func(string) ([]byte, error) { return []byte(text), nil }, "f", defines)
	}
	cfg, diags := parse(map[string]string{"name": "b", "port": "26", "on": "true", "extra": "h.example.org"})
	if diags.HasErrors() {
		t.Fatal(diags.All())
	}
	want := conf.Listen{On: "em0", Port: "26", MaskSrc: true, Tag: "b:26", Hostname: "h.example.org"}
	if d := cmp.Diff(&want, cfg.Listens[0], cmpopts.IgnoreFields(conf.Node{}, "Pos", "At")); d != "" {
		t.Error(d)
	}
	if m := cfg.Macros[0]; m.Name != "name" || m.Value != "a" {
		t.Errorf("the printers are given %q = %q", m.Name, m.Value)
	}
	for define, value := range map[string]string{"port": "x", "on": "yes", "list": "y"} {
		_, diags := parse(map[string]string{"extra": "h", define: value})
		if all := diags.Of(diag.Error); len(all) != 1 || !strings.Contains(all[0].Message, "-D "+define) {
			t.Errorf("-D %s=%s: %v", define, value, all)
		}
	}
	if _, diags := parse(nil); !strings.Contains(diags.Of(diag.Error)[0].Message, "no local with that name: extra") {
		t.Error(diags.All())
	}
}
