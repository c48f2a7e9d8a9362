package maildir

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"opensmtpd/src/clock"
)

// Namer makes names that no other process on any machine makes: the second, a
// random number of the process, a count and the host's name.
type Namer struct {
	clock  clock.Clock
	random uint32
	seq    uint32
	host   string
}

// NewNamer returns a Namer. It belongs to one goroutine.
func NewNamer(c clock.Clock) *Namer {
	var b [4]byte
	rand.Read(b[:]) // never fails
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	// As maildir(5) wants it: a slash is no part of a name, a colon starts the
	// flags.
	host = strings.NewReplacer("/", `\057`, ":", `\072`).Replace(host)
	return &Namer{clock: c, random: binary.LittleEndian.Uint32(b[:]), host: host}
}

// Next returns a new name.
func (n *Namer) Next() string {
	n.seq++
	return fmt.Sprintf("%d.%08x%08x.%s", n.clock.Now().Unix(), n.random, n.seq, n.host)
}
