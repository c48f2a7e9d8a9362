package tableprog

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Settings is the configuration file of a program, in the form of those that
// OpenSMTPD has: a key, blanks or a colon, and a value up to the end of the line.
// Lines that begin with '#' are comments.
type Settings struct {
	path   string
	values map[string]string
	lines  map[string]int
}

// ReadSettings reads a configuration file. known lists the keys that may be in
// it; one twice, or without a value, is a mistake.
func ReadSettings(path string, known ...string) (*Settings, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &Settings{path: path, values: make(map[string]string), lines: make(map[string]int)}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if err := s.line(n, strings.TrimSpace(line), known); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return s, nil
}

func (s *Settings) line(n int, line string, known []string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	key, value := line, ""
	if i := strings.IndexAny(line, " \t:"); i >= 0 {
		key = line[:i]
		value = strings.TrimLeft(line[i:], " \t")
		// "key : value" and "key: value", but not "key :value".
		if rest, ok := strings.CutPrefix(value, ":"); ok && (i < len(line) && line[i] == ':' || rest == "" || rest[0] == ' ' || rest[0] == '\t') {
			value = strings.TrimLeft(rest, " \t")
		}
	}
	switch {
	case value == "":
		return fmt.Errorf("%s has no value", key)
	case s.lines[key] != 0:
		return fmt.Errorf("%s is there already, in line %d", key, s.lines[key])
	}
	for _, k := range known {
		if k == key {
			s.values[key], s.lines[key] = value, n
			return nil
		}
	}
	return fmt.Errorf("%q is not known; there are %s", key, strings.Join(known, ", "))
}

// Get returns the value of a key, "" when it is not there.
func (s *Settings) Get(key string) string { return s.values[key] }

// Need is Get for a key that must be there.
func (s *Settings) Need(key string) (string, error) {
	if v := s.values[key]; v != "" {
		return v, nil
	}
	return "", fmt.Errorf("%s: %s is missing", s.path, key)
}

// Number returns a number, or otherwise when the key is not there.
func (s *Settings) Number(key string, otherwise int) (int, error) {
	v, ok := s.values[key]
	if !ok {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return 0, s.Errorf(key, "%q is not a number", v)
	}
	return int(n), nil
}

// Errorf is what is wrong with the value of a key, with its place.
func (s *Settings) Errorf(key, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s: %w", s.path, s.lines[key], key, fmt.Errorf(format, args...))
}
