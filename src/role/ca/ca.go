// Package ca is the crypto process: the one that holds private keys and signs
// with them, so that no other process ever sees one.
//
// SECURITY. The process has no files, no network and no way to make a socket;
// it can read and write the descriptors that it was given. Key files come from
// parent as such, are read once, and closed; the text that was read is
// overwritten. Nothing in its table returns a key, and no error tells of one
// more than its file. Whoever has taken dispatcher over can have signatures made
// as long as that lasts, of hashes and of what TLS signs with Ed25519, and
// nothing else.
package ca

import (
	"context"
	"crypto"
	"fmt"
	"sync"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// keptSets is for how many changes of keys the old ones still sign: sessions
// that began under a configuration may come to their handshake later.
const keptSets = 3

// keys are the private keys of one configuration.
type keys map[msg.KeyID]crypto.Signer

// Role is the crypto process. It is a proc.Program.
type Role struct {
	mu       sync.RWMutex
	gen      mail.Gen // of prepared
	prepared keys
	sets     []keys // in force, the newest first
}

// New reads the first configuration.
func New(env proc.Env) (*Role, error) {
	r := &Role{}
	if err := r.Prepare(context.Background(), env.Conf); err != nil {
		return nil, err
	}
	r.Commit(env.Conf.Gen)
	return r, nil
}

// Handlers implements proc.Program: control may ask for counters, of which
// there are none.
func (r *Role) Handlers() []proc.Handler {
	return []proc.Handler{
		{From: proc.Dispatcher, Type: msg.TypeSign, Concurrent: true, Do: r.sign},
		{From: proc.Control, Type: msg.TypeStats, Do: func(_ context.Context, q proc.Request) { q.Reply(&msg.StatsReply{}) }},
	}
}

// Prepare implements proc.Program: it reads the keys and holds them against
// their certificates.
func (r *Role) Prepare(_ context.Context, c proc.Conf) error {
	files := make(map[string]proc.File, len(c.Files))
	for _, f := range c.Files {
		defer f.File.Close()
		files[f.Identity] = f
	}
	var p project.CryptoConf
	if err := project.Decode(c.Projection, &p); err != nil {
		return fmt.Errorf("crypto: %w", err)
	}
	set := make(keys, len(p.Keys))
	for _, k := range p.Keys {
		id, key, err := pair(files, &k)
		if err != nil {
			return fmt.Errorf("%spki %s: %w", place(k.Place), k.PKI, err)
		}
		set[id] = key
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gen, r.prepared = c.Gen, set
	return nil
}

func place(s string) string {
	if s == "" {
		return ""
	}
	return s + ": "
}

// Commit implements proc.Program.
func (r *Role) Commit(gen mail.Gen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.prepared == nil || r.gen != gen {
		return
	}
	r.sets = append([]keys{r.prepared}, r.sets[:min(len(r.sets), keptSets)]...)
	r.prepared = nil
}

// Abort implements proc.Program.
func (r *Role) Abort(gen mail.Gen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gen == gen {
		r.prepared = nil
	}
}

// Run implements proc.Program.
func (r *Role) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// find returns the key of that name.
func (r *Role) find(id msg.KeyID) crypto.Signer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, set := range r.sets {
		if key := set[id]; key != nil {
			return key
		}
	}
	return nil
}

// sign serves dispatcher. How many run at once is bounded by proc.
func (r *Role) sign(_ context.Context, q proc.Request) {
	var m msg.Sign
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	sig, err := signature(r.find(m.Key), &m)
	if err != nil {
		q.Reply(&msg.Signed{Err: mailerr.Local(err)})
		return
	}
	q.Reply(&msg.Signed{Signature: sig})
}
