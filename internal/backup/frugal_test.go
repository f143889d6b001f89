package backup

import (
	"os"
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
