package format

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/mail/addr"
)

func TestCommand(t *testing.T) {
	hostile := eve
	hostile.Sender = addr.Address{Local: "`id`", Domain: "x"}
	for _, tc := range []struct {
		template, want string
		vars           []string
	}{
		{"prog -f %{sender} -d %{user.username}", "prog -f :id:@x -d eve", nil},
		{`prog %{sender:raw}`, `prog "${SMTPD_1}"`, []string{"SMTPD_1=`id`@x"}},
		{`prog "%{sender:raw}"`, `prog "${SMTPD_1}"`, []string{"SMTPD_1=`id`@x"}},
		{`prog '%{sender:raw}'`, `prog ''"${SMTPD_1}"''`, []string{"SMTPD_1=`id`@x"}},
		{`prog --from=%{sender.user:raw}@%{rcpt.user:raw}`, `prog --from="${SMTPD_1}"@"${SMTPD_2}"`, []string{"SMTPD_1=`id`", "SMTPD_2=User+T?g"}},
		// Where somebody evaluates again.
		{`sh -c "prog %{sender:raw}"`, `sh -c "prog :id:@x"`, nil},
		{`sh -c 'prog %{sender:raw}'`, `sh -c 'prog :id:@x'`, nil},
		{`sh -c prog\ %{sender:raw}`, `sh -c prog\ :id:@x`, nil},
		{`rspamc --exec="deliver -f "%{sender:raw} x`, `rspamc --exec="deliver -f ":id:@x x`, nil},
		{`eval prog %{sender:raw}`, `eval prog :id:@x`, nil},
		{"prog $(echo %{sender:raw})", "prog $(echo :id:@x)", nil},
		{"prog `echo %{sender:raw}`", "prog `echo :id:@x`", nil},
		{"prog ${X:-%{sender:raw}}", "prog ${X:-:id:@x}", nil},
		{"prog <<E\n%{sender:raw}\nE", "prog <<E\n:id:@x\nE", nil},
		{"prog # %{sender:raw}", "prog # :id:@x", nil},
		{`prog \%{sender:raw}`, `prog \:id:@x`, nil},
		{`sh -c "prog $SENDER ${LOCAL}"`, `sh -c "prog :id:@x User+T:g"`, nil},
		{`sh -c prog\ $SENDER`, `sh -c prog\ :id:@x`, nil},
		{`eval prog "$SENDER"`, `eval prog ":id:@x"`, nil},
		// Where nobody does, or evaluates what he himself replaces.
		{`prog $SENDER "$SENDER" ${SENDER} $SENDERS`, `prog $SENDER "$SENDER" ${SENDER} $SENDERS`, nil},
		{`sh -c 'prog "$SENDER"'`, `sh -c 'prog "$SENDER"'`, nil},
		{`sh -c "prog \$SENDER"`, `sh -c "prog \$SENDER"`, nil},
		{`prog "$(look $SENDER)" %{user.username}`, `prog "$(look $SENDER)" eve`, nil},
		// Quotes that end before it.
		{`a "b c" %{sender:raw}`, `a "b c" "${SMTPD_1}"`, []string{"SMTPD_1=`id`@x"}},
		{`a "$HOME ${USER}"; b '\' \" x#y "%{sender:raw}"`, `a "$HOME ${USER}"; b '\' \" x#y "${SMTPD_1}"`, []string{"SMTPD_1=`id`@x"}},
		{`date +%s | prog`, `date +%s | prog`, nil},
	} {
		got, err := Command(tc.template, &hostile, nil)
		if err != nil || got.Text != tc.want || strings.Join(got.Vars, "\n") != strings.Join(tc.vars, "\n") {
			t.Errorf("Command(%q) = %q %q, %v\nwant %q %q", tc.template, got.Text, got.Vars, err, tc.want, tc.vars)
		}
	}
}

// TestOptionInjection: an address that begins with a dash is no option of the
// command, where the administrator has not said raw.
func TestOptionInjection(t *testing.T) {
	a := addr.Address{Local: "-oX", Domain: "x"}
	v := Values{Sender: a, Rcpt: a, Dest: a, Name: "eve"}
	for template, want := range map[string]string{
		`prog %{sender} "%{rcpt}" '%{dest.user}'`:    `prog :oX@x ":oX@x" ':oX'`,
		`prog ""%{sender} ''%{sender}`:               `prog "":oX@x '':oX@x`,
		`prog;prog -- %{mbox.from}>%{rcpt.user}`:     `prog;prog -- :oX@x>:oX`,
		`prog -f%{sender} --to="%{rcpt}" x'%{dest}'`: `prog -f-oX@x --to="-oX@x" x'-oX@x'`,
		`prog "<"%{sender} $X%{sender}`:              `prog "<"-oX@x $X-oX@x`,
		`prog %{sender:raw} -%{sender[1:]}`:          `prog -oX@x -oX@x`,
	} {
		if got, err := Command(template, &v, nil); err != nil || got.Text != want {
			t.Errorf("Command(%q) = %q, %v, want %q", template, got.Text, err, want)
		}
	}
}

func TestEmptyValue(t *testing.T) {
	for template, want := range map[string]string{
		"prog -f %{sender} x":   `prog -f "" x`,
		`prog -f "%{sender}" x`: `prog -f "" x`,
		`prog -f '%{sender}' x`: `prog -f '' x`,
		`prog -f=%{sender}`:     `prog -f=""`,
	} {
		if got, err := Command(template, &Values{}, nil); err != nil || got.Text != want {
			t.Errorf("Command(%q) = %q, %v, want %q", template, got.Text, err, want)
		}
	}
}

func TestWrapper(t *testing.T) {
	inner := Script{`prog "${SMTPD_1}"`, []string{"SMTPD_1=`id`"}}
	for _, tc := range []struct {
		template, want string
		vars           int
	}{
		{"nice %{mda}", `nice prog "${SMTPD_1}"`, 1},
		{`sh -c "%{mda}"`, `sh -c "${SMTPD_MDA}"`, 2},
		{`sh -c '%{mda}'`, `sh -c ''"${SMTPD_MDA}"''`, 2},
		{"eval %{mda}", `eval "${SMTPD_MDA}"`, 2},
		{`eval "%{mda}"`, `eval "${SMTPD_MDA}"`, 2},
		{"eval '%{mda}'", `eval 'prog "${SMTPD_1}"'`, 1},
		{"filter %{rcpt.user:raw} | %{mda}", `filter "${SMTPD_2}" | prog "${SMTPD_1}"`, 2},
	} {
		got, err := Command(tc.template, &eve, &inner)
		if err != nil || got.Text != tc.want || len(got.Vars) != tc.vars {
			t.Errorf("Command(%q) = %q %q, %v, want %q", tc.template, got.Text, got.Vars, err, tc.want)
		}
	}
}

// hostile are senders that do harm where a shell evaluates them; MARK is a path
// that must not come into being.
var hostile = []string{
	"`touch MARK`", "$(touch MARK)", ";touch MARK;", "|touch MARK", "&touch MARK&", "\ntouch MARK\n", "'`touch MARK`'",
	"\"`touch MARK`\"", "'; touch MARK; '", "\"; touch MARK; \"", "`touch${IFS}MARK`", "\\`touch MARK\\`", ">MARK", "$((`touch MARK`))",
	"${X:-`touch MARK`}", "*", "-n", "a b  c", "-rf", "#x", "~root", "x\\",
}

// TestRawAndSENDERInMDA, and CVE-2020-7247: each template runs under the real
// shell with hostile values. out is the file that the first argument is written
// to.
func TestRawAndSENDERInMDA(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("needs /bin/sh")
	}
	dir := t.TempDir()
	mark, out := filepath.Join(dir, "m"), filepath.Join(dir, "out")
	show := "printf %s "
	for _, tc := range []struct {
		template string
		exact    bool // the value arrives as it is
	}{
		{show + "%{sender.user:raw} >" + out, true},
		{show + `"%{sender.user:raw}" >` + out, true},
		{show + `'%{sender.user:raw}' >` + out, true},
		{show + `"$SENDER" >` + out, true},
		{`sh -c "` + show + `%{sender.user:raw} >` + out + `"`, false},
		{`sh -c '` + show + `%{sender.user:raw} >` + out + `'`, false},
		{`sh -c "` + show + `'%{sender.user:raw}' >` + out + `"`, false},
		{`eval ` + show + `%{sender.user:raw} ">` + out + `"`, false},
		{`sh -c "` + show + `$SENDER >` + out + `"`, false},
		{`sh -c "` + show + `'${SENDER}' >` + out + `"`, false},
		{`sh -c ` + show[:6] + `\ %s\ $SENDER\ \>` + out, false},
		{`eval ` + show + `"$SENDER" ">` + out + `"`, false},
		{`sh -c '` + show + `"$SENDER" >` + out + `'`, true},
		{show + "`echo %{sender.user:raw}` >" + out, false},
		{show + "$(echo \"%{sender.user:raw}\") >" + out, false},
		{show + "x <<E >" + out + "\n%{sender.user:raw}\nE\n", false},
		{show + "%{sender.user} %{rcpt} %{dest:raw} >" + out, false},
	} {
		for _, value := range hostile {
			value = strings.ReplaceAll(value, "MARK", mark)
			a := addr.Address{Local: value}
			s, err := Command(tc.template, &Values{Sender: a, Rcpt: a, Dest: a}, nil)
			if err != nil {
				t.Fatal(err)
			}
			c := exec.Command("/bin/sh", "-c", s.Text)
			c.Dir = dir
			c.Env = append([]string{"PATH=/usr/bin:/bin", "SENDER=" + value}, s.Vars...)
			c.Run() // the exit status is the template's affair
			if _, err := os.Lstat(mark); err == nil {
				t.Fatalf("%q was executed by %q (%q)", value, tc.template, s.Text)
			}
			got, err := os.ReadFile(out)
			if tc.exact && (err != nil || string(got) != value) {
				t.Errorf("%q: argument is %q, %v, want %q", tc.template, got, err, value)
			}
			os.Remove(out)
		}
	}
}

func FuzzCommand(f *testing.F) {
	f.Add(`prog "%{sender:raw}" '%{rcpt:raw}' %{dest:raw}`, "`id`")
	f.Add("a $(b %{sender:raw}) `c %{rcpt}` \\%{dest:raw}", "$(x)")
	f.Add("eval '%{mda}' \"x %{sender:raw}\"", "a b")
	f.Fuzz(func(t *testing.T, template, value string) {
		// One byte stands for all that is not inert: none may be in the program.
		const stranger = "\x01"
		if strings.Contains(template, stranger) {
			return
		}
		b := []byte(value)
		for i, c := range b {
			if !inertByte(c) {
				b[i] = stranger[0]
			}
		}
		a := addr.Address{Local: string(b)}
		got, err := Command(template, &Values{Sender: a, Rcpt: a, Dest: a, Name: "u", Home: "/h"}, &Script{Text: "MDA"})
		if err == nil && strings.Contains(got.Text, stranger) {
			t.Errorf("Command(%q) with %q: %q", template, b, got.Text)
		}
	})
}
