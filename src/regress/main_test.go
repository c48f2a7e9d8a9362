package regress

import (
	"fmt"
	"os"
	"testing"
)

// inside tells that the tests run as root in namespaces of their own, so that
// accounts, mounts and the network can be changed without touching the machine.
var inside = os.Getenv("REGRESS") == "inside"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == programWord {
		os.Exit(tableProgram(os.Args[2]))
	}
	if os.Getenv("REGRESS") == "1" {
		status, err := reexec()
		if err != nil {
			fmt.Fprintln(os.Stderr, "regress:", err)
			os.Exit(1)
		}
		os.Exit(status)
	}
	if inside {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "regress:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// privileged skips a test that needs root in namespaces.
func privileged(t *testing.T) {
	t.Helper()
	if !inside {
		t.Skip("needs root and its own namespaces: run `make regress` as root on Linux")
	}
}

// users are the accounts of the mail system and of those who get mail.
var users = []struct {
	name string
	id   int
	home string
}{
	{"_smtpd", 7001, "/var/empty"},
	{"_smtpq", 7002, "/var/empty"},
	{"anna", 7101, "/home/anna"},
	{"bert", 7102, "/home/bert"},
	{"cleo", 7103, "/home/cleo"},
}
