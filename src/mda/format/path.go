package format

import (
	"errors"
	"fmt"
	"strings"
)

// Path expands the template of a pathname. In a value a slash becomes a colon,
// unless it is raw or the home directory; no value can make a component "." or
// "..", or bring a NUL.
func Path(template string, v *Values) (string, error) {
	parts, err := parse(template)
	if err != nil {
		return "", err
	}
	var b, text strings.Builder
	for _, p := range parts {
		if p.tok == nil {
			b.WriteString(p.text)
			text.WriteString(p.text)
			continue
		}
		if p.tok.name == "mda" {
			return "", errors.New("%{mda} is only for wrappers")
		}
		s, raw, err := p.tok.value(v)
		if err != nil {
			return "", err
		}
		if names[p.tok.name] && !raw {
			s = strings.ReplaceAll(sanitise(s), "/", ":")
		}
		b.WriteString(s)
		if p.tok.name == "user.directory" {
			text.WriteString(s)
		} else {
			text.WriteByte('x')
		}
	}
	path := b.String()
	if dots(path) != dots(text.String()) || strings.IndexByte(path, 0) >= 0 {
		return "", fmt.Errorf("%q is no path to deliver to", path)
	}
	return path, nil
}

// dots counts the components "." and "..".
func dots(path string) (n int) {
	for c := range strings.SplitSeq(path, "/") {
		if c == "." || c == ".." {
			n++
		}
	}
	return n
}
