package backup

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// What stays open takes little, and what was used for the work goes back to the system.
func TestMemoryGoesBack(t *testing.T) {
	if underRace > 1 {
		t.Skip("the race detector takes memory of its own")
	}
	p, o := newPlace(t), opener(t)
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, dir+"/warm", "x")
	create := func() error {
		return o.With(t.Context(), p, func(r *Repository) error {
			_, err := r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir})
			return err
		})
	}
	if err := create(); err != nil {
		t.Fatal(err)
	}
	o.Forget()
	tidy()
	before := resident(t)
	for i := range 20 {
		put(t, filepath.Join(dir, string(rune('a'+i))), noise(t, 4<<20))
	}
	tidy()
	if err := create(); err != nil {
		t.Fatal(err)
	}
	open := resident(t)
	if len(o.kept) != 1 {
		t.Fatal("it is not open")
	}
	o.Close()
	closed := resident(t)
	t.Logf("resident: %d KiB before, %d while it is open, %d after it is closed", before>>10, open>>10, closed>>10)
	for _, n := range []int64{open, closed} {
		if n-before > 8<<20 {
			t.Errorf("%d KiB more are held than before the backup", (n-before)>>10)
		}
	}
}

// resident returns how much of this process's memory there is that is in no file.
func resident(t *testing.T) int64 {
	t.Helper()
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile("/proc/self/status")))) {
		if f := strings.Fields(line); f[0] == "RssAnon:" {
			return int64(must[int](t)(strconv.Atoi(f[1]))) << 10
		}
	}
	t.Fatal("the kernel does not say RssAnon")
	return 0
}

// Buffers that are in use keep what is in them.
func TestEmptyBuffers(t *testing.T) {
	p := newPlace(t)
	r := opened(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			emptyBuffers()
		}
	})
	dir := t.TempDir()
	for i := range 8 {
		put(t, filepath.Join(dir, string(rune('a'+i))), noise(t, 6<<20))
	}
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	to := t.TempDir()
	must[Backup](t)(r.Restore(t.Context(), b.ID, to, nil))
	cancel()
	all.Wait()
	same(t, tree(t, dir), tree(t, to))
	if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); len(v.Damaged) > 0 {
		t.Errorf("verified: %+v", v)
	}
}
