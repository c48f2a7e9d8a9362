package lka

import (
	"context"
	"io"
	"net"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/dovecot"
	"opensmtpd/src/lookup/table"
)

// dovecotTable makes a table that Dovecot answers for. Parent connects to the
// socket, once a first password is to be verified, and again when the
// connection has gone.
func (r *Role) dovecotTable(t *project.Table, g *generation) table.Table {
	name, gen := t.Name, g.gen
	c := dovecot.New(name, r.env.Clock, func(ctx context.Context) (io.ReadWriteCloser, error) {
		f, err := r.openTable(ctx, gen, name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return net.FileConn(f)
	})
	g.dovecots = append(g.dovecots, c)
	return c
}
