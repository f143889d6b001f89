package volume

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// kills is how often the process is killed; each takes some 10 ms.
const kills = 200

// killVolumes is how many volumes the child works on at once, each by itself.
const killVolumes = 3

// A process that mounts and unmounts at random is killed at any moment. What the next one
// reads is what was answered, or what the call in flight made of it.
func TestCountsSurviveKills(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a sequence that can be had again
	dir := t.TempDir()
	ledgerPath := filepath.Join(dir, "ledger")
	want := map[string]int{} // by volume and ID
	written := 0
	for i := range kills {
		flight := map[string]string{} // by volume
		c := child(t, "kill", dir, strconv.FormatUint(r.Uint64(), 10))
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		after := r.IntN(60)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == after {
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			f := strings.Fields(lines.Text()) // begin or done, sign, volume, ID
			if len(f) != 4 {
				continue // the last one, torn
			}
			if f[0] == "begin" {
				flight[f[2]] = f[1] + f[3]
				continue
			}
			delete(flight, f[2])
			written++
			count(want, f[1], f[2]+f[3])
		}
		_ = c.Wait() // killed
		b, err := os.ReadFile(ledgerPath)
		if err != nil {
			if len(want) == 0 {
				continue
			}
			t.Fatal(err)
		}
		got := readCounts(t, ledgerPath, b)
		for v, op := range flight {
			// The one in flight was written down, or was not.
			next := maps.Clone(want)
			count(next, op[:1], v+op[1:])
			if got[v+op[1:]] == next[v+op[1:]] {
				want = next
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("kill %d: the ledger counts %v, answered was %v", i, got, want)
		}
	}
	if written < kills {
		t.Errorf("only %d calls were answered in %d lives", written, kills)
	}
}

func count(counts map[string]int, sign, key string) {
	if sign == "+" {
		counts[key]++
	} else if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

func readCounts(t *testing.T, path string, b []byte) map[string]int {
	t.Helper()
	l := mustOpen(t, path) // what it reads
	defer l.close()        // and again by its cleanup
	got := map[string]int{}
	for _, r := range l.all() {
		for id, ref := range r.Refs {
			got[r.Volume+id] = ref.Count
		}
	}
	if len(b) == 0 && len(got) > 0 {
		t.Errorf("counts %v out of nothing", got)
	}
	return got
}

// killChild mounts and unmounts until it is killed, and tells what it begins and what it
// was answered.
func killChild() int {
	dir := os.Args[1]
	seed, err := strconv.ParseUint(os.Args[2], 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	h, err := NewHandler(ctx, newFake(dir, "v0", "v1", "v2"), Options{
		Ledger: filepath.Join(dir, "ledger"), Refresh: -1,
		Held: func(context.Context, string) (bool, bool) { return true, true },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var all sync.WaitGroup
	for i := range killVolumes {
		all.Go(func() {
			name := fmt.Sprintf("v%d", i)
			r := rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // a sequence that can be had again
			for {
				id := id(r.IntN(3))
				rec := h.mounts.get(name)
				sign := "+"
				if n := rec.Refs[id].Count; n > 0 && (n > 3 || r.IntN(2) == 0) {
					sign = "-"
				}
				fmt.Println("begin", sign, name, id)
				var err error // each goroutine's own
				if sign == "+" {
					_, err = h.Mount(ctx, name, id)
				} else {
					err = h.Unmount(ctx, name, id)
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Println("done", sign, name, id)
			}
		})
	}
	all.Wait()
	return 0
}
