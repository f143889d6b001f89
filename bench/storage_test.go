package main

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sums returns the checksum of every file below a directory.
func sums(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	all := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The data is the same in every run and as large as was said, and a hundredth of it changes.
func TestMixIsTheSameEachTime(t *testing.T) {
	const size = 8 << 20
	var before, after [2]map[string][32]byte
	for i := range 2 {
		dir := t.TempDir()
		m := newMix(dir, size)
		if err := m.write(); err != nil {
			t.Fatal(err)
		}
		if n, err := sizeOf(dir); err != nil || n != m.bytes || n < size || n > size*11/10 {
			t.Errorf("%d bytes on the disk, %d by its own count, %v; want about %d", n, m.bytes, err, size)
		}
		before[i] = sums(t, dir)
		if err := m.change(); err != nil {
			t.Fatal(err)
		}
		if m.changed < size/100 || m.changed > size/50 {
			t.Errorf("%d bytes changed, want about %d", m.changed, size/100)
		}
		after[i] = sums(t, dir)
	}
	changed := 0
	for name, sum := range before[0] {
		if before[1][name] != sum || after[0][name] != after[1][name] {
			t.Fatalf("%s differs from run to run", name)
		}
		if after[0][name] != sum {
			changed++
		}
	}
	if changed == 0 || changed > len(before[0])/4 {
		t.Errorf("%d of %d files changed", changed, len(before[0]))
	}
}

// A ratio is made of the two sides of one round, and of no others.
func TestFioRatioPairsRounds(t *testing.T) {
	r := &StorageResults{}
	for round, kib := range []float64{100, 1000, 10} {
		r.Fio = append(r.Fio, FioSample{"dir", remora, "j", round, kib / 2}, FioSample{"dir", bare, "j", round, kib}, FioSample{"loop", bare, "j", round, 1})
	}
	if x, ok := r.fioRatio("dir", "j"); !ok || x != (ratio{0.5, 0.5, 0.5}) {
		t.Errorf("ratio %+v", x)
	}
	if _, ok := r.fioRatio("loop", "j"); ok {
		t.Error("a ratio of one side")
	}
}

// A goal that is missed says so, and one that the bounds reach says that too.
func TestStorageTargets(t *testing.T) {
	r := &StorageResults{}
	add := func(driver, job string, values ...float64) {
		for round, v := range values {
			r.Fio = append(r.Fio, FioSample{driver, remora, job, round, v}, FioSample{driver, bare, job, round, 1})
		}
	}
	add("dir", jobs[0].name, 1, 1, 1)
	add("dir", jobs[1].name, 0.9, 0.95, 1)
	add("loop", jobs[0].name, 0.5, 0.5, 0.5)
	r.Snapshots = []SnapshotSample{{Storage: "btrfs", Bytes: 10 << 30, Millis: 120}}
	r.Lists = []ListSample{{Driver: "loop", Via: "remora volume ls", Volumes: 10_000, Millis: 199}}
	for _, peer := range backupPeers {
		r.Backups = append(r.Backups, BackupSample{Peer: peer, Phase: "first", Seconds: 2, Peak: 1 << 20})
	}
	text := r.targets()
	for _, want := range []string{
		"| fio on dir: at least 0.98× ext4 | " + jobs[0].name + " 1.00× (1.00–1.00) | met |",
		"| fio on dir: at least 0.98× ext4 | " + jobs[1].name + " 0.95× (0.90–1.00) | within the noise |",
		"| fio on loop: at least 0.90× xfs below it | " + jobs[0].name + " 0.50× (0.50–0.50) | **missed** |",
		"| Snapshot of 10 GiB, btrfs: under 100 ms | 120 ms, slowest 120 ms | **missed** |",
		"| `remora volume ls` of 10,000 volumes of loop: under 200 ms | 199 ms | met |",
		"| Backup, first: as fast as the best other | 2.00 s; restic 2.00 s; 1.00× (1.00–1.00) the time | met |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not in it: %s", want)
		}
	}
	if t.Failed() {
		t.Log("\n" + text)
	}
}

// TestSnapshotTable: how long a write waits stands beside how long a snapshot takes, where it was
// measured.
func TestSnapshotTable(t *testing.T) {
	r := &StorageResults{Snapshots: []SnapshotSample{
		{Storage: "loop", Millis: 120, Stall: 40}, {Storage: "loop", Millis: 130, Stall: 50}, {Storage: "loop", Millis: 110, Stall: 60},
		{Storage: "loop", Dirty: true, Millis: 200},
	}}
	text := r.snapshotTable()
	for _, want := range []string{
		"| loop | at rest | 120 ms | 110 ms | 130 ms | 50.0 ms |",
		"| loop | 4 MiB just written | 200 ms | 200 ms | 200 ms | – |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not in it: %s\n%s", want, text)
		}
	}
}

// TestWriterWaits: a write that is held up is the longest.
func TestWriterWaits(t *testing.T) {
	w, err := writeTo(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if longest, err := w.end(); err != nil || longest <= 0 {
		t.Errorf("%v, %v", longest, err)
	}
	if _, err := writeTo(t.TempDir() + "/none"); err == nil {
		t.Error("it writes to a directory that is not there")
	}
}

func TestCopyVolume(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, nameOf(0))
	facts := `{"version":1,"name":"` + nameOf(0) + `","id":"0123456789abcdef"}`
	for _, err := range []error{os.MkdirAll(from+"/data", 0o755), os.WriteFile(from+"/volume.json", []byte(facts), 0o600), multiply(dir, 3)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range []string{"01234567", "00000001", "00000002"} {
		b, err := os.ReadFile(filepath.Join(dir, nameOf(i), "volume.json"))
		if want := []byte(`"name":"` + nameOf(i) + `","id":"` + id + `89abcdef"`); err != nil || !bytes.Contains(b, want) {
			t.Errorf("%s, %v; want %s in it", b, err, want)
		}
		if fi, err := os.Stat(filepath.Join(dir, nameOf(i), "data")); err != nil || !fi.IsDir() {
			t.Error(err)
		}
	}
}
