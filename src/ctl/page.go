package ctl

import (
	"encoding/json"

	"opensmtpd/src/privsep/msg"
)

// Page builds the reply of a role to a msg.Control. The zero Page is empty.
type Page struct {
	rows msg.ControlRows
	size int
}

// Add puts a row, one of the row types of this package, into the page and tells
// whether there is room for another. When there is none and rows remain, end
// with More.
func (p *Page) Add(row any) (room bool, err error) {
	b, err := json.Marshal(row)
	if err != nil {
		return false, err
	}
	p.rows.Rows = append(p.rows.Rows, b)
	p.size += len(b)
	return p.size < msg.ControlPage, nil
}

// Done returns the reply: the last or only page.
func (p *Page) Done() *msg.ControlRows { return &p.rows }

// More returns the reply: a page that another follows, asked for with cursor,
// which is not empty.
func (p *Page) More(cursor string) *msg.ControlRows {
	p.rows.Next = cursor
	return &p.rows
}
