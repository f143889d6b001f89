package block_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Request and Answer are one call of a provider, from the process of a host to that of the cloud.
type Request struct {
	Host, Op, Of string
	Query        block.Query
	Spec         block.Spec
	Disk         block.Disk
	Tags         block.Tags
	Force        bool
}

type Answer struct {
	Disks       []block.Disk
	Disk        block.Disk
	Class, Text string
}

// server is the cloud, for other processes.
type server struct {
	t     *testing.T
	hosts map[string]*blocktest.Host
}

func (s *server) Call(q Request, a *Answer) (err error) {
	p, ctx := s.hosts[q.Host].Provider(s.t), s.t.Context()
	switch q.Op {
	case "List":
		a.Disks, err = p.List(ctx, q.Query)
	case "Create":
		a.Disk, err = p.Create(ctx, q.Spec)
	case "Delete":
		err = p.Delete(ctx, q.Disk)
	case "Attach":
		err = p.Attach(ctx, q.Disk, block.Host{ID: q.Of})
	case "Detach":
		err = p.Detach(ctx, q.Disk, q.Of, q.Force)
	case "SetTags":
		err = p.SetTags(ctx, q.Disk, q.Tags)
	}
	if err != nil {
		a.Class, a.Text = errdefs.Name(err), err.Error()
	}
	return nil
}

// far is a provider whose cloud is in another process.
type far struct {
	c      *rpc.Client
	host   string
	traits block.Traits
}

func (f far) call(ctx context.Context, q Request) (Answer, error) {
	q.Host = f.host
	var a Answer
	call := f.c.Go("server.Call", q, &a, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
	if call.Error != nil {
		return a, errdefs.As(errdefs.ErrUnavailable, call.Error)
	}
	if a.Text != "" {
		return a, errdefs.Named(a.Class, errors.New(a.Text))
	}
	return a, nil
}

func (f far) Traits() block.Traits                     { return f.traits }
func (f far) Self(context.Context) (block.Host, error) { return block.Host{ID: f.host}, nil }
func (f far) Match(d block.Disk, v block.Device) bool  { return v.Serial == d.ID }
func (f far) Delete(ctx context.Context, d block.Disk) error {
	_, err := f.call(ctx, Request{Op: "Delete", Disk: d})
	return err
}

func (f far) List(ctx context.Context, q block.Query) ([]block.Disk, error) {
	a, err := f.call(ctx, Request{Op: "List", Query: q})
	return a.Disks, err
}

func (f far) Create(ctx context.Context, s block.Spec) (block.Disk, error) {
	a, err := f.call(ctx, Request{Op: "Create", Spec: s})
	return a.Disk, err
}

func (f far) Attach(ctx context.Context, d block.Disk, self block.Host) error {
	_, err := f.call(ctx, Request{Op: "Attach", Disk: d, Of: self.ID})
	return err
}

func (f far) Detach(ctx context.Context, d block.Disk, host string, force bool) error {
	_, err := f.call(ctx, Request{Op: "Detach", Disk: d, Of: host, Force: force})
	return err
}

func (f far) SetTags(ctx context.Context, d block.Disk, tags block.Tags) error {
	_, err := f.call(ctx, Request{Op: "SetTags", Disk: d, Tags: tags})
	return err
}

// childEnv has the socket of the cloud, the host, its directory, and those of its devices.
const childEnv = "REMORA_BLOCK_TEST_CHILD"

// TestMain is also the daemon of a host, which is killed.
func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(childEnv)); len(args) == 5 {
		if err := live(args[0], args[1], args[2], args[3], args[4]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testenv.Main(m))
}

// live makes, mounts, writes, unmounts and hands on two volumes for ever. Each line that it says is
// true when it is said.
func live(socket, host, dir, dev, sys string) error {
	c, err := rpc.Dial("unix", socket)
	if err != nil {
		return err
	}
	ctx := context.Background()
	d, err := block.Open(ctx, far{c, host, block.Traits{
		Kind: "far", Scope: "the cloud", Client: block.NewClient("far", 10000), Unit: 1 << 20, MinSize: 16 << 20,
	}}, block.Config{
		Namespace: "test", Size: 32 << 20, FS: "ext4", Detach: time.Millisecond, Wait: 10 * time.Millisecond, Preempt: "never",
		Refresh: time.Minute, Rate: 10000, Dev: dev, Sys: sys,
	}, catalog.Env{PoolName: "pool", StateDir: dir + "/state", RunDir: dir + "/run"})
	if err != nil {
		return err
	}
	defer d.(io.Closer).Close()
	target := func(name string) string { return dir + "/mnt/" + name }
	// What the one before left mounted is taken back, as the Handler does.
	for _, name := range []string{"own-" + host, "shared"} {
		if err := os.MkdirAll(target(name), 0o700); err != nil {
			return err
		}
		if err := d.Unmount(ctx, name, target(name)); err != nil {
			return fmt.Errorf("unmount at the start: %w", err)
		}
	}
	for round := 0; ; round++ {
		for _, name := range []string{"own-" + host, "shared"} {
			if err := use(ctx, d, name, target(name), host); err != nil {
				return err
			}
		}
		if round%4 == 3 {
			if err := d.Remove(ctx, "own-"+host); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return fmt.Errorf("remove: %w", err)
			}
			fmt.Println("removed own-" + host)
		}
	}
}

type driver interface {
	Create(ctx context.Context, name string, opts map[string]string) error
	Mount(ctx context.Context, name, target string) (string, error)
	Unmount(ctx context.Context, name, mountpoint string) error
}

// use mounts a volume, adds one to the number in it, and says which it is.
func use(ctx context.Context, d driver, name, at, host string) error {
	if err := d.Create(ctx, name, map[string]string{}); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	_, err := d.Mount(ctx, name, at)
	switch {
	case errors.Is(err, errdefs.ErrInUse) && name == "shared":
		return nil // the other host has it
	case err != nil:
		return fmt.Errorf("mount %s: %w", name, err)
	}
	file := at + "/n"
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	fmt.Printf("found %s %d\n", name, n)
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintln(f, n+1); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close(), os.Rename(file+".new", file), syncDir(at)); err != nil {
		return err
	}
	fmt.Printf("wrote %s %d\n", name, n+1)
	if err := d.Unmount(ctx, name, at); err != nil {
		return fmt.Errorf("unmount %s: %w", name, err)
	}
	fmt.Println("unmounted " + name)
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// TestKills kills the daemons of two hosts at any moment: a thousand times in a soak. What was written is
// there, nothing is formatted twice, and nothing is stuck.
func TestKills(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	kills := 100
	switch {
	case os.Getenv("REMORA_SOAK") != "":
		kills = 1000
	case testing.Short():
		kills = 30
	}
	seed := rand.Uint64()
	if text := os.Getenv("REMORA_SOAK_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))
	cloud := blocktest.NewReference(t)
	srv := &server{t, map[string]*blocktest.Host{}}
	rpcs := rpc.NewServer()
	if err := rpcs.RegisterName("server", srv); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kill") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	last := map[string]int{} // the number that was last written, by volume
	type daemon struct {
		*blocktest.Host
		dir string
	}
	var hosts []daemon
	for range 2 {
		h := cloud.Host(t)
		srv.hosts[h.ID] = h
		hosts = append(hosts, daemon{h, t.TempDir()})
	}
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go rpcs.ServeConn(c)
		}
	}()
	defer func() {
		for _, h := range hosts {
			for _, m := range []string{"own-" + h.ID, "shared"} {
				_ = unix.Unmount(filepath.Join(h.dir, "mnt", m), unix.MNT_DETACH)
			}
		}
	}()
	progress := 0
	for i := range kills {
		h := hosts[i/3%2]
		life := time.Duration(20+moments.IntN(700)) * time.Millisecond
		lines := run(t, []string{dir + "/s", h.ID, h.dir, h.Machine.Dev(), h.Machine.Sys()}, life)
		for _, line := range lines {
			var word, name string
			var n int
			_, _ = fmt.Sscan(line, &word, &name, &n)
			switch word {
			case "error:":
				t.Fatalf("kill %d, host %s: %s", i, h.ID, line)
			case "found":
				// The write of one that was killed may have come to the disk without a word.
				if n != last[name] && n != last[name]+1 && (!strings.HasPrefix(name, "own") || n != 0) {
					t.Fatalf("kill %d: %s has %d in it, and had %d", i, name, n, last[name])
				}
				last[name] = n
			case "wrote":
				last[name] = n
				progress++
			}
		}
		// Between two daemons of one host the other one comes by, whose mounts this has not.
		if i%3 == 2 {
			for _, m := range []string{"own-" + h.ID, "shared"} {
				_ = unix.Unmount(filepath.Join(h.dir, "mnt", m), 0)
			}
		}
	}
	t.Logf("%d kills, %d writes, the shared volume is at %d", kills, progress, last["shared"])
	if progress < kills/4 || last["shared"] == 0 {
		t.Errorf("%d writes, %d to the shared volume: something is stuck", progress, last["shared"])
	}
}

// run lets a daemon live until it is killed, and returns what it said.
func run(t *testing.T, args []string, life time.Duration) (lines []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(args, " "))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(life, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	defer kill.Stop()
	for s := bufio.NewScanner(out); s.Scan(); {
		lines = append(lines, s.Text())
	}
	_ = cmd.Wait()
	return lines
}
