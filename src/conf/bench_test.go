package conf_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/printer"
	"opensmtpd/src/conf/project"
)

// BenchmarkRules loads, prints and projects 10,000 rules with inline tables.
func BenchmarkRules(b *testing.B) {
	var text strings.Builder
	text.WriteString("table t { a }\naction a mbox\n")
	for i := range 10000 {
		fmt.Fprintf(&text, "match from src 10.0.%d.%d for domain { d%d.example.org } action a\n", i/256, i%256, i)
	}
	for b.Loop() {
		l, diags := load.File(b.Context(), machine(fstest.MapFS{"smtpd.conf": {Data: []byte(text.String()), Mode: 0o644}}), "smtpd.conf", nil)
		if diags.HasErrors() {
			b.Fatal(diags.All()[0])
		}
		if _, err := printer.Print(l.Config); err != nil {
			b.Fatal(err)
		}
		p, err := project.Encode(project.Lookup(l))
		if err != nil {
			b.Fatal(err)
		}
		if err := project.Decode(p, new(project.LookupConf)); err != nil {
			b.Fatal(err)
		}
	}
}
