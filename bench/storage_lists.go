package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const snapshotsEach = 3

// lists measures how long it takes to list many volumes, each with what it uses, its limit and
// its snapshots.
func (s *storageSuite) lists() error {
	s.results.Lists = nil
	drivers := []struct{ name, disk, opt string }{{"dir", "ext4", ""}, {"loop", "xfs", "size=16m"}, {"btrfs", "btrfs", "size=1g"}}
	tables, pools := "", map[string]string{}
	for _, d := range drivers {
		at, err := s.disk(d.disk, d.disk)
		if err != nil {
			return err
		}
		pools[d.name] = filepath.Join(at, "pool")
		if err := os.Mkdir(pools[d.name], 0o755); err != nil {
			return err
		}
		tables += fmt.Sprintf("[pool.%s]\ndriver = %q\npath = %q\n", d.name, d.name, pools[d.name])
	}
	h, err := s.serve("list", tables)
	if err != nil {
		return err
	}
	for _, d := range drivers {
		if err := s.step("lists: make %d volumes of %s", s.volumes, d.name); err != nil {
			return err
		}
		args := []string{"volume", "create", "--pool", d.name, nameOf(0)}
		if d.opt != "" {
			args = append(args, "-o", d.opt)
		}
		if _, _, err := h.run(args...); err != nil {
			return err
		}
		for i := range snapshotsEach {
			if d.name == "dir" {
				break // has none
			}
			if _, _, err := h.run("snapshot", "create", "--pool", d.name, nameOf(0), fmt.Sprintf("s%d", i)); err != nil {
				return err
			}
		}
		if err := multiply(pools[d.name], s.volumes); err != nil {
			return err
		}
	}
	if _, _, err := h.run("reconcile"); err != nil {
		return err
	}
	for _, d := range drivers { // until the quota has counted all
		for begin := time.Now(); ; time.Sleep(500 * time.Millisecond) {
			_, unknown, err := s.list(h, d.name)
			if err == nil && (unknown == 0 || d.name == "dir") {
				break
			}
			if time.Since(begin) > 2*time.Minute {
				return fmt.Errorf("%s: of %d volumes it is not known what they use: %w", d.name, unknown, err)
			}
		}
	}
	for round := range s.listRounds {
		if err := s.step("lists: round %d of %d", round+1, s.listRounds); err != nil {
			return err
		}
		for _, d := range drivers {
			took, unknown, err := s.list(h, d.name)
			if err != nil || unknown > 0 && d.name != "dir" {
				return fmt.Errorf("%s: %d volumes are not known: %w", d.name, unknown, err)
			}
			begin := time.Now()
			out, _, err := h.run("volume", "ls", "--pool", d.name)
			if err != nil {
				return err
			}
			command := time.Since(begin)
			if n := strings.Count(out, "\n"); n != s.volumes {
				return fmt.Errorf("%s: the table has %d lines", d.name, n)
			}
			n := snapshotsEach
			if d.name == "dir" {
				n = 0
			}
			for via, t := range map[string]time.Duration{"API": took, "remora volume ls": command} {
				s.results.Lists = append(s.results.Lists, ListSample{
					Driver: d.name, Via: via, Volumes: s.volumes, Snapshots: n, Round: round, Millis: t.Seconds() * 1e3,
				})
			}
		}
	}
	return nil
}

// list asks the API for the volumes of a pool, looks at the answer, and returns of how many
// something is not known.
func (s *storageSuite) list(h *host, pool string) (took time.Duration, unknown int, err error) {
	begin := time.Now()
	b, err := h.call("Volume.List", map[string]any{"Pool": pool, "Usage": true})
	took = time.Since(begin)
	if err != nil {
		return took, 0, err
	}
	var answer struct {
		Volumes []struct {
			Used      *int64
			Snapshots *int
			Unknown   []string
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return took, 0, err
	}
	if len(answer.Volumes) != s.volumes {
		return took, 0, fmt.Errorf("listed are %d volumes", len(answer.Volumes))
	}
	for _, v := range answer.Volumes {
		if v.Unknown != nil || v.Used == nil {
			unknown++
		} else if pool != "dir" && (v.Snapshots == nil || *v.Snapshots != snapshotsEach) {
			return took, 0, errors.New("the number of snapshots is wrong")
		}
	}
	return took, unknown, nil
}

var idField = regexp.MustCompile(`"id": ?"[0-9a-f]{8}`)

// multiply copies the one volume of a pool until there are n, in the form in which the daemon
// made it: to have them made one after the other would take it half an hour, most of it in
// mkfs and in transactions of btrfs. What is a subvolume becomes an empty one, be it a
// snapshot or not: to a list they are the same.
func multiply(pool string, n int) error {
	const workers = 8
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w + 1; i < n && errs[w] == nil; i += workers {
				errs[w] = copyVolume(filepath.Join(pool, nameOf(0)), filepath.Join(pool, nameOf(i)), i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func copyVolume(from, to string, i int) error {
	if err := os.Mkdir(to, 0o711); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.IsDir():
			err = copyDirectory(a, b, i)
		case filepath.Ext(a) == ".json":
			err = copyFacts(a, b, i)
		default:
			err = reflink(a, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyDirectory copies a directory, or makes a subvolume for a subvolume.
func copyDirectory(from, to string, i int) error {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Stat(from, &st), unix.Statfs(from, &fs)); err != nil {
		return err
	}
	if fs.Type != unix.BTRFS_SUPER_MAGIC || st.Ino != 256 {
		return copyVolume(from, to, i)
	}
	parent, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	var args struct { // struct btrfs_ioctl_vol_args
		fd   int64
		name [4088]byte
	}
	copy(args.name[:], filepath.Base(to))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, parent.Fd(), 0x5000940e, uintptr(unsafe.Pointer(&args))); errno != 0 { // BTRFS_IOC_SUBVOL_CREATE
		err = fmt.Errorf("make subvolume %s: %w", to, errno)
	}
	return errors.Join(err, parent.Close())
}

func copyFacts(from, to string, i int) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	b = bytes.ReplaceAll(b, []byte(nameOf(0)), []byte(nameOf(i)))
	b = idField.ReplaceAll(b, fmt.Appendf(nil, `"id":"%08x`, i))
	return os.WriteFile(to, b, 0o600)
}

// reflink makes a file that shares the blocks of another (ioctl_ficlone(2)).
func reflink(from, to string) error {
	a, err := os.Open(from)
	if err != nil {
		return err
	}
	b, err := os.Create(to)
	if err == nil {
		err = errors.Join(unix.IoctlFileClone(int(b.Fd()), int(a.Fd())), b.Close())
	}
	return errors.Join(err, a.Close())
}
