//go:build linux && (amd64 || arm64)

package priv

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter is assembled here and not by a library: the one there is keeps the
// tables of all architectures in memory, 250 KiB in each of our processes.

// Classic BPF as seccomp(2) takes it, and where it finds the call.
const (
	load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	bits  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	give  = unix.BPF_RET | unix.BPF_K

	offNumber = 0
	offArch   = 4
	offArg0   = 16 // its lower half, on little-endian machines
)

// seccomp leaves the system calls that the role needs. Others fail with EPERM;
// those that only an intruder makes kill the process.
func (p Policy) seccomp() error {
	prog := filter(p.calls(), intruderCalls())
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// no_new_privs is of the thread; TSYNC carries it to the others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno != 0:
		return os.NewSyscallError("seccomp", errno)
	case thread != 0:
		return fmt.Errorf("seccomp: thread %d has a filter of its own", thread)
	}
	return nil
}

// calls lists what the policy allows.
func (p Policy) calls() []uint32 {
	list := slices.Concat(runtimeCalls(), descriptorCalls(), archCalls())
	if p.Files {
		list = slices.Concat(list, fileCalls(), archFileCalls())
	}
	if p.Connect {
		list = append(list, unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND)
	}
	if p.Accept {
		list = append(list, unix.SYS_ACCEPT, unix.SYS_ACCEPT4)
	}
	if p.Pair {
		list = append(list, unix.SYS_SOCKETPAIR)
	}
	return list
}

// filter assembles the program:
//
//	of another architecture, or in killed           → kill the process
//	clone of a thread, in allowed                   → allow
//	clone3, and calls of the x32 kind               → ENOSYS, so that the C library falls back
//	everything else, clone of a process among it    → EPERM
//
// The four returns stand at the end; no jump is longer than 255.
func filter(allowed, killed []uint32) []unix.SockFilter {
	const allow, kill, nosys, eperm = 0, 1, 2, 3
	var prog []unix.SockFilter
	type jump struct {
		at    int
		label uint8
	}
	var jumps []jump
	to := func(code uint16, k uint32, label uint8) {
		jumps = append(jumps, jump{len(prog), label})
		prog = append(prog, unix.SockFilter{Code: code, K: k})
	}
	prog = append(prog, unix.SockFilter{Code: load, K: offArch},
		unix.SockFilter{Code: equal, K: auditArch, Jt: 1},
		unix.SockFilter{Code: give, K: unix.SECCOMP_RET_KILL_PROCESS},
		unix.SockFilter{Code: load, K: offNumber})
	to(least, x32Bit, nosys)
	for _, n := range allowed {
		to(equal, n, allow)
	}
	for _, n := range killed {
		to(equal, n, kill)
	}
	to(equal, unix.SYS_CLONE3, nosys)
	prog = append(prog, unix.SockFilter{Code: equal, K: unix.SYS_CLONE, Jf: 2}, // else: EPERM
		unix.SockFilter{Code: load, K: offArg0})
	to(bits, unix.CLONE_THREAD, allow)
	end := len(prog)
	for _, j := range jumps {
		target := end + map[uint8]int{eperm: 0, allow: 1, kill: 2, nosys: 3}[j.label]
		prog[j.at].Jt = uint8(target - j.at - 1)
	}
	return append(prog,
		unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: give, K: unix.SECCOMP_RET_KILL_PROCESS},
		unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
}

// runtimeCalls are what the Go runtime needs; the most frequent stand first.
func runtimeCalls() []uint32 {
	return []uint32{
		unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT, unix.SYS_NANOSLEEP, unix.SYS_EPOLL_CTL,
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_CLOSE,
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
		unix.SYS_MEMBARRIER, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
		unix.SYS_SET_ROBUST_LIST, unix.SYS_SET_TID_ADDRESS, unix.SYS_RSEQ,
		unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		unix.SYS_TGKILL, unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_RESTART_SYSCALL,
		unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_GETRANDOM,
		unix.SYS_GETRUSAGE, unix.SYS_PRLIMIT64, unix.SYS_UNAME, unix.SYS_SYSINFO,
		unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
	}
}

// descriptorCalls work on descriptors that the process has already.
func descriptorCalls() []uint32 {
	return []uint32{
		unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_PWRITEV, unix.SYS_LSEEK,
		unix.SYS_FSTAT, unix.SYS_FCNTL, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_PPOLL, unix.SYS_FLOCK,
		unix.SYS_FADVISE64, unix.SYS_SENDTO, unix.SYS_SENDMMSG, unix.SYS_RECVFROM, unix.SYS_RECVMMSG,
		unix.SYS_SHUTDOWN, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
		unix.SYS_SPLICE, unix.SYS_SENDFILE,
	}
}

// fileCalls work on names, below the root directory of the process.
func fileCalls() []uint32 {
	return []uint32{
		unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_STATX, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_GETDENTS64,
		unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_LINKAT,
		unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_UTIMENSAT, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE,
		unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_COPY_FILE_RANGE,
		unix.SYS_STATFS, unix.SYS_FSTATFS, unix.SYS_GETCWD, unix.SYS_CHDIR,
	}
}

// intruderCalls are those that none of our roles makes by mistake.
func intruderCalls() []uint32 {
	return append([]uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	}, archIntruderCalls()...)
}
