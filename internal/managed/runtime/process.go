package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// process is the first process of a plugin, which need not be a child of this one: it is held by a pidfd, so no
// other process can be taken for it.
type process struct {
	pid    int
	start  uint64 // when it was started, in ticks since boot, which tells it from a later one with its pid
	fd     *os.File
	exited chan struct{} // closed when it has ended, after exit was set
	exit   Exit
}

// openProcess holds the process with the pid. A start other than 0 is the one that it must have.
func openProcess(pid int, start uint64) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		if err = unix.SetNonblock(fd, true); err != nil { // PIDFD_NONBLOCK does that from Linux 5.10 on
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &process{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd"), exited: make(chan struct{})}
	st, err := readStat(pid)
	if err == nil && start != 0 && st.start != start {
		err = fmt.Errorf("process %d: is another one", pid)
	}
	if err != nil {
		_ = p.fd.Close()
		return nil, err
	}
	p.start = st.start
	go p.watch()
	return p, nil
}

// watch waits for the end without a thread: a pidfd is readable then (pidfd_open(2)).
func (p *process) watch() {
	defer close(p.exited)
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return
	}
	ended := false
	err = conn.Read(func(fd uintptr) bool {
		ended = pollIn(int(fd), unix.POLLIN)
		return ended
	})
	if err != nil || !ended {
		return // closed
	}
	// The status can be read while nobody has waited for the process, and on a new kernel after somebody has.
	for deadline := time.Now().Add(time.Second); !p.exit.Known && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if st, err := readStat(p.pid); err == nil && st.start == p.start && st.state == 'Z' {
			p.exit = exitOf(st.code)
			break
		}
		known, reaped := false, false
		_ = conn.Control(func(fd uintptr) {
			info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
			if unix.IoctlPidfdInfo(int(fd), &info) == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
				p.exit, known = exitOf(int(info.Exit_code)), true
			}
			reaped = unix.PidfdSendSignal(int(fd), 0, nil, 0) == unix.ESRCH
		})
		if known || reaped {
			break
		}
	}
	p.exit.Time = time.Now()
}

func pollIn(fd int, events int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}} //nolint:gosec // a file descriptor
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
}

// exitOf takes a status of wait(2) apart.
func exitOf(status int) Exit {
	ws := unix.WaitStatus(status) //nolint:gosec // 16 bits are used
	if ws.Signaled() {
		return Exit{Known: true, Signal: int(ws.Signal())}
	}
	return Exit{Known: true, Code: ws.ExitStatus()}
}

// signal sends a signal; a process that has ended is no error.
func (p *process) signal(sig unix.Signal) error {
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := conn.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(serr, unix.ESRCH) {
		return nil
	}
	return serr
}

// close lets go of the process, which goes on.
func (p *process) close() {
	_ = p.fd.Close()
	<-p.exited
}

type procStat struct {
	state  byte
	parent int
	start  uint64
	code   int
}

// readStat reads what is needed of proc_pid_stat(5).
func readStat(pid int) (procStat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	// The name in parentheses may hold anything, a parenthesis included.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 50 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	st := procStat{state: fields[0][0]}
	st.start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	if err == nil {
		st.parent, err = strconv.Atoi(string(fields[1]))
	}
	if err == nil {
		st.code, err = strconv.Atoi(string(fields[49]))
	}
	return st, err
}
