package hcl

import (
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"pgregory.net/rapid"
)

// TestLocalName holds that every macro has a local of its own, that HCL takes the
// name, and that the way back gives the macro.
func TestLocalName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[0-9A-Za-z_]{1,8}`).Draw(t, "name")
		local := localName(name)
		if !hclsyntax.ValidIdentifier(local) {
			// Underscores alone are no name in HCL, whatever is put before.
			if local != name {
				t.Fatalf("%s became %s, which is no name", name, local)
			}
			return
		}
		if got := macroName(local); got != name {
			t.Fatalf("%s is written %s and read %s", name, local, got)
		}
	})
	for local, want := range map[string]string{"_2x": "2x", "__2x": "_2x", "_x": "_x", "x2": "x2", "_": "_"} {
		if got := macroName(local); got != want {
			t.Errorf("%s is read %s, want %s", local, got, want)
		}
	}
}

// TestQuote holds that a string in quotes evaluates to itself: nothing in it is a
// template.
func TestQuote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(
			rapid.String(),
			rapid.StringOfN(rapid.RuneFrom([]rune("ab\"\\${}%~\r\n\t\u0085\u2028é")), 0, 12, -1),
		).Draw(t, "s")
		if cty.NormalizeString(s) != s {
			t.Skip("written by bytes()")
		}
		x, diags := hclsyntax.ParseExpression([]byte(quote(s)), "f", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%q is written %s: %v", s, quote(s), diags)
		}
		if v, diags := x.Value(nil); diags.HasErrors() || v.AsString() != s {
			t.Fatalf("%q is written %s, which is %#v (%v)", s, quote(s), v, diags)
		}
	})
}
