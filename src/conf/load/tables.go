package load

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/check"
	"opensmtpd/src/conf/diag"
)

// TableFile is a file that parent opens for lookup.
type TableFile struct {
	// Identity names the descriptor. It is the same as long as path and back
	// end are; what is in the file may have changed all the same.
	Identity string
	Path     string
	Backend  string // "file" or "db"
}

// TableFiles lists the files of the tables, each once.
func TableFiles(cfg *conf.Config) []TableFile {
	var out []TableFile
	seen := make(map[string]bool)
	for _, t := range cfg.Tables {
		if t.Backend != "file" && t.Backend != "db" {
			continue
		}
		f := TableFile{TableIdentity(t), t.Config, t.Backend}
		if !seen[f.Identity] {
			seen[f.Identity] = true
			out = append(out, f)
		}
	}
	return out
}

// TableIdentity returns the name under which what a table needs is handed over,
// or "" when it needs nothing.
func TableIdentity(t *conf.Table) string {
	switch t.Backend {
	case "static", "getpwnam", "dovecot":
		return ""
	case "file", "db":
		return t.Backend + ":" + t.Config
	}
	return "table:" + t.Name + ":" + t.Backend + ":" + t.Config
}

// tableFiles checks that what tables need is there, and returns what files hold
// as far as their first line tells.
func tableFiles(m Machine, cfg *conf.Config, diags *diag.List) check.Kinds {
	kinds := make(check.Kinds)
	for _, t := range cfg.Tables {
		if t.Bad {
			continue
		}
		pos := t.Place("config")
		switch t.Backend {
		case "static", "getpwnam":
		case "dovecot":
			if t.Config == "" {
				diags.Errorf(pos, "table %s: dovecot needs the path of its socket", t.Name)
			}
		case "file":
			fileTable(m, t, pos, kinds, diags)
		case "db":
			dbTable(m, t, pos, diags)
		default:
			program(m, t, pos, diags)
		}
	}
	return kinds
}

func fileTable(m Machine, t *conf.Table, pos conf.Pos, kinds check.Kinds, diags *diag.List) {
	if t.Config == "" {
		diags.Errorf(pos, "table %s: file needs a path", t.Name)
		return
	}
	f, err := m.Open(t.Config)
	if err != nil {
		if !errors.Is(err, fs.ErrPermission) || m.UID == 0 {
			diags.Errorf(pos, "table %s: %s: %s", t.Name, t.Config, reason(err))
			return
		}
		diags.Warnf(pos, "table %s: %s: %s", t.Name, t.Config, reason(err))
		return
	}
	kind, known, err := firstLine(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		diags.Errorf(pos, "table %s: %s: %s", t.Name, t.Config, reason(err))
	case known:
		kinds[t.Name] = kind
	}
}

// firstLine tells what a table file holds: "# @list" or the first line that is
// neither empty nor a comment decides. A file without one can be anything.
func firstLine(r io.Reader) (kind conf.Kind, known bool, err error) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		s := strings.TrimSpace(line)
		if text, comment := strings.CutPrefix(s, "#"); comment {
			if strings.TrimSpace(text) == "@list" {
				return conf.List, true, nil
			}
		} else if s != "" {
			return lineKind(s), true, nil
		}
		if errors.Is(err, io.EOF) {
			return conf.List, false, nil
		}
		if err != nil {
			return conf.List, false, err
		}
	}
}

// lineKind tells whether a line has a key alone or a value too.
func lineKind(line string) conf.Kind {
	from := 0
	if line[0] == '[' {
		if from = strings.IndexByte(line, ']') + 1; from == 0 {
			return conf.List
		}
	}
	end := strings.IndexAny(line[from:], " \t:")
	if end < 0 {
		return conf.List
	}
	if rest := strings.TrimLeft(line[from+end:], " \t"); rest == "" || rest[0] == '#' {
		return conf.List
	}
	return conf.Map
}

func dbTable(m Machine, t *conf.Table, pos conf.Pos, diags *diag.List) {
	if t.Config == "" {
		diags.Errorf(pos, "table %s: db needs a path", t.Name)
		return
	}
	_, err := m.Stat(t.Config)
	if errors.Is(err, fs.ErrNotExist) {
		source := strings.TrimSuffix(t.Config, ".db")
		diags.Add(diag.Diag{Severity: diag.Error, Pos: pos,
			Message: "table " + t.Name + ": " + t.Config + ": " + reason(err), Hint: "makemap " + source + " makes it"})
		return
	}
	if err == nil && m.CheckMap != nil {
		err = m.CheckMap(t.Config)
	}
	if err != nil && (m.UID == 0 || !errors.Is(err, fs.ErrPermission)) {
		diags.Errorf(pos, "table %s: %s: %s", t.Name, t.Config, reason(err))
	}
}

// TableProgram returns the program that serves a table, and its arguments: that
// of a back end that is not built in has the rest as its only one, "proc" names a
// path with arguments, or a back end once more. The program is a path, or a name
// to be looked for where programs are. ok is false for what is built in.
func TableProgram(t *conf.Table) (program string, args []string, ok bool) {
	name, arg := t.Backend, t.Config
	switch t.Backend {
	case "static", "file", "db", "getpwnam", "dovecot":
		return "", nil, false
	case "proc":
		if words := strings.Fields(t.Config); len(words) > 0 && filepath.IsAbs(words[0]) {
			return words[0], words[1:], true
		}
		name, arg, _ = strings.Cut(t.Config, ":")
	}
	if arg != "" {
		args = []string{arg}
	}
	return "table-" + name, args, true
}

// program checks that the program of a table is installed.
func program(m Machine, t *conf.Table, pos conf.Pos, diags *diag.List) {
	name, _, _ := TableProgram(t)
	switch {
	case name == "table-":
		diags.Errorf(pos, "table %s: proc needs the name or the path of a program", t.Name)
		return
	case !filepath.IsAbs(name) && strings.ContainsAny(name, "/ \t"):
		diags.Errorf(pos, "table %s: %q is not the name of a back end", t.Name, strings.TrimPrefix(name, "table-"))
		return
	case strings.ContainsAny(t.Name, "|\r\n"):
		diags.Errorf(pos, "table %q: a program cannot serve a table with such a name", t.Name)
		return
	}
	paths := []string{name}
	if !filepath.IsAbs(name) {
		paths = nil
		for _, dir := range m.LibExecs {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	for _, p := range paths {
		if _, err := m.Stat(p); err == nil {
			return
		}
	}
	diags.Add(diag.Diag{Severity: diag.Error, Pos: pos,
		Message: "table " + t.Name + ": backend \"" + t.Backend + "\" does not exist",
		Hint:    "built in are file, db and getpwnam; another is the program " + paths[0]})
}
