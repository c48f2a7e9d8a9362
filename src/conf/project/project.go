// Package project cuts out of a loaded configuration the part that each process
// is sent, and encodes it. A projection is JSON with a role and a version; the
// same configuration always gives the same bytes. A secret is in the projection
// of the role that needs it and in no other.
//
// Structs here are plain data: names of tables, filters and certificates are
// references that the same projection resolves, and descriptors (listeners, table
// files, the pipes of programs) come beside the projection under the Identity
// that is written in it.
package project

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Version is written into every projection. It grows when a field changes its
// meaning; processes of two versions do not talk (the build id of the hello sees
// to that), so it guards the golden files more than the wire.
const Version = 1

// Projection is what every role's part is.
type Projection interface{ role() string }

func (*DispatcherConf) role() string { return "dispatcher" }
func (*LookupConf) role() string     { return "lookup" }
func (*QueueConf) role() string      { return "queue" }
func (*ControlConf) role() string    { return "control" }
func (*CryptoConf) role() string     { return "crypto" }

// envelope is the outer form of the encoding.
type envelope struct {
	Role    string          `json:"role"`
	Version int             `json:"version"`
	Conf    json.RawMessage `json:"conf"`
}

// Encode returns the bytes of a projection.
func Encode(p Projection) ([]byte, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("projection for %s: %w", p.role(), err)
	}
	return json.Marshal(envelope{p.role(), Version, body})
}

// Decode reads b into p. It is an error when b is of another role or version, or
// holds a field that this build does not know.
func Decode(b []byte, p Projection) error {
	var e envelope
	if err := strict(b, &e); err != nil {
		return fmt.Errorf("projection for %s: %w", p.role(), err)
	}
	if e.Role != p.role() {
		return fmt.Errorf("projection for %s given to %s", e.Role, p.role())
	}
	if e.Version != Version {
		return fmt.Errorf("projection for %s has version %d, want %d", e.Role, e.Version, Version)
	}
	if err := strict(e.Conf, p); err != nil {
		return fmt.Errorf("projection for %s: %w", p.role(), err)
	}
	return nil
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
