package btrfs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

// TestSnapshotIsOneMoment: a program appends a numbered record to one file, brings it to the
// disk, and then to another. Whenever a snapshot is taken, the second file has as many
// records as the first, or one less; and none is missing that was on the disk before.
func TestSnapshotIsOneMoment(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openImage(t, newHost(t))
	create(t, d, "one")
	dir := data(t, d, "one")
	var done atomic.Uint64
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		var files [2]*os.File
		for i := range files {
			f, err := os.Create(fmt.Sprintf("%s/%d", dir, i))
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			files[i] = f
		}
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			for _, f := range files {
				if err := binary.Write(f, binary.LittleEndian, n); err != nil {
					t.Error(err)
					return
				}
				if err := f.Sync(); err != nil {
					t.Error(err)
					return
				}
			}
			done.Store(n)
		}
	})
	const snapshots = 30
	before := make([]uint64, snapshots)
	for i := range before {
		for from := done.Load(); done.Load() < from+3; { // the writer is in full swing
			time.Sleep(time.Millisecond)
		}
		before[i] = done.Load()
		if err := d.CreateSnapshot(t.Context(), "one", fmt.Sprint("s", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	writer.Wait()
	for i, least := range before {
		dir, err := d.OpenSnapshot(t.Context(), "one", fmt.Sprint("s", i), "")
		if err != nil {
			t.Fatal(err)
		}
		first, second := records(t, dir+"/0"), records(t, dir+"/1")
		if first != second && first != second+1 || second < least {
			t.Errorf("snapshot %d has %d and %d records, and %d were in both before", i, first, second, least)
		}
	}
}

// records counts the records of a file, which must be 1, 2, 3 …
func records(t *testing.T, path string) uint64 {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil || len(raw)%8 != 0 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	n := uint64(len(raw) / 8)
	for i := range n {
		if got := binary.LittleEndian.Uint64(raw[8*i:]); got != i+1 {
			t.Fatalf("record %d of %s is %d", i+1, path, got)
		}
	}
	return n
}

// TestDatabaseUnderLoad: a database that was cut off by a snapshot recovers, and has all that
// it said was committed.
func TestDatabaseUnderLoad(t *testing.T) {
	testenv.Require(t, testenv.Btrfs, testenv.SQLite)
	d := openImage(t, newHost(t))
	for _, tt := range []struct{ journal, option string }{{"wal", "nocow=false"}, {"delete", "nocow=false"}, {"wal", "nocow=true"}} {
		t.Run(tt.journal+" "+tt.option, func(t *testing.T) {
			name := tt.journal + tt.option[len("nocow="):]
			create(t, d, name, tt.option)
			db := startDatabase(t, data(t, d, name)+"/db", tt.journal)
			const snapshots = 8
			before := make([]int64, snapshots)
			for i := range before {
				for from := db.committed.Load(); db.committed.Load() < from+20; {
					time.Sleep(time.Millisecond)
					if t.Failed() {
						return
					}
				}
				before[i] = db.committed.Load()
				if err := d.CreateSnapshot(t.Context(), name, fmt.Sprint("s", i), nil); err != nil {
					t.Fatal(err)
				}
			}
			db.stop()
			for i, least := range before {
				clone := fmt.Sprint(name, "-", i)
				if err := d.Clone(t.Context(), clone, name, fmt.Sprint("s", i), opts()); err != nil {
					t.Fatal(err)
				}
				got := command(t, "sqlite3", data(t, d, clone)+"/db", "PRAGMA integrity_check; SELECT count(*), max(id) FROM t;")
				var rows, last int64
				if _, err := fmt.Sscanf(got, "ok\n%d|%d", &rows, &last); err != nil || rows != last || rows < least {
					t.Errorf("snapshot %d: %q, want ok and at least %d rows", i, got, least)
				}
			}
		})
	}
}

type database struct {
	committed atomic.Int64
	stop      func()
}

// startDatabase inserts rows as fast as sqlite3 takes them, one transaction for each.
func startDatabase(t *testing.T, path, journal string) *database {
	t.Helper()
	db := &database{}
	cmd := exec.CommandContext(t.Context(), "sqlite3", "-batch", path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() {
		defer stdin.Close()
		_, err := fmt.Fprintf(stdin, "PRAGMA journal_mode=%s; PRAGMA synchronous=FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB);\n", journal)
		for err == nil {
			select {
			case <-ended:
				return
			default:
				_, err = io.WriteString(stdin, "INSERT INTO t(x) VALUES (randomblob(2000)); SELECT max(id) FROM t;\n")
			}
		}
	})
	both.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if n, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64); err == nil {
				db.committed.Store(n)
			}
		}
	})
	db.stop = sync.OnceFunc(func() {
		close(ended)
		both.Wait()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(db.stop)
	return db
}

func TestHundredSnapshots(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openImage(t, newHost(t))
	create(t, d, "one", "size=64m")
	dir := data(t, d, "one")
	if err := random(t, dir+"/f", 16<<20); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		write(t, dir+"/n", fmt.Sprint(i))
		if err := d.CreateSnapshot(t.Context(), "one", fmt.Sprint("s", i), map[string]string{"n": fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := d.Snapshots(t.Context(), "one")
	if err != nil || len(all) != 100 {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	for i, s := range all {
		if s.Name != fmt.Sprint("s", i) || s.Labels["n"] != fmt.Sprint(i) {
			t.Errorf("snapshot %d is %+v", i, s)
		}
		mustRead(t, d.Path+"/one/snapshots/"+s.Name+"/n", fmt.Sprint(i))
	}
	if u, err := d.Usage(t.Context(), "one"); err != nil || u.Used > 17<<20 {
		t.Errorf("snapshots count: %+v, %v", u, err)
	}
	for i := range 99 {
		if err := d.RemoveSnapshot(t.Context(), "one", fmt.Sprint("s", i)); err != nil {
			t.Fatal(err)
		}
	}
	if all, err = d.Snapshots(t.Context(), "one"); err != nil || len(all) != 1 || all[0].Name != "s99" {
		t.Errorf("left: %+v, %v", all, err)
	}
	entries, err := os.ReadDir(d.Path + "/one/snapshots")
	if err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := d.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if out := command(t, "btrfs", "subvolume", "list", d.Path); out != "" {
		t.Errorf("left: %s", out)
	}
}
