package parent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/crypt"
	"opensmtpd/src/lookup/auth"
)

// TestAccounts: who may prove who he is by his system password, and who may not
// though he know it. The password of all is "secret".
func TestAccounts(t *testing.T) {
	hash, err := crypt.Make("sha256", "secret")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC) // day 20516
	shadow := strings.ReplaceAll(`root:*:20000:0:99999:7:::
# comment:HASH
daemon:*:20000:0:99999:7:::

bob:HASH:20000:0:99999:7:::
bob:$1$x$y:20000:0:99999:7:::
short:HASH
locked:!HASH:20000:0:99999:7:::
disabled:!:20000:0:99999:7:::
nopass::20000:0:99999:7:::
clear:secret:20000:0:99999:7:::
today:HASH:20000:0:99999:7::20516:
tomorrow:HASH:20000:0:99999:7::20517:
mustchange:HASH:0:0:99999:7:::
old:HASH:20000:0:90:7:::
fresh:HASH:20500:0:90:7:::
damaged:HASH:x:y:z:7::w:
crlf:HASH:20000:0:99999:7:::`+"\r\n", "HASH", hash)
	master := strings.ReplaceAll(`bob:HASH:1000:1000::0:0:Bob:/home/bob:/bin/sh
locked:*HASH:1001:1001::0:0:Locked:/home/locked:/bin/sh
expired:HASH:1002:1002::0:1772625600:X:/home/x:/bin/sh
later:HASH:1002:1002::1772625601:1772625601:X:/home/x:/bin/sh
mustchange:HASH:1002:1002::1:0:X:/home/x:/bin/sh
damaged:HASH:1002:1002::0:never:X:/home/x:/bin/sh
passwd:HASH:1003:1003:X:/home/x:/bin/sh
`, "HASH", hash)
	for _, tc := range []struct {
		text  string
		parse func([]string, time.Time) account
		good  string
		bad   string
	}{
		{shadow, parseShadow, "bob short tomorrow fresh damaged crlf", "root locked disabled nopass clear today mustchange old nobody # -bob"},
		{master, parseMaster, "bob later", "locked expired mustchange damaged passwd nobody"},
	} {
		path := filepath.Join(t.TempDir(), "accounts")
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		a := &accountFile{path: path, parse: tc.parse, clock: clock.NewFake(now), checker: auth.NewChecker()}
		for user := range strings.FieldsSeq(tc.good) {
			if ok, err := a.verify(t.Context(), user, "secret"); !ok || err != nil {
				t.Errorf("%s: %v, %v", user, ok, err)
			}
			if ok, err := a.verify(t.Context(), user, "Secret"); ok || err != nil {
				t.Errorf("%s with a wrong password: %v, %v", user, ok, err)
			}
		}
		for user := range strings.FieldsSeq(tc.bad) {
			for _, password := range []string{"secret", "!", "*", ""} {
				if ok, err := a.verify(t.Context(), user, password); ok || err != nil {
					t.Errorf("%s with %q: %v, %v", user, password, ok, err)
				}
			}
		}
		if _, decoy, err := a.find("nobody"); decoy != hash || err != nil {
			t.Errorf("strangers cost %q, %v", decoy, err)
		}
	}
	gone := &accountFile{path: filepath.Join(t.TempDir(), "none"), parse: parseShadow, clock: clock.NewFake(now), checker: auth.NewChecker()}
	if ok, err := gone.verify(t.Context(), "bob", "secret"); ok || err == nil {
		t.Error("no file, no trouble")
	}
}
