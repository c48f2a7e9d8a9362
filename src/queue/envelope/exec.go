package envelope

import "strings"

// What OpenSMTPD writes for a /file of an expansion: the command that it runs.
const fileMark = "/mail.mboxfile -f %{mbox.from} "

// ExecFile returns the MDAExec of an expansion to a file: the command line that
// OpenSMTPD keeps in the envelope, so that either program understands a spool
// of the other. An expansion to a |command has the command itself as MDAExec,
// without the bar.
func ExecFile(libexec, file string) string { return libexec + fileMark + file }

// FileOfExec tells whether an MDAExec means a file, and which. A delivery agent
// appends to it itself; no shell sees the name.
func FileOfExec(exec string) (file string, ok bool) {
	program, file, ok := strings.Cut(exec, fileMark)
	if !ok || !strings.HasPrefix(program, "/") || strings.ContainsAny(program, " \t'\"`$;|&<>()\\") || !strings.HasPrefix(file, "/") {
		return "", false
	}
	return file, true
}
