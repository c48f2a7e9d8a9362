package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	names := []string{"smtpctl", "sendmail", "send-mail", "mailq", "newaliases", "makemap", "another"}
	commands := make(map[string]func())
	for _, n := range names {
		commands[n] = main
	}
	testscript.Main(m, commands)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SMTPD_STATE", e.WorkDir)
			// The head of a hash file of Berkeley DB 1.85.
			hash := append([]byte{0x61, 0x15, 0x06, 0x00}, make([]byte, 4092)...)
			return os.WriteFile(filepath.Join(e.WorkDir, "berkeley.db"), hash, 0o600)
		},
	})
}
