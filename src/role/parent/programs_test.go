package parent

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/proc"
)

// nursery is programs with what they need, and the pipes that they gave.
type nursery struct {
	*programs
	clock *clock.Fake
	book  *mlog.Memory
	given chan *os.File
}

func newNursery(t *testing.T) *nursery {
	n := &nursery{
		clock: clock.NewFake(time.Unix(1e9, 0)), book: new(mlog.Memory), given: make(chan *os.File, 8),
	}
	n.programs = newPrograms(n.clock, mlog.New(n.book, true), func(_ proc.Role, _ string, f *os.File) { n.given <- f })
	t.Cleanup(func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.close()
		}()
		for {
			select {
			case <-done:
				return
			default:
				n.clock.Advance(programGrace)
			}
		}
	})
	return n
}

// born starts a program of the shell in a generation of its own.
func (n *nursery) born(t *testing.T, command string) (*program, *bufio.ReadWriter) {
	t.Helper()
	g, f, err := n.start(programSpec{Identity: "proc:" + command, Name: "prog", Role: proc.Dispatcher, Command: "sh -c '" + command + "'"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	n.commit(map[string]bool{g.spec.Identity: true}, []*program{g})
	return g, pipe(f)
}

func pipe(f *os.File) *bufio.ReadWriter {
	return bufio.NewReadWriter(bufio.NewReader(f), bufio.NewWriterSize(f, 1))
}

func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	line, err := r.(*bufio.ReadWriter).ReadString('\n')
	if err != nil {
		t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// A program has one socket as standard input and output, leads its process
// group, sees the libexec directory first, and has its stderr logged.
func TestProgramStart(t *testing.T) {
	t.Setenv("LD_PRELOAD", "/tmp/evil.so")
	n := newNursery(t)
	_, p := n.born(t, `echo oops >&2; read x; echo "got $x"; echo "$PATH"; echo "${LD_PRELOAD-clean}"; echo $$; cat`)
	p.WriteString("hello\n")
	p.Flush()
	if got := readLine(t, p); got != "got hello" {
		t.Errorf("it says %q", got)
	}
	if got := readLine(t, p); !strings.HasPrefix(got, libExec()+":") || !strings.HasSuffix(got, "/bin") {
		t.Errorf("PATH is %q", got)
	}
	if got := readLine(t, p); got != "clean" {
		t.Errorf("LD_PRELOAD is %q", got)
	}
	if pid, err := strconv.Atoi(readLine(t, p)); err != nil {
		t.Error(err)
	} else if pgid, err := syscall.Getpgid(pid); err != nil || pgid != pid {
		t.Errorf("process %d is of group %d, %v", pid, pgid, err)
	}
	n.book.TakeUntil("prog: oops")
}

// Deaths are told, and followed by longer and longer pauses; a program that ran
// well begins anew.
func TestProgramRestart(t *testing.T) {
	n := newNursery(t)
	n.born(t, "exit 3")
	pause := firstPause
	for range 8 {
		n.book.TakeUntil(fmt.Sprintf("program ended: exit status 3; started again in %v", pause))
		n.clock.BlockUntil(1)
		n.clock.Advance(pause - 1)
		if len(n.given) > 0 {
			t.Fatalf("it was started before %v had passed", pause)
		}
		n.clock.Advance(1)
		(<-n.given).Close()
		pause = min(2*pause, lastPause)
	}
}

func TestProgramRanWell(t *testing.T) {
	n := newNursery(t)
	_, p := n.born(t, "read x; exit 4")
	for range 3 {
		n.clock.Advance(wellFor)
		p.WriteString("end\n")
		p.Flush()
		n.book.TakeUntil("exit status 4; started again in 1s")
		n.clock.BlockUntil(1)
		n.clock.Advance(firstPause)
		f := <-n.given
		t.Cleanup(func() { f.Close() })
		p = pipe(f)
	}
}

// One that its role gives up is killed with its children and counts as dead;
// other roles have no say.
func TestProgramGivenUp(t *testing.T) {
	n := newNursery(t)
	g, p := n.born(t, "trap : TERM; sleep 1000 & echo $!; while :; do wait; done")
	child := readLine(t, p)
	n.giveUp(proc.Lookup, g.spec.Identity)
	n.giveUp(proc.Dispatcher, "proc:none")
	if n.book.Has("ended") {
		t.Fatal("it was killed on the word of the wrong role")
	}
	n.giveUp(proc.Dispatcher, g.spec.Identity)
	n.book.TakeUntil("program ended: signal: killed; started again in 1s")
	var pid int
	fmt.Sscan(child, &pid)
	for !gone(pid) { // it was killed, and will be once it runs
	}
	n.clock.BlockUntil(1)
	n.clock.Advance(firstPause)
	(<-n.given).Close()
}

// gone tells whether a process has ended; it is a zombie while nobody reaps it.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return syscall.Kill(pid, 0) != nil || err == nil && strings.Contains(string(stat), ") Z ")
}

// A program that a reload drops ends without a word once its role closes the
// pipe, or when its time is over; it is not started again.
func TestProgramDropped(t *testing.T) {
	for name, tc := range map[string]struct {
		command string
		obeys   bool
	}{
		"ends with its input": {"echo up; exec cat", true},
		"ignores everything":  {`trap "" TERM; echo up; while :; do sleep 1000; done`, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNursery(t)
			g, f, err := n.start(programSpec{Identity: "proc:x", Name: "prog", Role: proc.Dispatcher, Command: "sh -c '" + tc.command + "'"})
			if err != nil {
				t.Fatal(err)
			}
			n.commit(map[string]bool{"proc:x": true}, []*program{g})
			readLine(t, pipe(f))
			n.commit(map[string]bool{"proc:y": true}, nil)
			if n.has("proc:x") {
				t.Error("it is still one of ours")
			}
			n.clock.BlockUntil(1)
			if tc.obeys {
				f.Close()
			} else {
				defer f.Close()
				n.clock.Advance(drain)
				n.clock.BlockUntil(1)
				n.clock.Advance(programGrace)
			}
			n.wg.Wait()
			if n.book.Has("again") {
				t.Errorf("log: %q", n.book)
			}
		})
	}
}

// What a generation that is aborted has started ends, and a program that dies
// before its generation is in force waits for that.
func TestProgramPending(t *testing.T) {
	n := newNursery(t)
	spec := programSpec{Identity: "proc:x", Name: "prog", Role: proc.Lookup, Path: "/bin/sh", Argv: []string{"my-table", "-c", "echo $0; exit 1"}}
	g, f, err := n.start(spec)
	if err != nil {
		t.Fatal(err)
	}
	if got := readLine(t, pipe(f)); got != "/bin/sh" && got != "my-table" {
		t.Errorf("it calls itself %q", got)
	}
	f.Close()
	n.book.TakeUntil("exit status 1")
	n.clock.BlockUntil(1)
	n.clock.Advance(firstPause)
	if n.has("proc:x") || len(n.given) > 0 {
		t.Error("it was started again before its generation was in force")
	}
	n.commit(map[string]bool{"proc:x": true}, []*program{g})
	(<-n.given).Close()

	spec.Identity, spec.Argv = "proc:y", []string{"sh", "-c", "exec cat"}
	if g, f, err = n.start(spec); err != nil {
		t.Fatal(err)
	}
	(&plan{started: []*program{g}}).close()
	if rest, err := io.ReadAll(f); err != nil || len(rest) > 0 {
		t.Errorf("the aborted one says %q, %v", rest, err)
	}
	f.Close()
	spec.Path = "/nonexistent"
	if _, _, err := n.start(spec); err == nil {
		t.Error("a program that is not there was started")
	}
}

func TestProgramSpecs(t *testing.T) {
	for command, want := range map[string]string{
		"/usr/bin/f -a":  "/usr/bin/f -a",
		"filter-x -b /c": "filter-x -b /c",
		"sub/filter -d":  filepath.Join(libExec(), "sub/filter") + " -d",
	} {
		if got := filterProgram(&project.FilterProgram{Start: &conf.Proc{Command: command}}); got.Command != want || got.Role != proc.Dispatcher {
			t.Errorf("%q becomes %+v, want %q", command, got, want)
		}
	}
	for _, tc := range []struct {
		table      conf.Table
		path, argv string
	}{
		{conf.Table{Name: "a", Backend: "file", Config: "/f"}, "", ""},
		{conf.Table{Name: "a", Backend: "static"}, "", ""},
		{conf.Table{Name: "a", Backend: "mysql", Config: "/etc/m"}, filepath.Join(libExec(), "table-mysql"), "a /etc/m"},
		{conf.Table{Name: "a", Backend: "null"}, filepath.Join(libExec(), "table-null"), "a"},
		{conf.Table{Name: "a", Backend: "proc", Config: "/opt/t"}, "/opt/t", "a"},
	} {
		got, ok := tableProgram(&tc.table)
		if ok != (tc.path != "") || got.Path != tc.path || strings.Join(got.Argv, " ") != tc.argv {
			t.Errorf("%+v becomes %+v", tc.table, got)
		}
	}
	if gid, ok := groupIn("root:x:0:\nbad:x:no:\nmail:x:8:eve\n", "mail"); !ok || gid != 8 {
		t.Errorf("group mail is %d, %v", gid, ok)
	}
	for _, name := range []string{"bad", "none", ""} {
		if _, ok := groupIn("root:x:0:\nbad:x:no:\n", name); ok {
			t.Errorf("group %q was found", name)
		}
	}
}
