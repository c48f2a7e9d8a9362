package makemap

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/lookup/mapdb"
)

// FuzzSource holds that nothing breaks the reading of a source, that an error
// names a line of it, and that what makemap -U writes of a map makes the same map
// again, values that end in a backslash aside.
func FuzzSource(f *testing.F) {
	for _, s := range []string{
		"root: joe\n", "a 1\nB\t2\nc:\t3\n[::1/8] 4\n", "# x\n\na 1, \\\n  2\n", "list: :include:/x, error:550 no\n",
		"a", "[a", ": x", "a : b", "a #b", "\\", "a \\", "@ b\n@x c", "a: \"|x, y\" # z\n", "x y\x00z", "a 1\r\nb 2\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		for _, kind := range []mapdb.Kind{mapdb.Plain, mapdb.Aliases, mapdb.Set} {
			entries, err := parse([]byte(text), kind)
			if err != nil {
				var line int
				if _, bad := fmt.Sscanf(err.Error(), "%d: ", &line); bad != nil || line < 1 || line > lines {
					t.Fatalf("%q as %s: %v", text, kind, err)
				}
				continue
			}
			var dump bytes.Buffer
			for _, e := range entries {
				if len(e.Key) == 0 || bytes.ContainsAny(e.Key, "\n\x00") || bytes.ContainsAny(e.Value, "\n\x00") {
					t.Fatalf("%q as %s has the entry %v", text, kind, e)
				}
				if bytes.HasSuffix(e.Value, []byte(`\`)) || bytes.HasSuffix(e.Key, []byte(`\`)) {
					return
				}
				dump.WriteString(asText(e.Key, e.Value))
			}
			again, err := parse(dump.Bytes(), kind)
			if err != nil {
				t.Fatalf("%q as %s is written %q: %v", text, kind, &dump, err)
			}
			same := func(a, b mapdb.Entry) bool { return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) }
			if !slices.EqualFunc(entries, again, same) {
				t.Fatalf("%q as %s is written %q, which is %v, not %v", text, kind, &dump, again, entries)
			}
		}
	})
}
