package csitest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Mock is a driver, as a test holds it.
type Mock struct {
	// Endpoint is the socket of the node, and of the controller; with [Options].Split the latter is Controller alone.
	Endpoint, Controller string
	Faults               Faults
	Options              Options

	t    testing.TB
	dir  string // of this host
	s    *storage
	j    *journal
	hook func(rpc string, when When)

	mu  sync.Mutex
	d   *driver
	cmd *exec.Cmd
}

// Start starts a driver, which ends with the test. The test fails at its end if a caller did what it must not.
func Start(t testing.TB, o Options) *Mock {
	t.Helper()
	return start(t, o, t.TempDir())
}

// Beside starts the driver of another host, with the same storage. Neither may have a process of its own.
func (m *Mock) Beside(t testing.TB, node string) *Mock {
	t.Helper()
	o := m.Options
	o.NodeID = node
	if m.s == nil {
		t.Fatal("csitest: a driver beside one with a process of its own")
	}
	b := &Mock{t: t, Options: o, dir: t.TempDir(), s: m.s}
	b.begin()
	return b
}

func start(t testing.TB, o Options, dir string) *Mock {
	t.Helper()
	o = o.withDefaults()
	m := &Mock{t: t, Options: o, dir: dir}
	if !o.Process {
		s, err := openStorage(filepath.Join(dir, "storage"))
		if err != nil {
			t.Fatal(err)
		}
		m.s = s
	}
	m.begin()
	return m
}

func (m *Mock) begin() {
	m.t.Helper()
	m.j = &journal{dir: m.dir}
	m.Faults = Faults{m.j}
	// The path of a socket has at most 107 bytes.
	sockets, err := os.MkdirTemp("", "csi")
	if err != nil {
		m.t.Fatal(err)
	}
	m.Endpoint = filepath.Join(sockets, "csi.sock")
	if m.Options.Split {
		m.Controller = filepath.Join(sockets, "ctl.sock")
	}
	text, err := json.Marshal(child{m.Options, m.Endpoint, m.Controller})
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, "options"), text, 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.Restart()
	m.t.Cleanup(func() {
		m.Kill()
		_ = os.RemoveAll(sockets)
		for _, v := range m.Volumes() {
			m.unmount(v)
		}
		if m.Options.MayViolate {
			return
		}
		for _, v := range m.Violations() {
			m.t.Errorf("the CSI driver's caller must not: %s", v)
		}
	})
}

// unmount takes away what is mounted of a volume at this host.
func (m *Mock) unmount(v Volume) {
	for _, p := range v.Published {
		if p.Node == m.Options.NodeID {
			_ = unix.Unmount(p.Target, unix.MNT_DETACH)
		}
	}
	if s := v.Staged[m.Options.NodeID]; s != nil {
		_ = unix.Unmount(s.Path, unix.MNT_DETACH)
	}
}

// OnCall has f called at each RPC, before and after it has its effect, in the driver: a call of f is no shorter than that of
// the RPC. It is of no use with a process of its own.
func (m *Mock) OnCall(f func(rpc string, when When)) {
	m.hook = f
	m.Restart()
}

// Restart ends the driver, if it still lives, and starts it.
func (m *Mock) Restart() {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end()
	if m.Options.Process {
		m.restartProcess()
		return
	}
	m.d = newDriver(m.Options, m.s, m.j)
	m.d.hook = m.hook
	m.s.addNode(m.Options.NodeID, m.Options.Topology)
	if err := m.d.listen(m.Endpoint, m.Controller); err != nil {
		m.t.Fatal(err)
	}
}

// Alive tells whether the driver runs.
func (m *Mock) Alive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		// A process that has ended is there until it is waited for.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
		_, state, _ := strings.Cut(string(stat), ") ")
		return err == nil && !strings.HasPrefix(state, "Z")
	}
	if m.d == nil {
		return false
	}
	select {
	case <-m.d.dead:
		return false
	default:
		return true
	}
}

// Kill ends the driver without a warning. What it has mounted stays.
func (m *Mock) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end()
}

// end is Kill, for who has the lock.
func (m *Mock) end() {
	if m.d != nil {
		m.d.end()
		m.d = nil
	}
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// Reboot ends the driver, takes away all its mounts at this host, as a reboot does, and starts it again. What is attached stays
// so.
func (m *Mock) Reboot() {
	m.t.Helper()
	m.Kill()
	for _, v := range m.Volumes() {
		m.unmount(v)
	}
	m.Restart()
}

// Violations are what callers did that they must not, so far.
func (m *Mock) Violations() []Violation { return read[Violation](m.j, "violations") }

// Log is every call so far, in order.
func (m *Mock) Log() []Call { return read[Call](m.j, "calls") }

// Calls is how often each RPC was called.
func (m *Mock) Calls() map[string]int {
	n := map[string]int{}
	for _, c := range m.Log() {
		n[c.RPC]++
	}
	return n
}

// storage is what the driver has, as of now.
func (m *Mock) storage() (s *storage, unlock func()) {
	if m.s != nil {
		m.s.mu.Lock()
		return m.s, m.s.mu.Unlock
	}
	for range 100 { // files may go while they are read
		if s, err := openStorage(filepath.Join(m.dir, "storage")); err == nil {
			return s, func() {}
		}
		time.Sleep(time.Millisecond)
	}
	m.t.Error("csitest: the storage cannot be read")
	s, _ = openStorage(m.t.TempDir())
	return s, func() {}
}

// Volumes are all there are, by name.
func (m *Mock) Volumes() (list []Volume) {
	s, unlock := m.storage()
	defer unlock()
	for _, v := range s.volumes {
		list = append(list, v.clone())
	}
	slices.SortFunc(list, func(a, b Volume) int { return compare(a.Name, b.Name) })
	return list
}

// Volume returns one by its id.
func (m *Mock) Volume(id string) (Volume, bool) {
	for _, v := range m.Volumes() {
		if v.ID == id {
			return v, true
		}
	}
	return Volume{}, false
}

// Snapshots are all there are, by name.
func (m *Mock) Snapshots() (list []Snapshot) {
	s, unlock := m.storage()
	defer unlock()
	for _, v := range s.snapshots {
		list = append(list, *v)
	}
	slices.SortFunc(list, func(a, b Snapshot) int { return compare(a.Name, b.Name) })
	return list
}

// Attached are the nodes that a volume is attached to.
func (m *Mock) Attached(id string) []string {
	v, _ := m.Volume(id)
	return sortedKeys(v.Attached)
}

// Data is the directory in which a volume's files are, wherever it is mounted.
func (m *Mock) Data(id string) string {
	v, _ := m.Volume(id)
	if m.s != nil {
		return m.s.data(v.Key)
	}
	return filepath.Join(m.dir, "storage", "data", v.Key)
}

// Steal attaches a volume to another node behind everyone's back; Return detaches it from there.
func (m *Mock) Steal(id, node string) {
	m.change(id, func(v *Volume) { v.Attached[node] = &Attachment{} })
}

// Return takes back what Steal did.
func (m *Mock) Return(id, node string) { m.change(id, func(v *Volume) { delete(v.Attached, node) }) }

// Forget removes a volume behind everyone's back. It must not be mounted.
func (m *Mock) Forget(id string) {
	m.change(id, func(v *Volume) {
		_ = m.s.drop("volumes", v.Key)
		_ = os.RemoveAll(m.s.data(v.Key))
		delete(m.s.volumes, id)
	})
}

func (m *Mock) change(id string, f func(*Volume)) {
	m.t.Helper()
	if m.s == nil {
		m.t.Fatal("csitest: the storage of a process of its own")
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	v := m.s.volumes[id]
	if v == nil {
		m.t.Fatalf("csitest: no volume %s", id)
	}
	f(v)
	if m.s.volumes[id] == nil {
		return
	}
	if err := m.s.saveVolume(v); err != nil {
		m.t.Fatal(err)
	}
}

// Left says what is not as if nobody had ever been here: volumes, attachments, what is staged and published.
func (m *Mock) Left() (left []string) {
	for _, v := range m.Volumes() {
		left = append(left, fmt.Sprintf("volume %s (%s)", v.ID, v.Name))
		for node := range v.Attached {
			left = append(left, fmt.Sprintf("volume %s attached to %s", v.ID, node))
		}
		for node, s := range v.Staged {
			left = append(left, fmt.Sprintf("volume %s staged on %s at %s", v.ID, node, s.Path))
		}
		for _, p := range v.Published {
			left = append(left, fmt.Sprintf("volume %s published on %s at %s", v.ID, p.Node, p.Target))
		}
	}
	for _, s := range m.Snapshots() {
		left = append(left, fmt.Sprintf("snapshot %s (%s) of %s", s.ID, s.Name, s.Volume))
	}
	slices.Sort(left)
	return left
}

func (v *Volume) clone() Volume {
	c := *v
	c.Attached, c.Staged, c.Published = maps.Clone(v.Attached), maps.Clone(v.Staged), maps.Clone(v.Published)
	return c
}

// child is what a process of its own is told.
type child struct {
	Options          Options
	Node, Controller string
}

// childEnv has the directory of the driver that a process is to be.
const childEnv = "REMORA_CSITEST"

// Main is the driver, in a process of its own. It returns false where this process is none.
func Main() bool {
	dir := os.Getenv(childEnv)
	if dir == "" {
		return false
	}
	fmt.Fprintln(os.Stderr, "csitest:", serve(dir))
	os.Exit(1)
	return true
}

func serve(dir string) error {
	var c child
	text, err := os.ReadFile(filepath.Join(dir, "options"))
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return err
	}
	return Serve(c.Options, dir, c.Node, c.Controller)
}

// Serve is a driver whose state is in dir, until this process is killed. It returns where it cannot be one.
func Serve(o Options, dir, node, controller string) error {
	o = o.withDefaults()
	s, err := openStorage(filepath.Join(dir, "storage"))
	if err != nil {
		return err
	}
	s.addNode(o.NodeID, o.Topology)
	d := newDriver(o, s, &journal{dir: dir})
	d.kill = killSelf
	if err := d.listen(node, controller); err != nil {
		return err
	}
	select {}
}

// restartProcess waits until the driver can be called.
func (m *Mock) restartProcess() {
	m.t.Helper()
	_ = os.Remove(m.Endpoint)
	m.cmd = exec.Command(os.Args[0])
	m.cmd.Env = append(os.Environ(), childEnv+"="+m.dir)
	m.cmd.Stderr = os.Stderr
	// Nothing of a test outlives it, if the test itself is killed.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for range 1000 {
		if _, err := os.Stat(m.Endpoint); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.t.Fatal("csitest: the driver does not start; does TestMain call csitest.Main?")
}
