// Package mapdb reads and writes the map files that makemap(8) makes and `db:`
// tables use: a bbolt file with two buckets.
//
//	map    key → value, keys in lower case (ASCII)
//	meta   "format" → "1", "kind" → "map", "aliases" or "set"
//
// Behind the pages of bbolt stands a checksum. A file is written beside its name
// and renamed over it, so that a reader has the old content or the new, whole.
// OpenSMTPD's files are of Berkeley DB; they are recognised and refused with the
// remedy.
package mapdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"
)

// Kind says what the values of a map are.
type Kind string

const (
	Plain   Kind = "map"     // any text
	Aliases Kind = "aliases" // lists of destinations, checked
	Set     Kind = "set"     // no values
)

const format = "1"

// The buckets and the keys in meta. They are never written to.
var (
	bucketMap  = []byte("map")
	bucketMeta = []byte("meta")
	keyFormat  = []byte("format")
	keyKind    = []byte("kind")
)

// Why a file is not a map.
var (
	ErrBerkeley = errors.New("is a Berkeley DB file of another mail server: run makemap(8) again on its source")
	ErrNotMap   = errors.New("is not a map made by makemap(8)")
	ErrDamaged  = errors.New("is damaged: run makemap(8) again on its source")
)

// The magic numbers of Berkeley DB: 1.85's stand at the start of the file, those
// of later releases behind a page header (12 bytes). Each in both byte orders.
const (
	berkeleyBtree = 0x00053162
	berkeleyHash  = 0x00061561
	berkeleyQueue = 0x00042253
)

// boltMagic stands behind the 16 bytes of a bbolt page header, in the byte order
// of the machine.
const boltMagic = 0xED0CDAED

// sniff tells by the first bytes what a file is not.
func sniff(f io.ReaderAt) error {
	var b [20]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n < len(b) {
		return ErrNotMap
	}
	if isBerkeley(b[0:4]) || isBerkeley(b[12:16]) {
		return ErrBerkeley
	}
	if binary.NativeEndian.Uint32(b[16:20]) != boltMagic {
		return ErrNotMap
	}
	return nil
}

func isBerkeley(b []byte) bool {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(b) {
		case berkeleyBtree, berkeleyHash, berkeleyQueue:
			return true
		}
	}
	return false
}

// fold puts ASCII letters in lower case; a key in lower case is returned as it
// is.
func fold(key []byte) []byte {
	if !bytes.ContainsFunc(key, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
		return key
	}
	out := bytes.Clone(key)
	for i, c := range out {
		if 'A' <= c && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}

// opened makes bbolt use a file that is open already.
func opened(f *os.File) func(string, int, os.FileMode) (*os.File, error) {
	return func(string, int, os.FileMode) (*os.File, error) { return f, nil }
}

// guard turns a panic into ErrDamaged: a file cut short under a mapping is a
// fault of the memory.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w (%v)", ErrDamaged, r)
	}
}

// check looks at the buckets of an open file.
func check(tx *bolt.Tx) (Kind, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil || tx.Bucket(bucketMap) == nil {
		return "", ErrNotMap
	}
	if got := string(meta.Get(keyFormat)); got != format {
		return "", fmt.Errorf("is a map of format %q, this program knows %s: run makemap(8) again", got, format)
	}
	switch k := Kind(meta.Get(keyKind)); k {
	case Plain, Aliases, Set:
		return k, nil
	}
	return "", ErrNotMap
}
