package table

import (
	"strconv"

	"opensmtpd/src/conf"
)

// Union asks many tables of the configuration at once: one search tells which of
// them match a key, whatever their number. It is for rules, of which there may
// be ten thousand with a small table each. Tables that change, and the regex
// service, are not for it.
type Union struct {
	service Service
	delim   string
	set     *set
	owners  [][]uint32 // of each entry: the tables that have it
}

// NewUnion makes a Union of tables, which it remembers by their place in the
// list.
func NewUnion(service Service, tables []*Static) *Union {
	u := &Union{service: service, set: &set{}}
	for n, t := range tables {
		u.delim = t.delim
		for _, key := range t.Keys() {
			u.add(normal(service, key), uint32(n))
		}
	}
	return u.finish()
}

// normal makes one spelling of keys that are spelt in several ways.
func normal(service Service, key string) string {
	if service == NetAddr {
		p, zone, err := conf.ParseNet(key)
		switch {
		case err != nil:
		case zone != "":
			return p.Addr().String() + "%" + zone + "/" + strconv.Itoa(p.Bits())
		default:
			return p.String()
		}
	}
	return key
}

func (u *Union) add(key string, owner uint32) {
	s := u.set
	s.ents = append(s.ents, entry{key: uint32(len(s.text)), keyLen: uint32(len(key)), line: owner})
	s.text = append(s.text, key...)
}

// finish makes the index; the line of an entry was its owner until now.
func (u *Union) finish() *Union {
	all := u.set.ents
	u.set.ents = append([]entry(nil), all...)
	u.set.build()
	u.owners = make([][]uint32, len(u.set.ents))
	for _, e := range all {
		i := u.set.find(string(u.set.keyBytes(&e)))
		u.owners[i] = append(u.owners[i], e.line)
	}
	return u
}

// Match calls yes with the place of each table that matches key, of some more
// than once.
func (u *Union) Match(key string, yes func(table int)) {
	u.set.visit(u.service, key, u.delim, func(i int) bool {
		for _, n := range u.owners[i] {
			yes(int(n))
		}
		return true
	})
}
