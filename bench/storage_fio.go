package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The sides of a pair.
const bare = "bare"

// jobs are what fio does. All but the last go around the page cache, so that it is the way to
// the disk that is measured and not memory.
var jobs = []struct {
	name string
	args []string
}{
	{"4k random read", []string{"--rw=randread", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=16"}},
	{"4k random write", []string{"--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=16"}},
	{"1 MiB sequential read", []string{"--rw=read", "--bs=1m", "--direct=1", "--ioengine=libaio", "--iodepth=4"}},
	{"1 MiB sequential write", []string{"--rw=write", "--bs=1m", "--direct=1", "--ioengine=libaio", "--iodepth=4"}},
	{"4k random write, fsync after each", []string{"--rw=randwrite", "--bs=4k", "--fsync=1", "--ioengine=psync"}},
}

// limited is btrfs with a limit on the volume, which has it count.
const limited = "btrfs, with a limit"

// wholly is loop with all of the volume written when it is made.
const wholly = "loop, written"

// pair is a volume, and a directory on the bare file system.
type pair struct {
	driver     string
	ours, bare string
}

// dataPath measures what the way through a volume costs against the bare file system.
func (s *storageSuite) dataPath() error {
	at := map[string]string{}
	for _, d := range [][2]string{{"ext4", "ext4"}, {"xfs", "xfs"}, {"btrfs", "btrfs"}, {"limited", "btrfs"}, {"plain", "btrfs"}} {
		dir, err := s.disk(d[0], d[1])
		if err != nil {
			return err
		}
		at[d[0]] = dir
		for _, sub := range []string{"bare", "pool"} {
			if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
				return err
			}
		}
	}
	server, err := s.sshd(at["ext4"])
	if err != nil {
		return err
	}
	h, err := s.serve("fio", fmt.Sprintf("[pool.dir]\npath = %q\n[pool.loop]\ndriver = \"loop\"\npath = %q\n[pool.btrfs]\ndriver = \"btrfs\"\npath = %q\n"+
		"[pool.limited]\ndriver = \"btrfs\"\npath = %q\n[pool.sshfs]\ndriver = \"sshfs\"\nbase = \"root@127.0.0.1:%s\"\nport = %d\nidentity_file = %q\nknown_hosts = %q\n",
		at["ext4"]+"/pool", at["xfs"]+"/pool", at["btrfs"]+"/pool", at["limited"]+"/pool", server.data, server.port, server.file("id"), server.file("known_hosts")))
	if err != nil {
		return err
	}
	var pairs []pair
	for i, p := range []struct{ driver, pool, bare, opt string }{
		{"dir", "dir", at["ext4"], ""}, {"btrfs", "btrfs", at["plain"], ""}, {limited, "limited", at["plain"], "size=4g"},
		{"loop", "loop", at["xfs"], "size=4g"}, {wholly, "loop", at["xfs"], "size=4g,written=true"}, {"sshfs", "sshfs", "", ""},
	} {
		var opts []string
		if p.opt != "" {
			opts = strings.Split(p.opt, ",")
		}
		ours, err := s.volume(h, p.pool, fmt.Sprintf("fio%d", i), opts...)
		if err != nil {
			return err
		}
		dir := p.bare + "/bare"
		if p.driver == "sshfs" {
			if dir, err = s.plainSshfs(server); err != nil {
				return err
			}
		}
		pairs = append(pairs, pair{p.driver, ours, dir})
	}
	s.results.Fio = nil
	for round := range s.fioRounds {
		if err := s.step("fio: round %d of %d", round+1, s.fioRounds); err != nil {
			return err
		}
		for _, p := range pairs {
			if err := p.layOut(s.fioSize, round); err != nil {
				return fmt.Errorf("%s: %w", p.driver, err)
			}
			for _, j := range jobs {
				if err := s.turns(p, j.name, j.args, round); err != nil {
					return fmt.Errorf("%s, %s: %w", p.driver, j.name, err)
				}
			}
		}
	}
	return nil
}

// layOut writes the files of a pair anew, each round the other side's first: where a file lies on the disk counts in all that is
// measured with it.
func (p pair) layOut(size int64, round int) error {
	sides := []string{p.ours, p.bare}
	if round%2 == 1 {
		slices.Reverse(sides)
	}
	for _, dir := range sides {
		if err := os.Remove(dir + "/fio"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := errors.Join(flushed(p.bare), flushed(p.ours)); err != nil {
		return err
	}
	for _, dir := range sides {
		if _, err := fio("--name=layout", "--filename="+dir+"/fio", fmt.Sprintf("--size=%d", size), "--rw=write", "--bs=1m", "--ioengine=psync", "--end_fsync=1"); err != nil {
			return err
		}
	}
	return nil
}

// turns has one fio run a job on both sides of a pair, in many short turns that follow one
// another: whatever else the machine does, it does to both.
func (s *storageSuite) turns(p pair, job string, args []string, round int) error {
	if err := errors.Join(flushed(p.bare), flushed(p.ours)); err != nil {
		return err
	}
	all := append([]string{
		"--time_based", fmt.Sprintf("--runtime=%dms", s.fioTime.Milliseconds()), fmt.Sprintf("--size=%d", s.fioSize), "--thread", "--stonewall",
	}, args...)
	sides := map[string]string{remora: p.ours, bare: p.bare}
	var order []string
	for turn := range s.fioTurns {
		pair := []string{remora, bare}
		if (round+turn)%2 == 1 {
			slices.Reverse(pair)
		}
		order = append(order, pair...)
	}
	for i, side := range order {
		all = append(all, "--name="+side, "--filename="+sides[side]+"/fio", fmt.Sprintf("--randseed=%d", round*s.fioTurns+i/2+1))
	}
	rates, err := fio(all...)
	if err != nil {
		return err
	}
	if len(rates) != len(order) {
		return fmt.Errorf("fio ran %d jobs, and not %d", len(rates), len(order))
	}
	for i, side := range order {
		s.results.Fio = append(s.results.Fio, FioSample{Driver: p.driver, Side: side, Job: job, Round: round*s.fioTurns + i/2, KiB: rates[i]})
	}
	return nil
}

// fio returns the rates of the jobs that the arguments name, in KiB/s.
func fio(args ...string) ([]float64, error) {
	cmd := exec.Command("fio", append([]string{"--output-format=json"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("fio: %w: %s%.2000s", err, errs.Bytes(), out)
	}
	return fioRates(out)
}

// fioRates reads what fio prints.
func fioRates(out []byte) (rates []float64, err error) {
	type direction struct {
		Bytes   float64 `json:"io_bytes"`
		Runtime float64 `json:"runtime"` // milliseconds
	}
	var answer struct {
		Jobs []struct{ Read, Write direction }
	}
	if i := bytes.IndexByte(out, '{'); i > 0 { // notes come first
		out = out[i:]
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("fio answers %.200q: %w", out, err)
	}
	for _, j := range answer.Jobs {
		rates = append(rates, (j.Read.Bytes+j.Write.Bytes)/1024/(max(j.Read.Runtime, j.Write.Runtime, 1)/1000))
	}
	return rates, nil
}

// sshServer is an sshd on a port of loopback with keys of its own.
type sshServer struct {
	dir, data string
	port      int
}

func (v sshServer) file(name string) string { return filepath.Join(v.dir, name) }

// sshd runs a server whose data lies below base.
func (s *storageSuite) sshd(base string) (sshServer, error) {
	v := sshServer{dir: filepath.Join(s.dir, "sshd"), data: filepath.Join(base, "served")}
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		return v, err
	}
	if err := os.MkdirAll(v.data+"/plain", 0o755); err != nil {
		return v, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return v, err
	}
	v.port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return v, err
	}
	for _, key := range []string{"host", "id"} {
		if err := command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", v.file(key)); err != nil {
			return v, err
		}
	}
	public, err := os.ReadFile(v.file("host.pub"))
	if err != nil {
		return v, err
	}
	known := fmt.Sprintf("[127.0.0.1]:%d %s", v.port, public)
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nPermitRootLogin prohibit-password\n"+
		"UsePAM no\nSubsystem sftp internal-sftp\nPidFile none\n", v.port, v.file("host"), v.file("id.pub"))
	if err := os.WriteFile(v.file("known_hosts"), []byte(known), 0o600); err != nil {
		return v, err
	}
	if err := os.WriteFile(v.file("config"), []byte(config), 0o600); err != nil {
		return v, err
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -E "+v.file("log")+" -f "+v.file("config"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return v, err
	}
	s.undo = append(s.undo, func() error {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
		return os.RemoveAll(v.dir)
	})
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(v.port))); err == nil {
			return v, c.Close()
		}
	}
	return v, fmt.Errorf("sshd does not listen")
}

// plainSshfs mounts a directory of the server as one would by hand, with the options that
// the driver has by default.
func (s *storageSuite) plainSshfs(v sshServer) (string, error) {
	at := filepath.Join(s.dir, "sshfs")
	if err := os.Mkdir(at, 0o755); err != nil {
		return "", err
	}
	opts := []string{
		"reconnect", "allow_other", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=2", "TCPKeepAlive=yes",
		"UpdateHostKeys=no", "StrictHostKeyChecking=yes", "BatchMode=yes", "IdentitiesOnly=yes",
		"IdentityFile=" + v.file("id"), "UserKnownHostsFile=" + v.file("known_hosts"),
	}
	err := command("sshfs", "-F", "none", "-p", strconv.Itoa(v.port), "-o", strings.Join(opts, ","), "root@127.0.0.1:"+v.data+"/plain", at)
	s.undo = append(s.undo, func() error {
		_ = command("umount", at)
		return os.Remove(at)
	})
	return at, err
}
