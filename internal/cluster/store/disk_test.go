package store

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

func TestOthersSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, dir := open(t, t.TempDir(), 1, Options{}), t.TempDir()
		b := open(t, dir, 2, Options{})
		for i := range 3000 {
			a.spread = func(r []record.Record) { b.Merge(r) }
			put(t, a, "name", fmt.Sprint(i%40), i)
			if i%500 == 0 {
				time.Sleep(2 * lag)
			}
		}
		time.Sleep(2 * lag) // and no Close: what is saved by now has to be enough
		want := a.Records("name")
		if diff := len(want) - len(b.Records("name")); diff != 0 {
			t.Fatalf("%d are missing", diff)
		}
		again := open(t, dir, 2, Options{})
		if !again.Agrees(a.Digest()) {
			t.Error("the store that was opened again does not agree")
		}
		if info, err := os.Stat(filepath.Join(dir, othersName)); err != nil || info.Size() > 600<<10 {
			t.Errorf("%v, %v: the log grows without end", info.Size(), err)
		}
	})
}

func TestOwnLogIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1, Options{})
	big := strings.Repeat("x", 8<<10)
	for i := range 200 {
		if err := s.Put("name", "x", fmt.Sprint(i, " ", big)); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, ownName)); err != nil || info.Size() > 350<<10 {
			t.Fatalf("%d bytes, %v", info.Size(), err)
		}
	}
	s.Close()
	if r := open(t, dir, 1, Options{}).Records("name"); len(r) != 1 || !bytes.HasPrefix(r[0].Body, []byte(`"199 `)) {
		t.Errorf("%d records", len(r))
	}
}

// TestEveryTear cuts the log of a host at each byte: all that was whole is there, and nothing is said to be
// damaged. What is put then lasts.
func TestEveryTear(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1, Options{})
	ends := []int64{s.own.size}
	for i := range 4 {
		put(t, s, "name", fmt.Sprint(i), i)
		ends = append(ends, s.own.size)
	}
	s.Close()
	log, err := os.ReadFile(filepath.Join(dir, ownName))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(log) + 1 {
		if err := os.WriteFile(filepath.Join(dir, ownName), log[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, 1, Options{})
		whole := 0
		for _, end := range ends[1:] {
			if int64(n) >= end {
				whole++
			}
		}
		if got := len(s.Records("name")); got != whole || s.Status().Damage != nil {
			t.Fatalf("cut at %d: %d records, not %d; %v", n, got, whole, s.Status().Damage)
		}
		put(t, s, "name", "after", n)
		s.Close()
		s = open(t, dir, 1, Options{})
		if got := values(t, s, "name")["after"]; got != n || s.Status().Damage != nil {
			t.Fatalf("cut at %d: what came after reads %d; %v", n, got, s.Status().Damage)
		}
		s.Close()
	}
}

// TestEveryFlip changes each byte of the log in turn: what is read is what was written, and what is missing
// is said to be.
func TestEveryFlip(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1, Options{})
	for i := range 4 {
		put(t, s, "name", fmt.Sprint(i), i)
	}
	whole := values(t, s, "name")
	s.Close()
	log, err := os.ReadFile(filepath.Join(dir, ownName))
	if err != nil {
		t.Fatal(err)
	}
	silent := 0
	for n := range log {
		b := bytes.Clone(log)
		b[n] ^= 0x10
		if err := os.WriteFile(filepath.Join(dir, ownName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, 1, Options{})
		got := values(t, s, "name")
		for name, v := range got {
			if whole[name] != v {
				t.Fatalf("byte %d: %q reads %d", n, name, v)
			}
		}
		if len(got) < 3 || len(got) < 4 && n < len(logHeader) {
			t.Fatalf("byte %d: %d records are left", n, len(got))
		}
		if len(got) < 4 && s.Status().Damage == nil {
			silent++
		}
		s.Close()
	}
	// A length in the last frame that is too great looks like a write that was cut off.
	if silent > 4 {
		t.Errorf("%d flips lost something in silence", silent)
	}
}

func TestDamageIsMendedByOthers(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir, 1, Options{}), open(t, t.TempDir(), 2, Options{})
	for i := range 9 {
		put(t, s, "grant", fmt.Sprint(i), i)
	}
	other.Merge(all(t, s))
	s.Close()
	for _, name := range []string{ownName, metaName} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("nonsense that is long enough"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, 1, Options{})
	if st := s.Status(); len(st.Damage) != 2 || st.Records != 0 {
		t.Errorf("%+v", st)
	}
	put(t, s, "grant", "after", 1)
	s.Merge(all(t, other))
	if n := len(s.Records("grant")); n != 10 {
		t.Errorf("%d grants", n)
	}
	put(t, s, "grant", "later", 1)
	other.Merge(all(t, s))
	if !other.Agrees(s.Digest()) || len(other.Records("grant")) != 11 {
		t.Error("they do not agree")
	}
	s.Close()
	if st := open(t, dir, 1, Options{}).Status(); st.Damage != nil || st.Records != 11 || st.Incarnation < 3 {
		t.Errorf("%+v", st)
	}
}

const childEnv = "REMORA_TEST_STORE"

// TestKilled kills a process that writes, wherever it is: what it said it had put is there.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		s := open(t, dir, 1, Options{})
		fmt.Printf("incarnation %d\n", s.Incarnation())
		pad := strings.Repeat("x", 4<<10) // so that the log is written anew now and then
		for i := 1; ; i++ {
			if err := s.Put("name", fmt.Sprint(i%7), fmt.Sprint(s.Incarnation(), " ", i, pad)); err != nil {
				t.Fatal(err)
			}
			fmt.Println(i)
		}
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(3, 4))
	for round := 1; round <= 12; round++ {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		enough := random.IntN(300)
		incarnation, last := 0, 0
		for lines.Scan() {
			if n, _ := fmt.Sscanf(lines.Text(), "incarnation %d", &incarnation); n == 1 {
				continue
			}
			if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
				t.Fatal(lines.Text())
			}
			if last == enough {
				time.AfterFunc(time.Duration(random.IntN(3000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
			if enough == 0 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s := open(t, dir, 1, Options{})
		if st := s.Status(); st.Damage != nil || st.Incarnation != uint64(2*round) || incarnation != 2*round-1 {
			t.Fatalf("round %d: %+v; the child had incarnation %d", round, st, incarnation)
		}
		for i := max(1, last-6); i <= last; i++ {
			r, ok := s.Get(record.Key{Writer: s.Self(), Kind: "name", Name: fmt.Sprint(i % 7)})
			var inc, n int
			_, err := fmt.Sscanf(string(r.Body), `"%d %d`, &inc, &n)
			if !ok || err != nil || inc != incarnation || n != i && n != last+1 {
				t.Fatalf("round %d: after %d of %d, %d reads %d of %d, %v", round, last, incarnation, i, n, inc, err)
			}
		}
		s.Close()
	}
}

func FuzzLog(f *testing.F) {
	s := open(f, f.TempDir(), 1, Options{})
	for i := range 3 {
		put(f, s, "name", fmt.Sprint(i), i)
	}
	log := []byte(logHeader)
	for _, r := range all(f, s) {
		log = appendFrame(log, r)
	}
	f.Add(log)
	f.Add(log[:len(log)-5])
	f.Add(append(bytes.Clone(log[:100]), log[90:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		used := 0
		d := readLog(b, func(r record.Record) { used += frameSize(r) })
		if d.lost < 0 || d.torn < 0 || used+d.lost+d.torn != len(b) && used+d.lost+d.torn != len(b)-len(logHeader) {
			t.Errorf("%d bytes: %d used, %+v", len(b), used, d)
		}
	})
}
