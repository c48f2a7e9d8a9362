package shape

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// layers lists the rooms from the ground up. A package may import those of the
// rows above its own, and its own row's where the row is marked as one family.
// The longest prefix that fits decides.
var layers = []struct {
	family bool // packages of the row may import each other
	rooms  []string
}{
	{false, []string{"mail", "mailerr", "clock", "version", "paths", "safefile", "crypt"}},
	{false, []string{"mail/addr", "mlog"}},
	{true, []string{"mail/rfc5322", "mail/srs", "mda/format", "queue/envelope"}},
	{false, []string{"privsep/msg"}},
	{false, []string{"privsep/imsg", "privsep/priv", "stat"}},
	{false, []string{"privsep/proc"}},
	{true, []string{"conf"}},
	{true, []string{"smtp", "lookup", "mda", "queue", "bounce", "ctl", "pki", "filter"}},
	{true, []string{"mta"}},
	{false, []string{"role"}},
	{false, []string{"cmd"}},
	{true, []string{"bench", "regress", "shape"}},
}

// only lists what no other package may import, tests apart. A name ends in "/"
// when every package below it may.
var only = map[string][]string{
	"os/exec":                     {"privsep/", "role/parent", "bench/", "regress/"},
	"unsafe":                      {"privsep/", "cmd/auth-pam"}, // of cgo there
	"opensmtpd/src/queue/journal": {"queue/"},
	"opensmtpd/src/queue/spool":   {"queue/"},
	"opensmtpd/src/privsep/priv":  {"privsep/", "role/parent", "cmd/smtpd", "regress/"},
}

// pkg is one package of ours, by its path below src.
type pkg struct {
	dir     string
	doc     bool
	files   []string
	imports map[string]string    // of ordinary files: path → file
	asts    map[string]*ast.File // ordinary files
}

func load(t *testing.T) map[string]*pkg {
	t.Helper()
	pkgs := make(map[string]*pkg)
	fset := token.NewFileSet()
	root := filepath.Join("..")
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() == "testdata" {
			if err == nil {
				err = fs.SkipDir
			}
			return err
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, file, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		add(pkgs, filepath.ToSlash(rel), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 5 {
		t.Fatalf("found only %d packages below %s", len(pkgs), root)
	}
	return pkgs
}

func add(pkgs map[string]*pkg, file string, f *ast.File) {
	dir := path.Dir(file)
	p := pkgs[dir]
	if p == nil {
		p = &pkg{dir: dir, imports: make(map[string]string), asts: make(map[string]*ast.File)}
		pkgs[dir] = p
	}
	p.doc = p.doc || f.Doc != nil
	p.files = append(p.files, file)
	p.asts[file] = f
	for _, im := range f.Imports {
		if name, err := strconv.Unquote(im.Path.Value); err == nil {
			p.imports[name] = file
		}
	}
}

// floor returns the index of the row of layers that dir belongs to and the room.
func floor(dir string) (int, string) {
	at, best := -1, ""
	for i, row := range layers {
		for _, room := range row.rooms {
			if (dir == room || strings.HasPrefix(dir, room+"/")) && len(room) > len(best) {
				at, best = i, room
			}
		}
	}
	return at, best
}

func TestLayers(t *testing.T) {
	pkgs := load(t)
	for _, p := range sorted(pkgs) {
		at, _ := floor(p.dir)
		if at < 0 {
			t.Errorf("%s belongs to no layer: add it to the list, or to a room that exists", p.dir)
			continue
		}
		for im, file := range p.imports {
			dep, ours := strings.CutPrefix(im, "opensmtpd/src/")
			if !ours {
				continue
			}
			below, _ := floor(dep)
			if below > at || below == at && !layers[at].family {
				t.Errorf("%s imports %s, which is not below it", file, dep)
			}
		}
	}
}

func TestOnly(t *testing.T) {
	for _, p := range sorted(load(t)) {
		for im, file := range p.imports {
			may, limited := only[im]
			if limited && !allowed(p.dir, may) {
				t.Errorf("%s imports %s; only %s may", file, im, strings.Join(may, ", "))
			}
		}
	}
}

func allowed(dir string, may []string) bool {
	for _, m := range may {
		if dir == strings.TrimSuffix(m, "/") || strings.HasSuffix(m, "/") && strings.HasPrefix(dir, m) {
			return true
		}
	}
	return false
}

func TestPackageComments(t *testing.T) {
	for _, p := range sorted(load(t)) {
		if !p.doc {
			t.Errorf("%s has no package comment", p.dir)
		}
	}
}

// Names that tell a reader nothing about what is inside.
var drawers = regexp.MustCompile(`(^|/)(utils?|common|core|base|helpers?|types|misc|shared)(/|$)`)

func TestNames(t *testing.T) {
	for _, p := range sorted(load(t)) {
		if drawers.MatchString(p.dir) {
			t.Errorf("%s: name the package by what it knows", p.dir)
		}
	}
}

// TestForbidden holds that no package hides work in init, ends the process
// below cmd, sleeps, or handles private keys where it should not.
func TestForbidden(t *testing.T) {
	for _, p := range sorted(load(t)) {
		for file, f := range p.asts {
			forbidden(t, p.dir, file, f)
		}
	}
}

// keyCalls are those that read or make private keys; role/ca alone may, what plays
// it in tests, and bench, for the server that it measures. Never written.
var keyCalls = map[string]bool{
	"x509.ParsePKCS8PrivateKey": true, "x509.ParsePKCS1PrivateKey": true, "x509.ParseECPrivateKey": true,
	"tls.X509KeyPair": true, "tls.LoadX509KeyPair": true,
	"rsa.GenerateKey": true, "ecdsa.GenerateKey": true, "ed25519.GenerateKey": true,
}

func forbidden(t *testing.T, dir, file string, f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				t.Errorf("%s: func init", file)
			}
		case *ast.CallExpr:
			switch name := callee(n); {
			case name == "panic":
				t.Errorf("%s: panic", file)
			case name == "time.Sleep":
				t.Errorf("%s: time.Sleep", file)
			case keyCalls[name]:
				if dir != "role/ca" && dir != "pki/pkitest" && dir != "bench" {
					t.Errorf("%s: %s; private keys are in role/ca alone", file, name)
				}
			case name == "os.Exit" || strings.HasPrefix(name, "log.Fatal"):
				if !strings.HasPrefix(dir, "cmd/") && !strings.HasPrefix(dir, "bench") {
					t.Errorf("%s: %s outside cmd", file, name)
				}
			}
		}
		return true
	})
}

func callee(c *ast.CallExpr) string {
	switch fn := c.Fun.(type) {
	case *ast.Ident:
		return fn.Name
	case *ast.SelectorExpr:
		if x, ok := fn.X.(*ast.Ident); ok {
			return x.Name + "." + fn.Sel.Name
		}
	}
	return ""
}

func sorted(pkgs map[string]*pkg) []*pkg {
	list := make([]*pkg, 0, len(pkgs))
	for _, p := range pkgs {
		list = append(list, p)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].dir < list[j].dir })
	return list
}
