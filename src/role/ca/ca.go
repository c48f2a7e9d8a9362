// Package ca is the crypto process: the one that holds private keys and signs
// with them, so that no other process ever sees one. As long as the
// configuration cannot bring keys into use it holds none, and answers nobody.
//
// SECURITY. The process has no files, no network and no way to make a socket;
// it can read and write the descriptors that it was given. Nothing in its table
// returns a key.
package ca

import (
	"context"
	"fmt"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// Role is the crypto process. It is a proc.Program.
type Role struct{}

// New reads the first configuration.
func New(env proc.Env) (*Role, error) {
	r := &Role{}
	return r, r.Prepare(context.Background(), env.Conf)
}

// Handlers implements proc.Program: control may ask for counters, of which
// there are none.
func (r *Role) Handlers() []proc.Handler {
	return []proc.Handler{
		{From: proc.Control, Type: msg.TypeStats, Do: func(_ context.Context, q proc.Request) { q.Reply(&msg.StatsReply{}) }},
	}
}

// Prepare implements proc.Program.
func (r *Role) Prepare(_ context.Context, c proc.Conf) error {
	for _, f := range c.Files {
		f.File.Close() // a key that nobody has a use for is not kept
	}
	var p project.CryptoConf
	if err := project.Decode(c.Projection, &p); err != nil {
		return fmt.Errorf("crypto: %w", err)
	}
	return nil
}

// Commit implements proc.Program.
func (r *Role) Commit(mail.Gen) {}

// Abort implements proc.Program.
func (r *Role) Abort(mail.Gen) {}

// Run implements proc.Program.
func (r *Role) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
