package table

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"

	"opensmtpd/src/conf"
)

// Static is a table whose content is in memory: the one written in the
// configuration, or that of a file or a map.
type Static struct {
	name, path string
	delim      string
	*content
}

// content is shared by the names that a file has.
type content struct {
	now    atomic.Pointer[set]
	cursor atomic.Uint64
	db     bool // a map of makemap(8), not a text
}

// Entry is an element of a static table; Value is "" in a list.
type Entry struct{ Key, Value string }

// NewStatic returns a table that holds entries. delim is the sub-address
// delimiter.
func NewStatic(name string, kind conf.Kind, entries []Entry, delim string) *Static {
	s := &set{kind: kind, ents: make([]entry, 0, len(entries))}
	for _, e := range entries {
		key := uint32(len(s.text))
		s.text = append(append(s.text, e.Key...), e.Value...)
		keyLen, valLen := uint32(len(e.Key)), uint32(len(e.Value))
		s.ents = append(s.ents, entry{key: key, keyLen: keyLen, val: key + keyLen, valLen: valLen})
	}
	s.build()
	t := &Static{name: name, delim: delim, content: &content{}}
	t.now.Store(s)
	return t
}

// As returns the same table under another name: an update of one is an update of
// both.
func (t *Static) As(name string) *Static {
	return &Static{name, t.path, t.delim, t.content}
}

// NewFile returns a table that holds what f does. path is for messages. The
// caller closes f.
func NewFile(name, path string, f *os.File, delim string) (*Static, error) {
	t := &Static{name: name, path: path, delim: delim, content: &content{}}
	if err := t.Update(f); err != nil {
		return nil, err
	}
	return t, nil
}

// Update reads the table again from f. When that fails the old content stays.
func (t *Static) Update(f *os.File) error { return t.update(f, false) }

// UpdateMap is Update for a table that must be a mapping, or empty.
func (t *Static) UpdateMap(f *os.File) error { return t.update(f, true) }

func (t *Static) update(f *os.File, mapping bool) error {
	s, err := t.read(f)
	switch {
	case err != nil:
		return err
	case mapping && s.kind == conf.List && len(s.ents) > 0:
		return fmt.Errorf("%s: it is a list, a mapping is needed", t.path)
	}
	t.now.Store(s)
	return nil
}

func (t *Static) read(f *os.File) (*set, error) {
	if t.db {
		return readDB(f, t.path)
	}
	text, err := readFile(f)
	if err == nil {
		var s *set
		if s, err = parseText(text); err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s:%w", t.path, err)
}

// Name implements Table.
func (t *Static) Name() string { return t.name }

// Len returns the number of entries.
func (t *Static) Len() int { return len(t.now.Load().ents) }

// Kind tells whether the table is a list or a map. An empty file is a map.
func (t *Static) Kind() conf.Kind { return t.now.Load().kind }

// Path is the file's, empty for a table of the configuration.
func (t *Static) Path() string { return t.path }

// Delim is the sub-address delimiter that the table was made with.
func (t *Static) Delim() string { return t.delim }

// Keys returns the keys in order, as written.
func (t *Static) Keys() []string {
	s := t.now.Load()
	keys := make([]string, len(s.ents))
	for i := range keys {
		keys[i] = s.key(i)
	}
	return keys
}

// Check returns the entries that cannot be used under service. Credentials are
// those of a listener's users.
func (t *Static) Check(service Service) []Problem {
	s := t.now.Load()
	switch service {
	case NetAddr, AddrName, Source:
		return s.netIndex().bad
	case Regex:
		return s.regexList().bad
	case UserInfo:
		return s.problems(func(key, value string) error {
			_, err := ParseUser(key, value)
			return err
		})
	case Credentials:
		return s.problems(checkPassword)
	}
	return nil
}

func (s *set) problems(check func(key, value string) error) (bad []Problem) {
	for i := range s.ents {
		if err := check(s.key(i), s.value(i)); err != nil {
			bad = append(bad, Problem{int(s.ents[i].line), s.key(i), err})
		}
	}
	return bad
}

// Match implements Table.
func (t *Static) Match(_ context.Context, service Service, key string) (bool, error) {
	return t.now.Load().best(service, key, t.delim) >= 0, nil
}

// Lookup implements Table. Every key of a list maps to nothing. A comment behind
// a value in a file goes, but for aliases, which know quotes, and passwords.
func (t *Static) Lookup(_ context.Context, service Service, key string) (string, bool, error) {
	s := t.now.Load()
	i := s.best(service, key, t.delim)
	if i < 0 {
		return "", false, nil
	}
	value := s.value(i)
	if t.path != "" && service != Alias && service != Credentials && service != Auth {
		value = string(cutComment([]byte(value)))
	}
	return value, true, nil
}

// Fetch implements Table: the keys in order.
func (t *Static) Fetch(context.Context, Service) (string, bool, error) {
	s := t.now.Load()
	if len(s.ents) == 0 {
		return "", false, nil
	}
	n := t.cursor.Add(1) - 1
	return s.key(int(n % uint64(len(s.ents)))), true, nil
}
