package envelope

import "testing"

func TestFileOfExec(t *testing.T) {
	for _, tc := range []struct {
		exec, file string
		ok         bool
	}{
		{ExecFile("/usr/libexec/smtpd", "/home/eve/a b"), "/home/eve/a b", true},
		{"/usr/libexec/smtpd/mail.mboxfile -f %{mbox.from} /var/mail/eve", "/var/mail/eve", true},
		{"/usr/bin/vacation eve", "", false},
		{"/usr/libexec/mail.mboxfile -f %{mbox.from} relative", "", false},
		{"true; /usr/libexec/mail.mboxfile -f %{mbox.from} /x", "", false},
		{"mail.mboxfile -f %{mbox.from} /x", "", false},
		{"", "", false},
	} {
		if file, ok := FileOfExec(tc.exec); file != tc.file || ok != tc.ok {
			t.Errorf("FileOfExec(%q) = %q, %v, want %q, %v", tc.exec, file, ok, tc.file, tc.ok)
		}
	}
}
