package regress

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestTLSKeyIsInCrypto looks through the memory of every process, after
// handshakes and a reload, for the private key: crypto alone has it.
func TestTLSKeyIsInCrypto(t *testing.T) {
	t.Parallel()
	const host = "mx.example.org"
	d := newTLS(t, "", "", "ed25519:"+host)
	text, err := os.ReadFile(d.Path(host + ".key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	seed := key.(ed25519.PrivateKey).Seed()
	d.Start()
	d.serial(t, host)
	d.Ctl("reload")
	d.serial(t, host)
	roles := d.Roles()
	if len(roles) < 6 {
		t.Fatalf("roles %v", roles)
	}
	for role, pid := range roles {
		has, err := remembers(pid, seed)
		if err != nil {
			t.Skipf("the memory of %s: %v", role, err)
		}
		if has != (role == "crypto") {
			t.Errorf("%s has the private key: %v", role, has)
		}
	}
}

// remembers tells whether the writable memory of a process holds some bytes.
func remembers(pid int, what []byte) (bool, error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false, err
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return false, err
	}
	defer mem.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x rw", &from, &to); err != nil || strings.Contains(lines.Text(), "[v") {
			continue
		}
		found, err := within(mem, from, to, what)
		if err != nil || found {
			return found, err
		}
	}
	return false, nil
}

// within looks through a part of a file, in pieces that overlap.
func within(mem *os.File, from, to int64, what []byte) (bool, error) {
	piece := make([]byte, 1<<20)
	for at := from; at < to; at += int64(len(piece) - len(what)) {
		n, err := mem.ReadAt(piece[:min(int64(len(piece)), to-at)], at)
		if n == 0 && err != nil {
			return false, err
		}
		if bytes.Contains(piece[:n], what) {
			return true, nil
		}
	}
	return false, nil
}
