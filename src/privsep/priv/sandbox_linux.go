package priv

import (
	"errors"
	"os"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// sandbox adds the layers of Linux.
func (o *Options) sandbox(p Policy, r *Result) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	r.have("nodump")
	if err := o.landlock(p); err != nil {
		r.miss("landlock", err)
	} else {
		r.have("landlock")
	}
	if err := p.seccomp(); err != nil {
		r.miss("seccomp", err)
	} else {
		r.have("seccomp")
	}
	return nil
}

// landlock takes away the file system but for the working directory of a role
// that has one, and the network as far as the kernel can.
func (o *Options) landlock(p Policy) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return err
	}
	c := landlock.V11
	var rules []landlock.Rule
	if p.Connect {
		// Connecting is the role's work. It may choose its address, so port 0
		// can be bound, which nobody can find.
		c.HandledAccessNet = ll.AccessNetBindTCP
		rules = append(rules, landlock.BindTCP(0))
	}
	if p.Files {
		if abi < 2 {
			return errors.New("this kernel's cannot let files be renamed between directories")
		}
		rules = append(rules, landlock.RWDirs(o.workDir()).WithRefer())
	}
	return c.BestEffort().Restrict(rules...)
}

// seccomp leaves the system calls that the role needs. Others fail with EPERM;
// those that only an intruder makes kill the process.
func (p Policy) seccomp() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	known := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool {
			_, ok := info.SyscallNames[n]
			return !ok
		})
	}
	allowed := slices.Concat(runtimeCalls(), descriptorCalls())
	if p.Files {
		allowed = append(allowed, fileCalls()...)
	}
	if p.Connect {
		allowed = append(allowed, "socket", "connect", "bind")
	}
	if p.Accept {
		allowed = append(allowed, "accept", "accept4")
	}
	if p.Pair {
		allowed = append(allowed, "socketpair")
	}
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno,
			Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionAllow, Names: known(allowed), NamesWithCondtions: threadsOnly()},
				// As on a kernel without it, so that a C library falls back on clone.
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: known([]string{"clone3"})},
				{Action: seccomp.ActionKillProcess, Names: known([]string{
					"execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev",
				})},
			},
		},
	})
}

// threadsOnly allows the clone that makes a thread. A process would be the
// first step to run a program.
func threadsOnly() []seccomp.NameWithConditions {
	return []seccomp.NameWithConditions{{
		Name:       "clone",
		Conditions: []seccomp.Condition{{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}},
	}}
}

// runtimeCalls are what the Go runtime needs on one architecture or another.
func runtimeCalls() []string {
	return []string{
		"brk", "mmap", "mmap2", "munmap", "mprotect", "madvise", "mincore", "membarrier",
		"futex", "futex_time64", "sched_yield", "sched_getaffinity", "set_robust_list", "set_tid_address", "rseq",
		"nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "clock_gettime", "clock_gettime64", "clock_getres",
		"gettimeofday", "time", "restart_syscall",
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "tgkill", "gettid", "getpid",
		"timer_create", "timer_settime", "timer_settime64", "timer_delete", "setitimer",
		"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd2", "pipe2",
		"exit", "exit_group", "getrandom", "getrusage", "getrlimit", "ugetrlimit", "prlimit64", "uname", "sysinfo",
		"getuid", "geteuid", "getgid", "getegid", "getuid32", "geteuid32", "getgid32", "getegid32", "getppid",
	}
}

// descriptorCalls work on descriptors that the process has already.
func descriptorCalls() []string {
	return []string{
		"read", "write", "readv", "writev", "pread64", "pwrite64", "close", "close_range", "lseek", "_llseek",
		"fstat", "fstat64", "fcntl", "fcntl64", "dup", "dup3", "poll", "ppoll", "flock", "fadvise64",
		"sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg", "shutdown",
		"getsockopt", "setsockopt", "getsockname", "getpeername", "splice", "sendfile",
	}
}

// fileCalls work on names, below the root directory of the process.
func fileCalls() []string {
	return []string{
		"openat", "openat2", "newfstatat", "fstatat64", "statx", "faccessat", "faccessat2", "getdents64",
		"renameat", "renameat2", "unlinkat", "mkdirat", "linkat", "fchmod", "fchmodat", "fchmodat2", "utimensat",
		"ftruncate", "ftruncate64", "fallocate", "fsync", "fdatasync", "sync_file_range", "copy_file_range",
		"statfs", "statfs64", "fstatfs", "fstatfs64", "getcwd", "chdir", "umask",
	}
}
