package greylist

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// record is an entry as it is kept.
type record struct {
	Net   netip.Prefix `json:"net"`
	From  string       `json:"from,omitempty"`
	To    string       `json:"to,omitempty"`
	Name  string       `json:"name,omitempty"`
	First int64        `json:"first"` // Unix seconds, as all times
	Ready int64        `json:"ready,omitempty"`
	Until int64        `json:"until,omitempty"`
}

// key is the name of an entry: of a network the network, of a triplet a hash,
// because addresses are too long for a key.
func (e *Entry) key() string {
	if e.White() {
		return e.Net.String()
	}
	sum := sha256.Sum256([]byte(e.Net.String() + "\x00" + e.From + "\x00" + e.To))
	return hex.EncodeToString(sum[:16])
}

func (e *Entry) encode() []byte {
	r := record{Net: e.Net, From: e.From, To: e.To, Name: e.Name, First: e.First.Unix()}
	if !e.Ready.IsZero() {
		r.Ready = e.Ready.Unix()
	}
	if !e.Until.IsZero() {
		r.Until = e.Until.Unix()
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil // no field of it can fail
	}
	return b
}

var errRecord = errors.New("not an entry of the greylist")

// decode reads what encode has written.
func decode(value []byte) (*Entry, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("%w: %v", errRecord, err)
	}
	if !r.Net.IsValid() || r.Net != r.Net.Masked() || r.To != "" && r.Until == 0 || r.To == "" && r.From != "" {
		return nil, errRecord
	}
	e := &Entry{Net: r.Net, From: r.From, To: r.To, Name: r.Name, First: time.Unix(r.First, 0)}
	if r.Ready != 0 {
		e.Ready = time.Unix(r.Ready, 0)
	}
	if r.Until != 0 {
		e.Until = time.Unix(r.Until, 0)
	}
	return e, nil
}

// Restore takes in what was kept, in any order. What has been learnt since goes
// before it. It returns how many values could not be read; those are forgotten.
func (l *List) Restore(kept map[string][]byte) (bad int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*Entry
	for key, value := range kept {
		e, err := decode(value)
		if err != nil || e.key() != key {
			bad++
			l.o.Store.Put(key, nil)
			continue
		}
		if l.entries[key] == nil {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *Entry) int {
		if a.White() && b.White() {
			return a.Until.Compare(b.Until) // the last seen has most time left
		}
		return a.First.Compare(b.First)
	})
	for _, e := range all {
		l.insertLocked(e)
	}
	return bad
}
