package greylist

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Kept is an entry as it is kept over a restart.
type Kept struct {
	Key   string
	Value []byte // nil: it is forgotten
}

// record is the value.
type record struct {
	Net   netip.Prefix `json:"net"`
	From  string       `json:"from,omitempty"`
	To    string       `json:"to,omitempty"`
	Name  string       `json:"name,omitempty"`
	First int64        `json:"first"`
	Ready int64        `json:"ready,omitempty"`
	Until int64        `json:"until,omitempty"`
}

const keySize = 16

// keyOf is the name of an entry. It stands for addresses of any length.
func keyOf(net netip.Prefix, from, to string) string {
	sum := sha256.Sum256([]byte(net.String() + "\x00" + from + "\x00" + to))
	return string(sum[:keySize])
}

// maxText is how much is remembered of an address or a name, to be shown: keys
// tell long ones apart.
const maxText = 100

func shown(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(strings.Clone(s), "")
}

func (e *Entry) encode() []byte {
	b, err := json.Marshal(record{e.Net, e.From, e.To, e.Name, e.First, e.Ready, e.Until})
	if err != nil {
		return []byte{} // no field of it can fail
	}
	return b
}

var errRecord = errors.New("not an entry of the greylist")

// decode reads what Changes has written. The entry has its key in any case.
func decode(k *Kept) (*Entry, error) {
	e := &Entry{key: k.Key, saved: true}
	var r record
	if err := json.Unmarshal(k.Value, &r); err != nil {
		return e, fmt.Errorf("%w: %v", errRecord, err)
	}
	switch {
	case len(k.Key) != keySize, !r.Net.IsValid(), r.Net != r.Net.Masked(),
		len(r.From) > maxText, len(r.To) > maxText, len(r.Name) > maxText:
		return e, errRecord
	case r.To != "" && r.Until <= 0, r.To == "" && (r.From != "" || k.Key != keyOf(r.Net, "", "")):
		return e, errRecord
	}
	e.Net, e.From, e.To, e.Name = r.Net, r.From, r.To, r.Name
	e.First, e.Ready, e.Until, e.told = r.First, r.Ready, r.Until, r.Until
	return e, nil
}
