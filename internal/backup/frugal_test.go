package backup

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

// A large file of which little was changed is stored again in small part.
func TestChangedLittle(t *testing.T) {
	r := opened(t, newPlace(t))
	dir := t.TempDir()
	const size = 48 << 20
	put(t, dir+"/large", noise(t, size))
	must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	f := must[*os.File](t)(os.OpenFile(dir+"/large", os.O_RDWR, 0))
	for at := int64(size / 8); at < size; at += size / 4 {
		if _, err := f.WriteAt([]byte("changed"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir})); b.Stored > 4*(2<<20)+1<<18 {
		t.Errorf("%d bytes were stored of a file in which 4 places were changed", b.Stored)
	}
}

// What a repository takes of memory while it is open goes back to the system.
func TestMemoryGoesBack(t *testing.T) {
	p := newPlace(t)
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, dir+"/large", noise(t, 32<<20))
	debug.FreeOSMemory()
	debug.FreeOSMemory()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := must[*Repository](t)(Open(t.Context(), p))
	must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	held := func(m runtime.MemStats) uint64 { return m.HeapSys - m.HeapReleased }
	// Kopia keeps the buffers of two packs.
	if more := int64(held(after)) - int64(held(before)); more > 40<<20 {
		t.Errorf("%d MiB more are held after a backup", more>>20)
	}
}
