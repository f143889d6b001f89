package backup

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// What was restored is as in the backup, and each thing that is not is found.
func TestCompare(t *testing.T) {
	r := opened(t, newPlace(t))
	dir := sample(t)
	put(t, dir+"/large", noise(t, 1<<20))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	to := t.TempDir()
	must[Backup](t)(r.Restore(t.Context(), b.ID, to, nil))
	c := must[Compared](t)(r.Compare(t.Context(), b.ID, to, nil))
	if c.Differences != 0 || c.Files != b.Files || c.Bytes != b.Size {
		t.Fatalf("compared %+v, want %d files of %d bytes", c, b.Files, b.Size)
	}
	flipped := func(name string) error {
		text, err := os.ReadFile(name)
		text[len(text)/2] ^= 1
		return errors.Join(err, os.WriteFile(name, text, 0o600))
	}
	for _, tt := range []struct {
		do   func() error
		want string
	}{
		{func() error { return flipped(to + "/large") }, "large: has other contents"},
		{func() error { return os.Truncate(to+"/large", 5) }, "large: has 5 bytes, and not 1048576"},
		{func() error { return os.Remove(to + "/large") }, "large: is not there"},
		{func() error { return errors.Join(os.Remove(to+"/large"), os.Mkdir(to+"/large", 0o700)) }, "large: is d"},
		{func() error { return os.WriteFile(to+"/more", nil, 0o600) }, "more: is not in the backup"},
		{func() error { return os.Mkdir(to+"/lost+found", 0o700) }, ""},
		{func() error { return os.Chmod(to, 0o711) }, ".: has the mode "},
	} {
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		must[Backup](t)(r.Restore(t.Context(), b.ID, to, nil))
		if err := tt.do(); err != nil {
			t.Fatal(err)
		}
		c := must[Compared](t)(r.Compare(t.Context(), b.ID, to, nil))
		switch {
		case tt.want == "" && c.Differences == 0:
		case tt.want == "" || c.Differences != 1 || !strings.HasPrefix(c.First.Error(), tt.want):
			t.Errorf("compared %+v, want one that says %q", c, tt.want)
		}
	}
	if _, err := r.Compare(t.Context(), "00000000", to, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of no backup: %v", err)
	}
}
