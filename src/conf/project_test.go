package conf_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/project"
)

func loadProject(t *testing.T) *load.Loaded {
	t.Helper()
	b, err := os.ReadFile("testdata/project/smtpd.conf")
	if err != nil {
		t.Fatal(err)
	}
	l, diags := load.File(t.Context(), machine(fstest.MapFS{"smtpd.conf": {Data: b, Mode: 0o644}}), "smtpd.conf", nil)
	if diags.HasErrors() {
		var out strings.Builder
		_ = diags.Write(&out, diag.Error)
		t.Fatal(out.String())
	}
	return l
}

func projections(l *load.Loaded) map[string]project.Projection {
	return map[string]project.Projection{
		"dispatcher": project.Dispatcher(l), "lookup": project.Lookup(l), "queue": project.Queue(l),
		"control": project.Control(l), "crypto": project.Crypto(l),
	}
}

func TestProjections(t *testing.T) {
	for role, p := range projections(loadProject(t)) {
		t.Run(role, func(t *testing.T) {
			b, err := project.Encode(p)
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, b, "", "\t"); err != nil {
				t.Fatal(err)
			}
			pretty.WriteByte('\n')
			name := "testdata/project/" + role + ".json"
			if *update {
				if err := os.WriteFile(name, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), pretty.String()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}

			back := reflect.New(reflect.TypeOf(p).Elem()).Interface().(project.Projection)
			if err := project.Decode(b, back); err != nil {
				t.Fatal(err)
			}
			again, err := project.Encode(back)
			if err != nil || !bytes.Equal(b, again) {
				t.Errorf("decoding and encoding again gives another text (%v)", err)
			}
		})
	}
}

// TestSecrets holds that a secret is in one projection alone; those of SRS are in
// two, because dispatcher rewrites and lookup turns back.
func TestSecrets(t *testing.T) {
	owner := map[string]string{
		"queuesecret": "queue", "srssecret": "dispatcher lookup", "oldsrssecret": "dispatcher lookup",
		"tablepassword": "lookup", "commandsecret": "",
		"/etc/ssl/private/mail.example.org.key": "crypto",
	}
	for role, p := range projections(loadProject(t)) {
		b, err := project.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		for secret, of := range owner {
			if has := bytes.Contains(b, []byte(secret)); has != slices.Contains(strings.Fields(of), role) {
				t.Errorf("%q in the projection of %s: %v", secret, role, has)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := project.Encode(project.Control(loadProject(t)))
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string]string{
		"empty":         "",
		"garbage":       "{",
		"another role":  strings.Replace(string(good), `"control"`, `"queue"`, 1),
		"another build": strings.Replace(string(good), `"version":1`, `"version":99`, 1),
		"unknown field": strings.Replace(string(good), `"ServerName"`, `"Nope"`, 1),
	} {
		if err := project.Decode([]byte(b), new(project.ControlConf)); err == nil {
			t.Errorf("%s: decoded", what)
		}
	}
}
