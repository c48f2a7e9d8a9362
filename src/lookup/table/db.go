package table

import (
	"os"

	"golang.org/x/sys/unix"

	"opensmtpd/src/conf"
	"opensmtpd/src/lookup/mapdb"
)

// NewDB returns a table that holds what the map in f does, which makemap(8)
// made. The content is read into memory as that of a text file is, so that both
// answer every service alike, and a file that is cut short afterwards harms
// nobody. path is for messages. The caller closes f.
func NewDB(name, path string, f *os.File, delim string) (*Static, error) {
	t := &Static{name: name, path: path, delim: delim, content: &content{db: true}}
	if err := t.Update(f); err != nil {
		return nil, err
	}
	return t, nil
}

// readDB makes a set of a map. A map without any value is a list.
func readDB(f *os.File, path string) (*set, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	r, err := mapdb.OpenFile(os.NewFile(uintptr(fd), path))
	if err != nil {
		return nil, err
	}
	s := &set{kind: conf.List}
	err = r.Each(func(key, value []byte) error {
		if len(s.text)+len(key)+len(value) >= maxText {
			return errSize
		}
		at := uint32(len(s.text))
		s.text = append(append(s.text, key...), value...)
		e := entry{key: at, keyLen: uint32(len(key)), val: at + uint32(len(key)), valLen: uint32(len(value))}
		s.ents = append(s.ents, e)
		if len(value) > 0 {
			s.kind = conf.Map
		}
		return nil
	})
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	s.build()
	return s, nil
}
